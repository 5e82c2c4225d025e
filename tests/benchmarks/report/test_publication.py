"""Published results: a valid run of three backends, moved to where results lie."""

from __future__ import annotations

import shutil

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.harness import record
from benchmarks.harness.record import RecordError, Turn
from benchmarks.harness.running.run import Plan
from benchmarks.report import publication
from tests.benchmarks.report.check.drafts import Draft

pytestmark = pytest.mark.once


@pytest.fixture
def root(tmp_path, measured_record):
    """`results/` with one run of one machine, and what is no publication beside it."""
    run = tmp_path / "results" / "machine-2026-01-01" / "first"
    Draft(measured_record).write(run)
    plan = msgspec.json.decode((run / "plan.json").read_bytes(), type=Plan)
    data = ("--data", "my photographs.zip")
    asked = msgspec.structs.replace(plan, asked=(data, ("--seeds", "2", *data), (*data, "--arch", "vgg16")))
    (run / "plan.json").write_bytes(msgspec.json.encode(asked))
    loose = tmp_path / "results" / "older" / "without-a-plan"
    shutil.copytree(run / "records", loose / "records")
    return tmp_path / "results"


def results(*words: object):
    return CliRunner().invoke(app, ["results", *map(str, words)])


def test_everything_is_made_from_the_records_and_then_fresh(root):
    assert results(root, "--check").exit_code == 1
    assert results(root).exit_code == 0
    assert results(root, "--check").exit_code == 0
    run = root / "machine-2026-01-01" / "first"
    made = {"report.md", "report.html", "plots"}
    assert made | {"plan.json", "images.json", "records"} <= {path.name for path in run.iterdir()}
    assert not (root / "older" / "report.md").exists()


@pytest.mark.parametrize(
    "name", ["README.md", "machine-2026-01-01/first/report.md", "machine-2026-01-01/first/report.html"]
)
def test_what_somebody_typed_is_found_and_made_anew(root, name):
    results(root)
    before = (root / name).read_bytes()
    (root / name).write_bytes(before.replace(b"0.7", b"0.9"))
    found = results(root, "--check")
    assert found.exit_code == 1 and name in "".join(found.stderr.split())
    results(root)
    assert (root / name).read_bytes() == before


def test_a_plot_that_no_report_shows_goes(root):
    results(root)
    left = root / "machine-2026-01-01" / "first" / "plots" / "of-before.svg"
    left.write_text("<svg/>")
    assert results(root, "--check").exit_code == 1
    results(root)
    assert not left.exists()


def test_the_range_tests_of_a_run_stay(root):
    plot = root / "machine-2026-01-01" / "first" / "range-tests" / "pytorch-003-vgg16-s0.svg"
    plot.parent.mkdir()
    plot.write_text("<svg/>")
    results(root)
    assert plot.exists() and results(root, "--check").exit_code == 0


def test_one_s_own_runs_are_not_published(root, monkeypatch):
    """Wherever one stands, and however one calls the folder."""
    own = root / "runs" / "local"
    shutil.copytree(root / "machine-2026-01-01" / "first", own)
    monkeypatch.setattr(publication, "RUNS", root / "runs")
    monkeypatch.chdir(root.parent)
    assert results("results").exit_code == 0
    assert "local" not in (root / "README.md").read_text() and not (own / "report.md").exists()


def test_the_latest_comes_first_on_whatever_machine(root):
    shutil.copytree(root / "machine-2026-01-01", root / "a-slow-one-2026-02-01")
    assert [folder.name for folder in publication.folders(root)] == [
        "a-slow-one-2026-02-01", "machine-2026-01-01",
    ]  # fmt: skip


def test_the_page_says_what_was_run_and_how(root):
    results(root)
    page = (root / "README.md").read_text()
    assert "## machine-2026-01-01" in page and "run first was made by the rules" in page
    assert [line for line in page.splitlines() if line.startswith("python -m benchmarks run")] == [
        "python -m benchmarks run --seeds 2 --data 'my photographs.zip' --run first",
        "python -m benchmarks run --data 'my photographs.zip' --arch vgg16 --run first",
    ]
    assert "| first | matched, native |" in page
    assert page.index("**Accuracy**") < page.index("Others' figures and ours") < page.index("What was run")


def test_the_page_begins_with_the_accuracies_of_all_runs(root, measured_record):
    Draft(measured_record).write(root / "machine-2026-01-01" / "another")
    results(root)
    page = (root / "README.md").read_text()
    first = page[: page.index("## machine")]
    rows = [line.split("|")[1:-1] for line in first.splitlines() if line.startswith("| ")]
    heading, *told = [[cell.strip() for cell in row] for row in rows if "---" not in row[0]]
    assert heading[:4] == ["track", "network", "protocol", "seeds"] and heading[-1] == "run"
    for name in ("first", "another"):
        place = f"machine-2026-01-01/{name}"
        mine = [row for row in told if row[-1] == f"[{place}]({place}/report.md)"]
        assert {row[0] for row in mine} == {"matched", "native"}
        compared = {row[-2] for row in mine if row[0] == "matched"}
        assert all("between the 3 frameworks" in verdict for verdict in compared)
    assert page.count("**Not run**") == page.count("**Parity**") == 1


def test_the_page_says_on_which_machine_and_on_whose_photographs(root, measured_record):
    results(root)
    page = (root / "README.md").read_text()
    found = measured_record.environment
    assert f"| {found.cpu}, {found.cores} cores |" in page
    assert "cannot be had from here" not in page  # what the program draws, everybody has
    for path in (root / "machine-2026-01-01" / "first" / "records").glob("*.json"):
        made = record.read(path)
        data = msgspec.structs.replace(made.cell.data, name="mine.zip")
        path.write_bytes(
            msgspec.json.encode(
                msgspec.structs.replace(made, cell=msgspec.structs.replace(made.cell, data=data))
            )
        )
    results(root)
    assert "mine.zip cannot be had from here: `--data PATH`" in (root / "README.md").read_text()


def test_nothing_published(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        found = results(folder)
        assert found.exit_code != 0 and f"results {folder}: no published run" in str(found.exception)


def test_the_run_that_was_made_first_comes_first(root, measured_record):
    machine = root / "machine-2026-01-01"
    Draft(measured_record).write(machine / "another")
    for name, sitting in (("first", "2026-01-01"), ("another", "2026-01-02")):
        for path in (machine / name / "records").glob("*.json"):
            turn = Turn(sitting=sitting, place=0)
            path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record.read(path), turn=turn)))
    results(root)
    page = (root / "README.md").read_text()
    assert page.index("### Run first") < page.index("### Run another")


def test_a_damaged_plan_is_named(root):
    (root / "machine-2026-01-01" / "first" / "plan.json").write_text("{")
    with pytest.raises(RecordError, match=r"plan .*plan\.json"):
        publication.publications(root)
