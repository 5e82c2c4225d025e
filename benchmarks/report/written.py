"""A report on disk: `report.md`, `report.html` and `plots/*.svg`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.harness.cache import write_whole
from benchmarks.report import illustrations, markdown, page
from benchmarks.report.document import Document
from benchmarks.report.sources import Sources

MARKDOWN, PAGE = "report.md", "report.html"


def write(folder: Path, document: Document, sources: Sources) -> tuple[Path, Path]:
    """Write both renderings and the plots, each file whole or not at all.

    Returns:
        The Markdown and the page.
    """
    for path, content in files(folder, document, sources).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / path, content)
    return folder / MARKDOWN, folder / PAGE


def files(folder: Path, document: Document, sources: Sources) -> dict[str, bytes]:
    """Both renderings and the plots, by their paths within the folder; the same records give the same
    bytes."""
    link = partial(sources.link, folder=folder)
    plots = illustrations.draw(sources.records, sources.curves)
    return {
        **plots,
        MARKDOWN: markdown.render(document, link=link).encode(),
        PAGE: page.render(document, records=sources.records, plots=plots, link=link),
    }
