"""Both renderings of one document as they were.

`BENCHMARKS_GOLDEN=write pytest tests/benchmarks/report/test_golden.py` writes the golden files anew: look at
what `git diff` says of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.report import contents, illustrations, markdown, page
from benchmarks.report.document import Cell, Headline, Section, Table
from benchmarks.report.verdicts import Findings
from tests.benchmarks.report.documents import document_of

pytestmark = pytest.mark.once

FINDINGS = Findings(
    headlines=(
        Headline("Accuracy", ("finetune: equivalent within 2 points.", "scratch: no difference shown.")),
        Headline("Speed", ("PyTorch 128.0 images/s, 2.0 x Keras [1.9, 2.1].",)),
    ),
    sections=(
        Section(
            "Accuracy",
            ("In points:", Table(name="Differences", headings=("pair", "points"), right=frozenset({1}),
                                 rows=((Cell("PyTorch, Keras"), Cell("~1.5 [1, 2]", 1.5)),))),
        ),
    ),
)  # fmt: skip
"""Verdicts have tests of their own."""


def same(text: str, name: str) -> None:
    """Held against the golden file, or written over it."""
    golden = Path(__file__).with_name(name)
    if os.environ.get("BENCHMARKS_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.fixture
def document(a_run, monkeypatch):
    monkeypatch.setattr(contents.verdicts, "findings", lambda *_: FINDINGS)
    return document_of(*a_run)


def address(identity: str) -> str:
    return f"records/{identity}.json"


def test_the_markdown_is_as_it_was(document):
    same(markdown.render(document, link=address), "golden_report.md")


def test_the_page_is_as_it_was(document, a_run):
    records, measured = a_run
    plots = illustrations.draw(records, measured)
    text = page.render(document, records=records, plots=plots, link=address).decode()
    for kind, inside in (("svg", "..."), ("style", "..."), ("script", "...")):
        text, found = re.subn(rf"(<{kind}\b[^>]*>).*?(</{kind}>)", rf"\1{inside}\2", text, flags=re.DOTALL)
        assert found
    text = re.sub(r"sha256-[A-Za-z0-9+/=]+", "sha256-...", text)
    same(re.sub(r'<svg [^>]*(aria-labelledby="[^"]*")[^>]*>', r"<svg \1>", text), "golden_report.html")
