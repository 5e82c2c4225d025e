"""`compare`, as a user types it: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("scipy", reason="the report's libraries are in the report's environment only")

from backends.base import UsageError
from benchmarks.commands import compare as command
from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.record import Record
from tests.benchmarks.report.two_runs import cell, environment, failed, right, run_of, without

pytestmark = pytest.mark.once

GOLDEN = Path(__file__).parent / "report"
WIDTH = 100
"""Columns of the terminal."""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are put, under names as short as a user's."""
    monkeypatch.setattr("benchmarks.harness.running.run.RUNS", tmp_path)
    monkeypatch.setattr(command, "out", Console(width=WIDTH))
    return tmp_path


def put(folder: Path, records: list[Record]) -> str:
    for one in records:
        record.write(folder / "records", one)
    return folder.name


def keras(records: list[Record]) -> list[Record]:
    return [cell(one, id=f"keras-native-vgg16-finetune-s{one.cell.seed}", backend="keras") for one in records]


@pytest.fixture
def regressed(folders: Path, ok_record: Record) -> tuple[str, str]:
    """Lost images, slower training, more memory than there was, a cell that fails, and a newer framework; in
    another backend nothing."""
    before = run_of(ok_record)
    after = [right(one, without(20)) for one in run_of(ok_record, slower=1.25, memory=0.5)]
    after = [environment(one, packages={"torch": "2.9.1"}) for one in after]
    other = keras(run_of(ok_record))
    return (
        put(folders / "before", [*before, *other]),
        put(folders / "after", [*after, *other[:2], failed(other[2])]),
    )


def answer(*words: str) -> tuple[int, str]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command.compare)
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, UsageError):
        raise result.exception
    return result.exit_code, result.output


def test_what_a_terminal_shows(regressed):
    code, printed = answer(*regressed)
    assert code == 1
    assert [line.rstrip() for line in printed.splitlines()] == (
        GOLDEN / "golden_compare.txt"
    ).read_text().splitlines()
    *shown, sentence = printed.splitlines()
    assert max(map(len, shown)) <= WIDTH
    assert sentence.startswith("3 regressions in 10 comparisons: ")  # one line, for who reads the last one


def test_what_a_comment_shows(regressed):
    code, printed = answer(*regressed, "--markdown")
    assert (code, printed) == (1, (GOLDEN / "golden_compare.md").read_text())


def test_notes_and_changes_stand_under_their_own_headings(folders, ok_record):
    before = put(folders / "before", run_of(ok_record))
    after = put(folders / "after", [environment(one, python="3.12.1") for one in run_of(ok_record, [0, 1])])
    for words in ((), ("--markdown",)):
        _, printed = answer(before, after, *words)
        _, below = printed.split("\nNotes\n")
        notes, changes = below.split("\nWhat else is not the same in A and B\n")
        assert "Only in A" in notes and "python: 3.11.7" not in notes
        assert "python: 3.11.7" in changes and "Only in A" not in changes


def test_nothing_in_a_record_becomes_markup(folders, ok_record):
    evil = environment(ok_record, python="<script>alert(1)</script> [bold]x[/bold] | y")
    names = put(folders / "before", [ok_record]), put(folders / "after", [evil])
    _, shown = answer(*names, "--markdown")
    assert "&lt;script&gt;" in shown and "<script>" not in shown
    _, shown = answer(*names)
    assert "[bold]x[/bold]" in shown


def test_a_machine_gets_every_figure(regressed):
    code, printed = answer(*regressed, "--json")
    found = json.loads(printed)
    assert (code, found["exit_code"]) == (1, 1)
    assert found["names"] == ["before", "after"]
    assert found["failed"] == [
        {"cell": "keras-native-vgg16-finetune-s2", "reason": "NumericalError: the loss is nan"}
    ]
    rows = {(table["metric"]["name"], row["cell"]): row for table in found["tables"] for row in table["rows"]}
    assert rows["training", "pytorch finetune"]["effect"]["estimate"] == pytest.approx(0.8)
    assert rows["training", "pytorch finetune"]["verdict"] == "worse"
    assert rows["training", "keras finetune"]["seeds"] == [3, 2]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ((), "3 regressions"),
        (("--accuracy-threshold", "0.2"), "2 regressions"),
        (("--accuracy-threshold", "0.2", "--speed-threshold", "0.3"), "1 regression"),  # the cell that fails
    ],
)
def test_each_regression_is_enough_for_exit_code_1(regressed, words, count):
    code, printed = answer(*regressed, *words)
    assert code == 1
    assert printed.splitlines()[-1].startswith(f"{count} in 10 comparisons: ")


def test_none_is_exit_code_0_and_thresholds_decide(folders, ok_record):
    before = put(folders / "before", run_of(ok_record))
    after = put(folders / "after", run_of(ok_record, slower=1.25))
    assert answer(before, before)[0] == 0
    assert answer(before, after)[0] == 1
    assert answer(before, after, "--speed-threshold", "0.3")[0] == 0
    assert answer(after, before)[0] == 0


def test_a_missing_cell_is_exit_code_1_unless_allowed(folders, ok_record):
    before = put(folders / "before", run_of(ok_record))
    after = put(folders / "after", run_of(ok_record)[:2])
    code, printed = answer(before, after)
    assert code == 1
    assert "pytorch-native-resnet18-finetune-s2 is missing" in printed.splitlines()[-1]
    assert answer(before, after, "--allow-missing")[0] == 0


def test_another_machine_is_no_regression_until_asked(folders, ok_record):
    before = put(folders / "before", run_of(ok_record))
    after = put(folders / "after", [environment(one, cores=8) for one in run_of(ok_record, slower=2.0)])
    code, printed = answer(before, after)
    assert code == 0 and "Speeds and memory were not compared: another machine (cores: 2 -> 8)" in printed
    code, printed = answer(before, after, "--across-machines")
    assert code == 1 and "may be the machine's" in printed


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("before", "nothing"), "run nothing: .* has no records"),
        (("before", "before", "--json", "--markdown"), "--json or --markdown, not both"),
        (("before", "before", "--speed-threshold", "5"), "--speed-threshold 5: a share from 0 to 1"),
        (("before", "before", "--accuracy-threshold", "nan"), "--accuracy-threshold nan"),
        (("before", "elsewhere"), "their data are not the same"),
    ],
)
def test_what_cannot_be_compared_is_one_line(folders, ok_record, words, complaint):
    put(folders / "before", [ok_record])
    data = msgspec.structs.replace(ok_record.cell.data, sha256="1" * 64)
    put(folders / "elsewhere", [cell(ok_record, data=data)])
    with pytest.raises(UsageError, match=complaint) as caught:
        answer(*words)
    assert "\n" not in str(caught.value)


def test_the_suite_has_the_command(tmp_path, ok_record):
    before = tmp_path / "before"
    put(before, run_of(ok_record))
    put(tmp_path / "after", run_of(ok_record, slower=1.25))

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benchmarks", "compare", *words],
            cwd=PROJECT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    found = typed(str(before), str(tmp_path / "after"))
    assert found.returncode == 1, found.stderr
    assert found.stdout.splitlines()[-1].startswith(
        "1 regression in 5 comparisons: pytorch finetune training"
    )
    refused = typed(str(before), str(tmp_path / "none"))
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1 and "has no records" in refused.stderr
