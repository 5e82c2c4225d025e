from __future__ import annotations

import re

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.report.readme import BLOCK, pages, regenerate


def test_a_block_is_made_from_its_records_and_nothing_else_changes(tmp_path, ok_record):
    record.write(tmp_path / "r", ok_record)
    text = "before\n<!-- table: r -->\nstale\n<!-- end -->\nafter\n"
    made = regenerate(text, tmp_path)
    assert made.startswith("before\n<!-- table: r -->\n") and made.endswith("<!-- end -->\nafter\n")
    assert "stale" not in made and "0.750 [0.686, 0.805]" in made
    assert regenerate(made, tmp_path) == made


def test_a_parity_block_is_made_from_the_gates(tmp_path, matched_record):
    record.write(tmp_path / "r", matched_record)
    made = regenerate("<!-- parity: r -->\n<!-- end -->\n", tmp_path)
    assert made.startswith("<!-- parity: r -->\n") and made.endswith("\n<!-- end -->\n")
    assert "| passed |" in made and "2e-13" in made


def test_a_pattern_names_the_records_of_several_runs(tmp_path, matched_record, ok_record):
    record.write(tmp_path / "first" / "records", matched_record)
    record.write(tmp_path / "second" / "records", ok_record)
    made = regenerate("<!-- table: */records -->\n<!-- end -->\n", tmp_path)
    alone = regenerate("<!-- table: first/records -->\n<!-- end -->\n", tmp_path)
    assert len(made.splitlines()) > len(alone.splitlines())


def test_verdicts_and_accuracy_over_seeds(tmp_path, matched_record):
    record.write(tmp_path / "r", matched_record)
    made = regenerate("<!-- verdicts: r -->\n<!-- end -->\n<!-- accuracy: r -->\n<!-- end -->\n", tmp_path)
    assert "in float64 gradients agree to 2e-13" in made
    assert "0.750 | [0.686, 0.805]" in made


def test_a_block_without_records_is_said(tmp_path):
    with pytest.raises(record.RecordError, match="r: no records"):
        regenerate("<!-- table: r -->\n<!-- end -->\n", tmp_path)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_project_s_own_tables_are_those_of_their_committed_records(page):
    text = page.read_text()
    assert regenerate(text, PROJECT) == text, "run: python -m benchmarks readme"


def test_the_first_screen_is_made_from_records():
    text = (PROJECT / "README.md").read_text()
    first = BLOCK.search(text)
    assert first is not None and first["kind"].endswith("verdicts") and first.start() < 1000


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())
    for target in targets:
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"(?m)^#+ (.+)$", file.read_text())
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
