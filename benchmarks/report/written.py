"""A report on disk: `report.md`, `report.html` and `plots/*.svg`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.harness.cache import write_whole
from benchmarks.report import illustrations, markdown, page
from benchmarks.report.document import Document
from benchmarks.report.sources import Sources


def write(folder: Path, document: Document, sources: Sources) -> tuple[Path, Path]:
    """Write both renderings and the plots, each file whole or not at all; the same records give the same
    bytes.

    Returns:
        The Markdown and the page.
    """
    link = partial(sources.link, folder=folder)
    plots = illustrations.draw(sources.records, sources.curves)
    files = {
        **plots,
        "report.md": markdown.render(document, link=link).encode(),
        "report.html": page.render(document, records=sources.records, plots=plots, link=link),
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / path, content)
    return folder / "report.md", folder / "report.html"
