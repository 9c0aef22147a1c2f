"""Pages of the site that are made of other files: a hook of mkdocs, see mkdocs.yml.

The navigation names them. Each entry under api/ is the page of a module. README's start is the
first page; the changelog, examples, notebooks and results of benchmarks are what their files say.
Links to these files become links to their pages. After the build every link inside the site is
looked up, also those in docstrings, which mkdocs does not check.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from posixpath import join, normpath, relpath
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import formulas
from docstrings import TWINS, modules

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LONGEST = 12_000  # characters of a table on the page of all benchmarks
# What the benchmark page has, in its order.
KINDS = {
    "flows": "Flows",
    "bnn": "Bayesian networks",
    "vae": "Autoencoders",
    "cpu": "Single ops",
    "iwae": "Log likelihoods of autoencoders",
}
# Wide tables take the place of the lists beside them.
HIDDEN = {
    "index.md": ["navigation"],
    "catalogue.md": ["toc"],
    "benchmarks/index.md": ["navigation"],
    **{f"benchmarks/{path.name}": ["navigation", "toc"] for path in RESULTS.glob("*.md")},
}
# Files outside docs, and the pages made of them.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples": "examples/index.md",
    "benchmarks/results": "benchmarks/index.md",
    **{
        f"examples/{path.name}": f"examples/{path.stem}.md"
        for path in sorted((ROOT / "examples").iterdir())
        if path.suffix in (".py", ".ipynb")
    },
    **{
        f"benchmarks/results/{path.name}": f"benchmarks/{path.name}"
        for path in sorted(RESULTS.iterdir())
    },
}


def on_files(files: Any, config: Any) -> Any:
    def add(name: str, content: str | bytes) -> None:
        files.append(File.generated(config, name, content=content))

    for source, name in PAGES.items():
        path = ROOT / source
        if path.suffix == ".py":
            add(name, script(path))
        elif path.suffix == ".ipynb":
            text, pictures = notebook(path)
            add(name, linked(text, source))
            for number, picture in enumerate(pictures):
                add(f"examples/{path.stem}-{number}.png", picture)
        elif path.suffix == ".png":
            add(name, path.read_bytes())
        elif source.startswith("benchmarks/") and path.is_file():
            text = path.read_text()
            title = "" if text.startswith("# ") else f"# {path.stem}\n\n"
            add(name, title + linked(text, source))
    add("index.md", home())
    add("changelog.md", linked((ROOT / "CHANGELOG.md").read_text(), "CHANGELOG.md"))
    add("contributing.md", linked((ROOT / "CONTRIBUTING.md").read_text(), "CONTRIBUTING.md"))
    add("examples/index.md", examples())
    add("benchmarks/index.md", benchmarks())
    for module in modules():
        title = f"# {module} {{ #{module} }}\n\n"
        add(f"api/{module}.md", title + (twins() if module == TWINS else f"::: {module}\n"))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the pages in docs to files outside of it, and names of pages in sentences."""
    page.meta["hide"] = HIDDEN.get(page.file.src_uri, [])
    if page.file.generated_by is None:
        markdown = linked(markdown, f"docs/{page.file.src_uri}")
    return markdown


def linked(text: str, source: str) -> str:
    """The text of the file ``source`` with links to the pages of the site, from its own page."""
    here = placed(source)

    def replaced(found: re.Match[str]) -> str:
        target, mark, anchor = found[2].partition("#")
        path = normpath(join(source.rpartition("/")[0], target))
        if not target or "://" in target or not (ROOT / path).exists():
            return found[0]
        return f"{found[1]}({beside(here, placed(path))}{mark}{anchor})"

    text = re.sub(r"(\])\(([^()\s]+)\)", replaced, text)
    known = "|".join(path.stem for path in (ROOT / "docs").glob("*.md"))
    # The first parts are code and links, which stay as they are.
    return re.sub(
        rf"(?ms)^ *```.*?^ *```$|`[^`]*`|\[[^\]]*\]\([^)]*\)|(?<![\w/])(?:docs/)?({known})\.md\b",
        lambda found: f"[{found[0]}]({beside(here, found[1] + '.md')})" if found[1] else found[0],
        text,
    )


def beside(here: str, page: str) -> str:
    """The address of a page as another one has it."""
    return relpath(page, here.rpartition("/")[0] or ".")


def placed(source: str) -> str:
    """The place of a file of the repository in the site."""
    return PAGES.get(source.rstrip("/"), source.removeprefix("docs/"))


def home() -> str:
    """What README says before its table of modules, and where to go on."""
    text = (ROOT / "README.md").read_text().split("\n## What is in it\n")[0]
    return (
        linked(text, "README.md")
        + """
## Where to go on

- [Which flow, posterior and likelihood](choosing.md) for which data.
- [Examples and notebooks](examples/index.md), with their pictures.
- [Coming from another library](migration.md): models converted in one line, and names compared.
- [Benchmarks](benchmarks/index.md), with machines and dates.
- [Troubleshooting](troubleshooting.md): messages, their causes, and what to do.
- The API by module, such as [nn](api/bslfast.nn.md) and [flows](api/bslfast.flows.md).
"""
    )


def twins() -> str:
    """The page of the ops in plain torch: their names, and where they are explained."""
    tree = ast.parse((ROOT / TWINS.replace(".", "/") / "__init__.py").read_text())
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    lines = [f"- [`{name}`][bslfast.functional.{name}]" for name in names]
    options = "    options:\n      members: false\n"
    return f"::: {TWINS}\n{options}\n" + "\n".join(lines) + "\n"


def script(path: Path) -> str:
    """A page with a script of examples."""
    text = path.read_text()
    return f"# {path.name}\n\n{ast.get_docstring(ast.parse(text))}\n\n```python\n{text}```\n"


def examples() -> str:
    lines = ["# Examples and notebooks\n"]
    for source, name in PAGES.items():
        path = ROOT / source
        if path.suffix == ".ipynb":
            first = "".join(json.loads(path.read_text())["cells"][0]["source"]).split("\n")[0]
        elif path.suffix == ".py":
            first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        else:
            continue
        title = " ".join(first.removeprefix("# ").split())
        lines.append(f"- [{source}]({name.removeprefix('examples/')}): {title}")
    return "\n".join(lines) + "\n"


def notebook(path: Path) -> tuple[str, list[bytes]]:
    """A notebook with its outputs as Markdown, and its pictures."""
    parts: list[str] = []
    pictures: list[bytes] = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = re.sub(r"\$\$(.+?)\$\$", lambda f: formulas.block(f[1]), source, flags=re.S)
            source = re.sub(r"\$([^$`\n][^$`]*?)\$", lambda f: formulas.inline(f[1]), source)
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures)}.png"
                parts.append(f"![Output of the code above]({name})")
                pictures.append(base64.b64decode("".join(data["image/png"])))
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```{{ .text .output }}\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def benchmarks() -> str:
    """The newest results of each kind with their picture, and a list of all."""
    parts = [
        "# Benchmarks\n\nFor each kind the newest results with a picture, then a list of all. "
        "A ratio compares two times of one machine, taken in turns. `make bench`, "
        "`make bench-flows`, `make bench-bnn` and `make bench-vae` measure again (testing.md).\n"
    ]
    for kind, title in KINDS.items():
        paths = [path for path in RESULTS.glob("*.md") if path.stem.startswith(kind)]
        paths.sort(key=lambda path: (date(path), path.with_suffix(".png").exists(), path.stem))
        path = paths[-1]
        text = path.read_text()
        if not text.startswith("# "):
            machine = path.stem.removeprefix(f"{kind}-").replace(f"-{date(path)}", "")
            text = f"# {machine.replace('-', ' ')}, {date(path)}\n\n{text}"
        measured, _, text = text.removeprefix("# ").partition("\n")
        if len(text) > LONGEST:
            text = text.split("\n| ")[0] + f"\nThe table is in [{path.stem}]({path.name}).\n"
        name = f"{path.stem}.png"  # it leads to itself, to be seen in full size
        picture = f"[![{title}: times as multiples of bslfast's]({name})]({name})\n"
        drawn = path.with_suffix(".png").exists() and f"({path.stem}.png)" not in text
        parts += [f"## {title}\n\nMeasured on: {measured}\n", picture * drawn, text]
        parts.append("All results:\n")
        parts += [f"- [{path.stem}]({path.name})" for path in reversed(paths)]
        parts.append("")
    return linked("\n".join(parts), "benchmarks/results/")


def date(path: Path) -> str:
    return re.findall(r"\d{4}-\d\d-\d\d", path.stem)[0]


class Links(HTMLParser):
    """Names of the places in a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value or "")
            elif name in ("href", "src") and value:
                self.targets.append(value)
                if tag != "a":
                    self.loaded.append(value)


def on_post_build(config: Any, **_: Any) -> None:
    """Every link inside leads to a file, and to a place in it; nothing is loaded from outside."""
    site = Path(config.site_dir)
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        wrong += [f"{path.relative_to(site)}: {t}" for t in page.loaded if urlsplit(t).netloc]
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if file.is_dir():
                file /= "index.html"
            place = unquote(parts.fragment)
            if not file.exists() or (file in pages and place and place not in pages[file].ids):
                wrong.append(f"{path.relative_to(site)}: {target}")
    if wrong:
        raise PluginError("links that lead nowhere, or outside:\n" + "\n".join(wrong))
