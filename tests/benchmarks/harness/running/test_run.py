"""A run's folder: what belongs to its plan, what is kept, and who may write to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import backends
from backends.base import UsageError
from benchmarks.harness import plan, record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.running.run import Identity, Plan, Planned, Run, answers, key_of

pytestmark = pytest.mark.once

IDENTITY = Identity(data="d" * 64, profile="smoke", weights="default", code="c" * 64)
"""Of the records that `ok_record` makes."""
KEY = "k" * 64


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "run"))


@pytest.fixture
def kept(run: Run, ok_record: record.Record) -> record.Record:
    """A finished cell that belongs to the plan."""
    made = msgspec.structs.replace(ok_record, key=KEY)
    run.take_up(IDENTITY, [Planned(made.cell.id, KEY)], resume=False, allow_dirty=False)
    record.write(run.records, made)
    return made


def take_up(run: Run, *cells: Planned, identity: Identity = IDENTITY, resume=True, allow_dirty=False):
    return run.take_up(identity, cells, resume=resume, allow_dirty=allow_dirty)


def changed(**fields: str) -> Identity:
    return msgspec.structs.replace(IDENTITY, **fields)


class TestPlan:
    def test_it_is_written_before_anything_runs(self, run):
        assert take_up(run, Planned("a", "1"), Planned("b", "2"), resume=False) == {}
        written = msgspec.json.decode((run.folder / "plan.json").read_bytes(), type=Plan)
        planned = (Planned("a", "1"), Planned("b", "2"))
        assert written == Plan(identity=IDENTITY, cells=planned, asked=((),))
        assert run.records.is_dir()

    def test_it_keeps_every_command_that_planned_cells(self, run):
        for words in (("--seeds", "3"), ("--track", "native"), ("--seeds", "3")):
            run.take_up(IDENTITY, [Planned("a", "1")], resume=True, allow_dirty=False, asked=words)
        written = msgspec.json.decode((run.folder / "plan.json").read_bytes(), type=Plan)
        assert written.asked == (("--seeds", "3"), ("--track", "native"))

    def test_more_cells_are_added_and_a_changed_one_is_replaced(self, run):
        take_up(run, Planned("a", "1"), Planned("b", "2"))
        take_up(run, Planned("b", "3"), Planned("c", "4"))
        written = msgspec.json.decode((run.folder / "plan.json").read_bytes(), type=Plan)
        assert written.cells == (Planned("a", "1"), Planned("b", "3"), Planned("c", "4"))

    def test_what_has_its_record_is_kept(self, run, kept):
        found = take_up(run, Planned(kept.cell.id, KEY), Planned("other", "2"))
        assert list(found) == [kept.cell.id] and found[kept.cell.id].seconds == kept.seconds

    def test_without_resume_what_is_there_is_refused_with_the_ways_out(self, run, kept):
        with pytest.raises(UsageError, match=r"already has 1 of these 2 cells .*--resume .*another --run"):
            take_up(run, Planned(kept.cell.id, KEY), Planned("other", "2"), resume=False)
        take_up(run, Planned("other", "2"), resume=False)  # new cells may join

    @pytest.mark.parametrize("what", ["data", "profile", "weights", "code"])
    def test_what_was_made_otherwise_is_not_mixed(self, run, kept, what):
        identity = changed(**{what: "another"})
        with pytest.raises(UsageError, match=f"made with other {what}: .* choose another --run"):
            take_up(run, Planned(kept.cell.id, KEY), identity=identity)
        assert record.read_all(run.records) == [kept]

    def test_other_code_may_be_mixed_by_who_says_so(self, run, kept):
        dirty = changed(code="e" * 64)
        with pytest.raises(UsageError, match="--allow-dirty"):
            take_up(run, Planned(kept.cell.id, KEY), identity=dirty)
        assert take_up(run, Planned(kept.cell.id, KEY), identity=dirty, allow_dirty=True)
        with pytest.raises(UsageError, match="made with other data"):
            take_up(run, Planned("b", "2"), identity=changed(data="x"), allow_dirty=True)

    def test_records_of_both_codes_are_each_kept_by_who_says_so_only(self, run, kept):
        take_up(run, Planned("b", "2"), identity=changed(code="e" * 64), allow_dirty=True)
        cell = Planned(kept.cell.id, KEY)
        assert take_up(run, cell, identity=changed(code="e" * 64)) == {}  # made by the code before
        assert take_up(run, cell, identity=changed(code="e" * 64), allow_dirty=True)

    def test_scratch_paper_is_wiped_by_another_kind_and_not_by_its_own(self, run, kept, monkeypatch):
        monkeypatch.setattr("benchmarks.harness.running.run.SCRATCH_RUN", run.name)
        take_up(run, Planned(kept.cell.id, KEY), resume=False)
        assert (run.records / f"{kept.cell.id}.json").exists()
        with pytest.raises(UsageError, match="made with other code"):
            take_up(run, Planned("b", "2"), identity=changed(code="x"))  # --resume keeps, or says why not
        take_up(run, Planned("b", "2"), identity=changed(code="x"), resume=False)
        assert list(run.records.iterdir()) == []

    def test_a_record_that_nobody_can_read_is_made_again(self, run, kept):
        path = run.records / f"{kept.cell.id}.json"
        path.write_bytes(path.read_bytes()[:-20])
        assert take_up(run, Planned(kept.cell.id, KEY)) == {}


class TestAnswers:
    def test_only_a_finished_cell_of_this_key_by_this_code(self, run, kept, failed_record):
        head = take_up(run, Planned(kept.cell.id, KEY))[kept.cell.id]
        assert answers(head, KEY, "c" * 64) and answers(head, KEY, None)
        assert not answers(head, "another", "c" * 64)
        assert not answers(head, KEY, "another")
        assert not answers(msgspec.structs.replace(head, status="failed"), KEY, None)
        assert not answers(msgspec.structs.replace(head, environment=None), KEY, "c" * 64)


def test_a_key_is_of_all_that_a_cell_is_made_from():
    options = plan.parse({"backend": ["pytorch"], "recipe": ["matched-resnet18-frozen"]})
    (cell,) = plan.plan(options, tuple(backends.known().values()))
    recipe = msgspec.structs.replace(cell.recipe, epochs=cell.recipe.epochs + 1)
    others = [
        msgspec.structs.replace(cell, **change)
        for change in (
            {"recipe": recipe}, {"backend": "keras"}, {"seed": 1}, {"variant": "reproducible"},
            {"timed": False}, {"profile": msgspec.structs.replace(cell.profile, image_size=64)},
        )
    ]  # fmt: skip
    keys = [key_of(each, data="d", weights="w") for each in (cell, *others)]
    keys += [key_of(cell, data="x", weights="w"), key_of(cell, data="d", weights="x")]
    assert len(set(keys)) == len(keys)
    assert key_of(cell, data="d", weights="w") == keys[0]


class TestLock:
    """Processes, since a lock is between them."""

    def held(self, run: Run, cell: str | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable, "-c",
                f"from benchmarks.harness.running.run import Run\n"
                f"with Run({run.name!r}).held(cell={cell!r}): print('mine', flush=True); input()",
            ],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        return process

    def test_a_run_is_one_process_s_until_it_dies(self, run):
        with self.held(run) as other:
            for cell in (None, "a"):
                with pytest.raises(UsageError, match=rf"process {other.pid} on .* is at work on it"):
                    run.held(cell=cell).__enter__()
            other.kill()
        with run.held():
            pass

    def test_cells_are_run_beside_each_other_and_each_once(self, run):
        with run.held():
            pass
        with self.held(run, "a") as other:
            with run.held(cell="b"):
                pass
            with pytest.raises(UsageError, match=rf"cell a: process {other.pid}"):
                run.held(cell="a").__enter__()
            with pytest.raises(UsageError, match="another process is at work on it"):
                run.held().__enter__()
            other.kill()
