"""`python -m benchmarks check`, as a user and as CI read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from backends.base import UsageError
from benchmarks.__main__ import app
from benchmarks.report.check.rules import RULES
from tests.benchmarks.report.check.drafts import MATCHED, Draft

pytestmark = pytest.mark.once

KERAS = f"keras-{MATCHED}-s1"


@pytest.fixture
def valid(draft: Draft, tmp_path: Path) -> Path:
    return draft.write(tmp_path / "valid")


@pytest.fixture
def spoilt(measured_record, tmp_path: Path) -> Path:
    """Two violations, a failed cell, and a note of one shared image."""
    draft = Draft(measured_record)
    draft.change(KERAS, {"gate": None, "environment.git_dirty": True})
    draft.fail(KERAS.replace("keras", "gluon"))
    draft.share(1)
    return draft.write(tmp_path / "spoilt")


@pytest.fixture
def draft(measured_record) -> Draft:
    return Draft(measured_record)


def check(*words: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, words)])


class TestAnswer:
    def test_a_valid_run_is_one_line_and_exit_code_0(self, valid):
        answer = check(valid)
        assert answer.exit_code == 0
        assert answer.output == f"{valid}: valid ({len(RULES)} rules, 18 cells, 0 of them failed, 0 notes)\n"

    def test_each_violation_is_a_line_with_rule_cell_and_what_to_do(self, spoilt):
        answer = check(spoilt)
        assert answer.exit_code == 1
        lines = answer.output.splitlines()
        assert len(lines) == 5
        assert lines[0].startswith(f"gate         {KERAS}: no gate: ") and lines[0].endswith("and --resume")
        assert lines[1].startswith(f"environment  {KERAS}: the code was not that of commit 0123456789ab")
        assert lines[2].startswith("cells        gluon-") and "out of memory (a note)" in lines[2]
        assert lines[3].startswith("leak         sketch: 1 of 200 test images")
        assert lines[4] == (
            f"{spoilt}: NOT VALID, 2 violations ({len(RULES)} rules, 18 cells, 1 of them failed, 2 notes)"
        )

    def test_several_runs_are_valid_if_each_is(self, valid, spoilt):
        assert check(valid, valid).exit_code == 0
        answer = check(valid, spoilt)
        assert answer.exit_code == 1
        assert f"{valid}: valid" in answer.output and f"{spoilt}: NOT VALID" in answer.output

    def test_rules_may_be_chosen(self, spoilt):
        answer = check(spoilt, "--rule", "seeds", "--rule", "gate")
        assert answer.exit_code == 1 and len(answer.output.splitlines()) == 2
        assert check(spoilt, "--rule", "seeds").exit_code == 0

    def test_for_a_machine(self, valid, spoilt):
        first, second = json.loads(check(valid, spoilt, "--json").output)
        assert first["valid"] and first["violations"] == [] and first["rules"][0] == "schema"
        assert not second["valid"] and (second["cells"], second["failed"]) == (18, 1)
        assert [(line["rule"], line["where"]) for line in second["violations"]] == [
            ("gate", KERAS), ("environment", KERAS),
        ]  # fmt: skip
        assert all(line["what"] and line["remedy"] for line in second["violations"])
        assert [(line["rule"], line["remedy"]) for line in second["notes"]] == [
            ("cells", None),
            ("leak", None),
        ]

    def test_what_a_record_says_moves_no_cursor_and_colours_nothing(self, draft, tmp_path):
        message = "\x1b[31m[bold]red\r\nINVALID"
        draft.fail(KERAS)
        failed = draft.records[KERAS]
        draft.change(KERAS, {"error.message": message})
        assert failed.error is not None
        answer = check(draft.write(tmp_path / "run"))
        assert answer.exit_code == 0 and len(answer.output.splitlines()) == 2
        assert r"\x1b[31m[bold]red\r\nINVALID (a note)" in answer.output


class TestNothingToJudge:
    @pytest.mark.parametrize(
        ("run", "said"),
        [
            ("no-such-run", r"no-such-run: no folder .*results.runs.no-such-run; give the name of a run"),
            ("/nowhere/at/all", "no folder /nowhere/at/all"),
        ],
    )
    def test_a_run_that_is_not_there(self, run, said):
        with pytest.raises(UsageError, match=said):
            CliRunner().invoke(app, ["check", run], catch_exceptions=False)

    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(UsageError, match="neither a plan nor records"):
            CliRunner().invoke(app, ["check", str(tmp_path)], catch_exceptions=False)

    def test_a_rule_that_is_none(self, valid):
        with pytest.raises(UsageError, match="--rule speed: no such rule"):
            CliRunner().invoke(app, ["check", str(valid), "--rule", "speed"], catch_exceptions=False)

    def test_no_run_is_asked_for(self):
        assert check().exit_code == 2
