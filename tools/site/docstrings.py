"""Docstrings as Markdown: an extension of griffe, which reads the package for the pages of the API.

The docstrings have the roles and the formulas of reStructuredText, sections of Google's style, and
examples wherever they serve. A role becomes a link if the API pages have what it names, and else
code; one that names nothing at all is an error.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
import formulas

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`(~?)([\w.]+)`")

# Its functions are those of bslfast.functional, whose page says what they do.
TWINS = "bslfast.reference"
# What docstrings name beside bslfast's own.
OTHERS = {"torch", "sklearn", "matplotlib", *sys.stdlib_module_names}


def modules() -> list[str]:
    """The modules that have a page: those under api/ in the navigation."""
    configuration = (Path(__file__).parents[2] / "mkdocs.yml").read_text()
    return re.findall(r"(?m)^ *- (?:[\w. ]+: )?api/([\w.]+)\.md$", configuration)


class Docstrings(griffe.Extension):
    """Makes Markdown of every docstring as soon as the package has been read."""

    def on_package(self, *, pkg: griffe.Module, loader: Any, **_: Any) -> None:
        if pkg.path != "bslfast":
            return
        loader.resolve_aliases(implicit=True)
        anchors: dict[str, str] = {}
        shown: list[list[Any]] = []  # what has a docstring, after the scopes that it is in
        for name in modules():
            module = pkg if name == "bslfast" else pkg[name.removeprefix("bslfast.")]
            uncover(module)
            outer = [pkg] if module is pkg else [pkg, module]
            anchors[name] = name
            shown.append(outer)
            for member in public(module):
                path = f"{name}.{member.name}"
                anchors[path] = anchors[member.canonical_path] = path
                found = member.final_target if member.is_alias else member
                shown.append([*outer, found.module, found])
                for part in parts(found) if found.is_class else []:
                    anchor = f"{path}.{part.name}"
                    anchors[anchor] = anchors[part.canonical_path] = anchor
                    shown.append([*outer, found.module, found, part])
        done = set()
        for scopes in shown:
            docstring = scopes[-1].docstring
            if docstring is not None and id(docstring) not in done:
                done.add(id(docstring))
                docstring.value = markdown(docstring.value, scopes[::-1], anchors)


def uncover(module: Any) -> None:
    """Put public functions in front of the files of the same name, as importing them does."""
    for name, member in list(module.members.items()):
        if member.is_public and not member.is_alias and member.is_module and name in member.members:
            module.members[name] = griffe.Alias(name, target=member.members[name], parent=module)


def public(module: Any) -> list[Any]:
    """Members that the page of a module shows; modules have pages of their own."""
    if module.path == TWINS:
        return []
    return [
        member
        for member in module.members.values()
        if member.is_public
        and not (member.is_alias and not member.target_path.startswith("bslfast."))
        and not member.is_module
        and member.has_docstring
    ]


def parts(kind: Any) -> list[Any]:
    """Documented members of a class, among which it takes those of its private bases.

    Special methods have no place on its page, but for those that are called by the user.
    """
    for base in kind.mro():
        for name, member in base.members.items() if base.name.startswith("_") else ():
            if name not in kind.members and not member.is_alias:
                kind.members[name] = griffe.Alias(name, target=member, parent=kind)
    for name, member in kind.members.items():
        if name.startswith("__") and name not in ("__init__", "__call__") and not member.is_alias:
            member.docstring = None
    kind.bases = [base for base in kind.bases if not str(base).startswith("_")]
    return [m for m in kind.members.values() if not m.name.startswith("_") and m.has_docstring]


def markdown(text: str, scopes: list[Any], anchors: dict[str, str]) -> str:
    """A docstring in Markdown."""
    text = re.sub(
        r"(?m)^( *)\.\. math::([^\n]*(?:\n(?:\1 +[^\n]*| *$))*)",
        lambda found: f"{found[1]}{formulas.block(found[2].strip())}\n",
        text,
    )
    text = re.sub(r":math:`([^`]*)`", lambda found: formulas.inline(found[1]), text)
    text = _ROLE.sub(lambda found: link(found[2], bool(found[1]), scopes, anchors), text)
    text = re.sub(r"(?m)^(=+) (=+)\n(.*)\n\1 \2\n((?:.*\n)*?)\1 \2$", table, text)
    # An example ends at an empty line.
    text = re.sub(
        r"(?m)^( *)>>> (?:.+\n?)+",
        lambda found: f"{found[1]}```pycon\n{found[0].rstrip()}\n{found[1]}```\n",
        text,
    )
    # griffe would take what follows a space for a type.
    text = re.sub(r"(?m)^ *Attributes:\n(?: +.*\n?)+", joined, text)
    text = re.sub(r"(?m)^( *)Args:$", r"\1Args: Arguments:", text)
    text = text.replace("TypeError, ValueError:", "TypeError | ValueError:")
    text = re.sub(r"(?m)^(Shape|Parameters|Source|Buffers): ", r"**\1:** ", text)
    # "The densities: of each row" is a sentence here, not a name and its description.
    text = re.sub(r"(?m)^(Returns|Yields):\n((?: +.*\n?|\n(?= ))+)", sentence, text)
    return re.sub(r"(\w)::$", r"\1:", text, flags=re.MULTILINE)


def sentence(found: re.Match[str]) -> str:
    lines = [line.removeprefix("    ") for line in found[2].rstrip().split("\n")]
    return f"**{found[1]}:** " + "\n".join(lines) + "\n" * (1 + found[2].endswith("\n"))


def joined(found: re.Match[str]) -> str:
    """Attributes that are described together, with spaces that do not part them."""
    names = re.compile(r"(?m)^ +(?:\w+, )+\w+:")
    return names.sub(lambda line: re.sub(r", ", ",\N{NO-BREAK SPACE}", line[0]), found[0])


def table(found: re.Match[str]) -> str:
    """A table of two columns."""
    width = len(found[1])
    rows = [found[3], "-" * width + " ---", *found[4].rstrip("\n").split("\n")]
    return "\n".join(f"| {row[:width].strip()} | {row[width:].strip()} |" for row in rows)


def link(target: str, short: bool, scopes: list[Any], anchors: dict[str, str]) -> str:
    """A link to what a docstring names, if a page has it."""
    shown = f"`{target.rpartition('.')[2] if short else target}`"
    found = [target, *(path for scope in scopes for path in meant(target, scope))]
    for path in found:
        if path in anchors:
            return f"[{shown}][{anchors[path]}]"
    if not found[1:] and target.split(".")[0] not in OTHERS:
        raise ValueError(f"{scopes[0].path}: its docstring names {target}, which does not exist")
    return shown


def meant(target: str, scope: Any) -> list[str]:
    """The path of what a name stands for in this scope, if it does."""
    place = scope
    for name in target.removeprefix("bslfast.").split("."):
        place = place and member(place, name)
    return [] if place is None else [place.target_path if place.is_alias else place.path]


def member(scope: Any, name: str) -> Any:
    """What is called so in a module, or in a class and its bases, or None."""
    if scope.is_alias:  # of another package
        return scope
    classes = scope.mro() if scope.is_class else []
    found = next((s.members[name] for s in (scope, *classes) if name in s.members), None)
    if found is not None and found.is_alias and found.target_path.startswith("bslfast."):
        return found.final_target
    return found
