"""What a rule says of a run."""

from __future__ import annotations

import msgspec


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a run invalid."""

    where: str
    """A cell, a file, or what several cells have in common."""
    what: str
    remedy: str
    """What to do."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader should know, of a run that may be valid nevertheless."""

    where: str
    what: str


Finding = Violation | Note
