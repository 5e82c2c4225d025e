"""Figures with what they range over, a row each: what a plot of dots shows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MOST = 48
"""Rows: more make a picture that nobody reads."""


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    backend: str
    variant: str
    """In words."""
    label: str
    value: float
    low: float
    high: float
    text: str
    """The value, as it is written beside the dot."""


class DotsPanel(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are compared with each other."""

    title: str
    dots: tuple[Dot, ...]


class Dots(msgspec.Struct, frozen=True, kw_only=True):
    """One plot."""

    path: str
    """Relative to the run's folder."""
    axis: str
    from_zero: bool
    """Whether the axis begins there, and each panel has its own; otherwise all have the same."""
    panels: tuple[DotsPanel, ...]
    left_out: int = 0
    """Rows."""

    @property
    def said(self) -> str:
        """Of what was left out, as a sentence with a space before it; empty where all is shown."""
        if not self.left_out:
            return ""
        return f" {self.left_out} more {'row is' if self.left_out == 1 else 'rows are'} in the tables only."


def thinned(panels: Sequence[DotsPanel], *, path: str, axis: str, from_zero: bool) -> Dots:
    """A plot of the first `MOST` rows: those of the panels that compare most backends. Panels of one row that
    have an axis of their own compare nothing: they are left out where others do."""
    rows = sum(len(panel.dots) for panel in panels)
    if from_zero:
        panels = [panel for panel in panels if len(panel.dots) > 1] or panels
    order = sorted(
        range(len(panels)), key=lambda place: (-len({dot.backend for dot in panels[place].dots}), place)
    )
    kept: dict[int, DotsPanel] = {}
    room = MOST
    for place in order:
        dots = panels[place].dots[:room]
        if dots:
            kept[place] = msgspec.structs.replace(panels[place], dots=dots)
            room -= len(dots)
    return Dots(
        path=path, axis=axis, from_zero=from_zero, panels=tuple(kept[place] for place in sorted(kept)),
        left_out=rows - (MOST - room),
    )  # fmt: skip
