"""What a report is made of, whatever it is rendered as: sections of text, tables and plots."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

import msgspec

Item = TypeVar("Item")


class Cell(msgspec.Struct, frozen=True):
    """Of a table."""

    text: str
    """Plain: a renderer disarms what would be its own marks."""
    order: float | None = None
    """What the cell is sorted by; None: its text."""
    record: str | None = None
    """The id of the cell of the run whose record the figure is from; None where it is from several, or
    none."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under headings."""

    name: str
    """What it shows, in words: told to who cannot see it."""
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """Each as long as `headings`."""
    right: frozenset[int] = frozenset()
    """Columns of numbers, which stand to the right."""


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of the run's folder."""

    path: str
    """Of an SVG file, relative to the run's folder."""
    text: str
    """What it shows, in words: told to who cannot see it."""


Block: TypeAlias = str | Table | Plot
"""A string is Markdown: paragraphs and lists, in which what comes from a record has been escaped."""


class Section(msgspec.Struct, frozen=True):
    """A heading and what stands under it; one that holds nothing is not shown."""

    title: str
    """Plain text."""
    blocks: tuple[Block, ...] = ()
    sections: tuple[Section, ...] = ()

    def __bool__(self) -> bool:
        return any(self.blocks) or any(self.sections)


class Headline(msgspec.Struct, frozen=True):
    """A verdict in words, for the first screen."""

    topic: str
    """One word: `Accuracy`, `Speed`."""
    sentences: tuple[str, ...]
    """Plain text; what stands between backticks is to be typed."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report."""

    title: str
    """Plain text."""
    words: str = ""
    """Markdown: what the words mean that follow."""
    headlines: tuple[Headline, ...] = ()
    """What it comes to, in words."""
    blocks: tuple[Block, ...] = ()
    """What all that follows has in common."""
    sections: tuple[Section, ...] = ()


class Column(msgspec.Struct, Generic[Item], frozen=True):
    """A column of a table of items."""

    heading: str
    text: Callable[[Item], str]
    number: bool = False
    """Numbers stand to the right, and are sorted by the first number of their text where `order` says
    nothing else."""
    order: Callable[[Item], float | None] | None = None
    record: Callable[[Item], str | None] | None = None
    """See `Cell`."""

    def cell(self, item: Item) -> Cell:
        """Of one row."""
        text = self.text(item)
        order = self.order or (lambda _: first_number(text) if self.number else None)
        record = self.record(item) if self.record else None
        return Cell(text=text, order=order(item), record=record)


def table_of(name: str, items: Iterable[Item], columns: Sequence[Column[Item]]) -> Table:
    """One row per item."""
    return Table(
        name=name,
        headings=tuple(column.heading for column in columns),
        rows=tuple(tuple(column.cell(item) for column in columns) for item in items),
        right=frozenset(place for place, column in enumerate(columns) if column.number),
    )


def filled(items: Sequence[Item], columns: Iterable[Column[Item]]) -> list[Column[Item]]:
    """The columns that say something of at least one item."""
    return [column for column in columns if any(column.text(item) for item in items)]


def first_number(text: str) -> float | None:
    """Of `~256.0 noisy` it is 256; None where there is none."""
    found = NUMBER.search(text)
    return float(found[0]) if found else None


def plain(text: str) -> str:
    """Text in one line. Letters that cannot be seen, such as those that turn the direction of writing, are
    shown as a replacement: a file's name that has one is no name that one may trust."""
    flat = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() or letter in JOINERS else "\ufffd" for letter in flat)


NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
JOINERS = "\u200c\u200d"
"""Between letters of several scripts, and in emoji; they do no harm."""
