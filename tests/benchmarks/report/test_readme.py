from __future__ import annotations

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.report.readme import BLOCK, regenerate


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


def test_verdicts_and_accuracy_over_seeds(tmp_path, matched_record):
    record.write(tmp_path / "r", matched_record)
    made = regenerate("<!-- verdicts: r -->\n<!-- end -->\n<!-- accuracy: r -->\n<!-- end -->\n", tmp_path)
    assert "in float64 gradients agree to 2e-13" in made
    assert "0.750 | [0.686, 0.805]" in made


def test_a_block_without_records_is_said(tmp_path):
    with pytest.raises(record.RecordError, match="r: no records"):
        regenerate("<!-- table: r -->\n<!-- end -->\n", tmp_path)


def test_the_project_s_own_tables_are_those_of_their_committed_records():
    text = (PROJECT / "README.md").read_text()
    assert BLOCK.search(text)
    assert regenerate(text, PROJECT) == text, "run: python -m benchmarks readme"
