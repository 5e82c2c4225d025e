"""What all plots have in common: readable on light and dark pages, without colours, and in few bytes."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

import backends
from benchmarks.report.document import plain

INK, LINE, FAINT, MARK = "#777777", "#3b82c4", "#9bb8d3", "#d1662b"
"""Middling tones: they stand out from white and from near-black alike."""
STYLE = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "hatch.linewidth": 0.8}
"""The same figures give the same bytes, and text stays text."""

BACKENDS = (("#d1662b", "o"), ("#3b82c4", "s"), ("#0f9d76", "^"), ("#a868b8", "D"))
"""Tone and mark of each backend: vermilion, blue and bluish green are told apart whatever colours one sees
(M. Okabe, K. Ito, Color Universal Design, 2008)."""
VARIANTS = {"default": "-", "tuned": "--", "tuned bfloat16": ":", "reproducible": "-."}
OTHER_VARIANT = (0, (5, 1, 1, 1, 1, 1))

THEME = "<style>svg{color:#595959}@media(prefers-color-scheme:dark){svg{color:#b8b8b8}}</style>"
"""Of text and axes, for who opens the file by itself: 7 to 1 on white, 9 to 1 on near-black. A page that has
the picture within it leaves this out, and gives it its own ink."""


def line_style(backend: str, variant: str) -> dict[str, Any]:
    """A line's tone and mark by its backend, its dashes by its variant."""
    known = sorted(backends.known())
    place = known.index(backend) if backend in known else len(known)
    color, marker = BACKENDS[min(place, len(BACKENDS) - 1)]
    dashes = VARIANTS.get(variant, OTHER_VARIANT)
    return {"color": color, "marker": marker, "linestyle": dashes, "linewidth": 1.8}


def text_of(text: str) -> str:
    """Text in one line, of letters that are seen; its dollar signs are no formula's."""
    return plain(text).replace("$", r"\$")


def svg(figure: Figure) -> bytes:
    """The picture, its ink that of the page around it."""
    for axes in figure.axes:
        for part in (axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title):
            part.set_color(INK)
        axes.tick_params(which="both", colors=INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.patch.set_visible(False)
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _lean(buffer.getvalue().decode()).encode()


# --- How ------------------------------------------------------------------------------------------


def _lean(text: str) -> str:
    """Ink to the page's own, coordinates to hundredths of a point, and no more than is drawn."""
    text = METADATA.sub("", text)
    # Named after coordinates, whose last digits the layout's solver does not always get alike.
    numbers = {name: number for number, name in enumerate(dict.fromkeys(CLIP.findall(text)))}
    text = CLIP.sub(lambda found: f"clip{numbers[found[0]]}", text)
    text = ATTRIBUTE.sub(lambda found: DECIMALS.sub(_rounded, found[0]), text)
    text = text.replace(INK, "currentColor")
    return OPENING.sub(lambda found: found[0] + THEME, text, count=1)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


CLIP = re.compile(r"\bp[0-9a-f]{10}\b")
"""What matplotlib calls a clipping path."""
METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
ATTRIBUTE = re.compile(r'(?<= )(?:d|x|y|width|height|transform|points)="[^"]*"')
DECIMALS = re.compile(r"-?\d+\.\d{3,}")
OPENING = re.compile(r"<svg\b[^>]*>")
