"""The report of a job as one page of HTML, for people; ``metrics.json`` has the same for programs.

A file on its own, with the pictures inside: it may be moved or sent. Without scripts, fonts or
anything else from elsewhere.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# The sections that every reader wants come first, those that matter to the job's repetition last.
_FIRST = ("test",)
_LAST = ("training", "reference", "model", "latent", "data", "options", "versions")
_HEADINGS = {
    "test": "Metrics on held-out data",
    "reference": "The same network in plain torch",
    "latent": "Latent dimensions",
    "options": "Settings",
}
# Entries of a list that are shown: lists have a number for each feature, say.
_SHOWN = 12

# Columns of equal width keep numbers whole on a phone, where automatic ones break them. Tables of
# many columns scroll.
_STYLE = """
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 1rem/1.5 sans-serif; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
h1, td, th, figcaption, p { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
.grid { display: block; overflow-x: auto; } .grid th, .grid td { overflow-wrap: normal; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; }
th { font-weight: normal; } thead th { font-weight: bold; } td { font-family: monospace; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
"""


def page(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return the page of a job.

    Args:
        report: what ``metrics.json`` holds: "job", numbers and texts, tables of them, tables of
            tables and lists of tables.
        pictures: PNG files by their names.
    """
    name = html.escape(str(report["job"]))
    tables = [key for key, value in report.items() if isinstance(value, Mapping) or _alike(value)]
    others = [key for key in tables if key not in (*_FIRST, *_LAST)]
    last = [key for key in _LAST if key in tables]
    single = {key: value for key, value in report.items() if key not in ("job", *tables)}
    parts = [_section(key, report) for key in (*_FIRST, *others) if key in tables]
    parts += [_picture(stem, content) for stem, content in pictures.items()]
    parts += [_section(key, report) for key in last]
    if single:
        parts.append(f"<h2>More</h2>\n{_table(single)}")
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>bslfast: {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{name}</h1>
{body}
</body>
</html>
"""


def _section(key: str, report: Mapping[str, Any]) -> str:
    content = report[key]
    twin = (report.get("reference") or {}).get("test")
    if key == "reference":
        content = {name: value for name, value in content.items() if name != "test"}
    heading = _HEADINGS.get(key, _words(key).capitalize())
    if _alike(content):
        return f"<h2>{heading}</h2>\n{_grid(content)}"
    return f"<h2>{heading}</h2>\n{_table(content, twin if key == 'test' else None)}"


def _table(content: Mapping[str, Any], twin: Mapping[str, Any] | None = None) -> str:
    """Rows of a name and a value, and of the value in plain torch if there is a twin."""
    rows = []
    for names, value in _leaves(content):
        cells = [value] if twin is None else [value, twin.get(names[-1])]
        data = "".join(f"<td>{html.escape(_text(cell))}</td>" for cell in cells)
        name = html.escape(", ".join(map(_words, names)))
        rows.append(f'<tr><th scope="row">{name}</th>{data}</tr>')
    head = ""
    if twin is not None:
        columns = "".join(f'<th scope="col">{c}</th>' for c in ("", "bslfast", "plain torch"))
        head = f"<thead><tr>{columns}</tr></thead>\n"
    body = "\n".join(rows)
    return f"<table>\n{head}<tbody>\n{body}\n</tbody>\n</table>"


def _alike(value: Any) -> bool:
    """Whether it is a list of tables, such as the results of each split."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each of several tables, numbered from 0, of what is a number or text there."""
    keys = [key for key, value in rows[0].items() if not isinstance(value, Mapping | list)]
    head = "".join(f'<th scope="col">{html.escape(_words(key))}</th>' for key in ("", *keys))
    body = []
    for i, row in enumerate(rows):
        data = "".join(f"<td>{html.escape(_text(row.get(key)))}</td>" for key in keys)
        body.append(f'<tr><th scope="row">{i}</th>{data}</tr>')
    lines = "\n".join(body)
    top = f"<thead><tr>{head}</tr></thead>"
    return f'<table class="grid">\n{top}\n<tbody>\n{lines}\n</tbody>\n</table>'


def _leaves(
    content: Mapping[str, Any], names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of tables in tables, each with the names on the way to it."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*names, str(key)))
        else:
            yield (*names, str(key)), value


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        more = f", ... ({len(value)} in all)" if len(value) > _SHOWN else ""
        return ", ".join(map(_text, value[:_SHOWN])) + more
    return str(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _picture(stem: str, content: bytes) -> str:
    caption = html.escape(_words(stem).capitalize())
    source = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return (
        f'<figure>\n<img src="{source}" alt="{caption}" />\n<figcaption>{caption}</figcaption>\n'
        "</figure>"
    )
