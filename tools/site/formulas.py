"""LaTeX formulas as pictures inside a page: no script, no font to load, no network.

matplotlib reads them, which knows most of LaTeX's mathematics but no environments. A picture has
the colour of the text around it; its description is the LaTeX text.
"""

from __future__ import annotations

import html
import re

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

# What matplotlib has no name for, and what stands for it.
_OTHER_NAMES = {
    r"\\[Bb]igg?[lr]?(?![a-z])": "",
    r"\\(le|ge)(?![a-z])": r"\\\1q",
    r"\\bmod": r"\\ \\mathrm{mod}\\ ",
    r"\\mathcal (\w)": r"\\mathcal{\1}",
    r"\\int(?![a-z])": r"\\int\\;",
    r"(\\sum(?:[_^](?:\w|\{[^{}]*\}))+)": r"\1\\,",
    r"\\tfrac": r"\\frac",
    r"\\frac(\d)(\d)": r"\\frac{\1}{\2}",
    r"\\frac(\d)(\w)": r"\\frac{\1}{\2}",
    r"\\qquad": r"\\quad\\quad",
    r"\\text\{([^}]*)\}": lambda found: r"\mathrm{" + found[1].replace(" ", r"\ ") + "}",
    r"&": "",
}
_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
_SIZE = 100.0  # of the font, in units of the picture
_UNIT = _SIZE / 1.2  # of the text around, whose letters are larger
_FONT = FontProperties(math_fontfamily="cm")


def picture(latex: str) -> str:
    """A line of a formula as an ``svg`` element, as high as text.

    Raises:
        ValueError: matplotlib cannot read the formula.
    """
    text = " ".join(latex.split())
    for pattern, other in _OTHER_NAMES.items():
        text = re.sub(pattern, other, text)
    path = TextPath((0, 0), f"${text}$", size=_SIZE, prop=_FONT)
    parts = []
    for points, code in path.iter_segments(simplify=False):
        if code == Path.CLOSEPOLY:
            parts.append("Z")
        else:
            # The page's y goes down.
            numbers = (round(n if i % 2 == 0 else -n) for i, n in enumerate(points))
            parts.append(_COMMANDS[code] + " ".join(map(str, numbers)))
    # Points that steer curves count: their exact bounds take longer than all else.
    (left, low), (right, high) = path.vertices.min(axis=0), path.vertices.max(axis=0)
    width, below = right - left, max(-low, 0.0)  # below the line that text stands on
    height = high + below
    sizes = {"width": width, "height": height, "vertical-align": -below}
    style = ";".join(f"{name}:{size / _UNIT:.2f}em" for name, size in sizes.items())
    return (
        f'<svg role="img" aria-label="{html.escape(latex, quote=True)}" style="{style}" '
        f'viewBox="{left:.0f} {-high:.0f} {width:.0f} {height:.0f}">'
        f'<path d="{"".join(parts)}"/></svg>'
    )


def inline(latex: str) -> str:
    """A formula within a sentence."""
    return f'<span class="formula">{picture(latex)}</span>'


def block(latex: str) -> str:
    """A formula in lines of its own, which ``\\\\`` ends."""
    lines = (f"<div>{picture(line)}</div>" for line in latex.split(r"\\"))
    return f'<div class="formula">{"".join(lines)}</div>'
