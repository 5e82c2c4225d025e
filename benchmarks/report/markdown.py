"""A document as GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from benchmarks.report.document import Block, Document, Headline, Plot, Section, Table, plain
from benchmarks.report.markdown_table import escape, table

Link = Callable[[str], str | None]
"""From a record's id to what its figures are linked to."""


def render(document: Document, *, link: Link | None = None) -> str:
    """The whole of it."""
    parts = [
        f"# {escape(document.title)}",
        document.words,
        headlines(document.headlines),
        blocks(document.blocks, link=link),
        *(part for section in document.sections for part in _section(section, 2, link)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def blocks(content: Iterable[Block], *, link: Link | None = None) -> str:
    """Text, tables and plots, one after the other."""
    return "\n\n".join(filter(None, (_block(block, link) for block in content)))


def headlines(verdicts: Iterable[Headline]) -> str:
    """A list of topics, what is said of each beneath it."""
    lines = []
    for verdict in verdicts:
        topic, told = f"- **{escape(verdict.topic)}**", [_coded(sentence) for sentence in verdict.sentences]
        lines += [f"{topic} {told[0]}"] if len(told) == 1 else [topic, *(f"  - {one}" for one in told)]
    return "\n".join(lines)


# --- How ------------------------------------------------------------------------------------------


def _section(section: Section, level: int, link: Link | None) -> Iterator[str]:
    if not section:
        return
    yield f"{'#' * level} {escape(section.title)}"
    yield blocks(section.blocks, link=link)
    for inner in section.sections:
        yield from _section(inner, level + 1, link)


def _coded(text: str) -> str:
    """A sentence, with what stands between backticks as code."""
    parts = plain(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"`{part}`" if odd % 2 and part else _within(part) for odd, part in enumerate(parts))


def _within(part: str) -> str:
    """Escaped, with the spaces that part it from its neighbours."""
    return (
        part[: len(part) - len(part.lstrip())]
        + escape(part)
        + (part[len(part.rstrip()) :] if part.strip() else "")
    )


def _block(block: Block, link: Link | None) -> str:
    if isinstance(block, Table):
        return table(block, link=link)
    if isinstance(block, Plot):
        return f"![{escape(block.text)}]({block.path})"
    return block
