"""Run a notebook without Jupyter, and keep its outputs in the file.

python tools/run_notebook.py examples/bayesian_neural_networks_wine.ipynb

Shown are what cells print, and the value of a last expression: figures of matplotlib as pictures,
all else by its repr. Lines that begin with % are for Jupyter, and left out.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

DPI = 72


def main() -> None:
    path = Path(sys.argv[1])
    notebook = json.loads(path.read_text())
    run(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def run(notebook: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """Run the cells of a notebook and put their outputs in place; returns the names they leave.

    Args:
        notebook: what the file holds.
        parameters: values of names that take the places of those in the cell with the tag
            "parameters".
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        cell["execution_count"] = number
        cell["outputs"] = _outputs("".join(cell["source"]), number, names)
        if "parameters" in cell["metadata"].get("tags", ()):
            unknown = parameters.keys() - names.keys()
            if unknown:
                raise ValueError(f"parameters: expected names of the cell, got {sorted(unknown)}")
            names.update(parameters)
    notebook["metadata"]["outputs_of"] = digest(notebook)
    return names


def digest(notebook: dict[str, Any]) -> str:
    """A hash of the code of all cells, from which the outputs in a file came."""
    sources = [c["source"] for c in notebook["cells"] if c["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def _small(picture: io.BytesIO) -> bytes:
    """A picture with 256 colours, which takes half of the space."""
    found = io.BytesIO()
    Image.open(picture).convert("RGB").quantize(256).save(found, "PNG", optimize=True)
    return found.getvalue()


def _outputs(source: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    lines = ["" if line.startswith("%") else line for line in source.splitlines()]
    tree = ast.parse("\n".join(lines))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value, name = io.StringIO(), None, f"cell {number}"
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "savefig"):
            picture = io.BytesIO()
            value.savefig(picture, format="png", dpi=DPI)
            small = base64.b64encode(_small(picture)).decode()
            data = {"image/png": small + "\n", **data}
        outputs.append(
            {
                "data": data,
                "execution_count": number,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return outputs


if __name__ == "__main__":
    main()
