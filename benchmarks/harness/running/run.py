"""A run on disk: what was planned, which records answer it, and who may write to it.

`plan.json` is written before the first cell runs. A record belongs to the plan if it was made from what the
plan says: the same recipe, conditions, data and weights (its key), by the same code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Literal

import msgspec

from backends.base import UsageError, one_line
from benchmarks.harness.cache import held, write_whole
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.plan import Cell

RUNS = PROJECT / "results" / "runs"
SCRATCH_RUN = "local"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What all records of a run share."""

    data: str
    """SHA-256 of the data set."""
    profile: str
    weights: str
    """`--weights`, or `default`; of a file its name."""
    code: str
    """SHA-256 of the code and the recipes."""


class Planned(msgspec.Struct, frozen=True):
    """A cell of a plan."""

    id: str
    key: str
    """See `key_of`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`plan.json`."""

    schema_version: Literal[1] = 1
    identity: Identity
    cells: tuple[Planned, ...]
    asked: tuple[tuple[str, ...], ...] = ()
    """The options of each command that planned cells; see `command_line.asked`."""


class _Code(msgspec.Struct, frozen=True):
    code_sha256: str


class Head(msgspec.Struct, frozen=True):
    """What of a record tells whether it answers a plan; the rest is passed over when it is read."""

    status: str
    seconds: float
    key: str | None = None
    environment: _Code | None = None


def key_of(cell: Cell, *, data: str, weights: str) -> str:
    """What a cell's record is made from, but for the code: the cell with its recipe in full, the data set's
    hash, and what identifies the weights it starts from."""
    return hashlib.sha256(msgspec.json.encode([cell, data, weights])).hexdigest()


class Run:
    """A run's folder."""

    def __init__(self, name: str) -> None:
        """Args:
        name: of a folder below results/runs, or a path.
        """
        self.name = name
        path = "/" in name or "\\" in name
        self.folder = Path(name).expanduser().resolve() if path else RUNS / name
        self.records = self.folder / "records"

    def log(self, name: str) -> Path:
        """What a process prints."""
        return self.folder / "logs" / f"{name}.log"

    def curves(self, cell: Cell) -> Path:
        """Images/s of the cell's network against batch size, image size and threads."""
        return self.folder / "curves" / f"{cell.id}.json"

    def snapshot(self, cell: Cell) -> Path:
        """What is kept of a cell's training from epoch to epoch."""
        return self.folder / "checkpoints" / f"{cell.id}.checkpoint"

    # Planning

    def take_up(
        self,
        identity: Identity,
        cells: Sequence[Planned],
        *,
        resume: bool,
        allow_dirty: bool,
        asked: tuple[str, ...] = (),
    ) -> dict[str, Head]:
        """Add the cells to the plan, and return the records that answer them already.

        The scratch run's old records go, where they are others' or nobody asked to keep them.

        Args:
            asked: the options that mean these cells, to be told.

        Raises:
            UsageError: records of another kind, or (without `resume`) of these very cells, are there.
        """
        with self._writable(), held(self.folder):
            plan = self._compatible(identity, resume=resume, allow_dirty=allow_dirty)
            heads = {cell.id: self._head(cell.id) for cell in cells}
            found = {name: head for name, head in heads.items() if head is not None}
            if found and not resume and self.name != SCRATCH_RUN:
                raise UsageError(
                    f"run {self.name} already has {len(found)} of these {len(cells)} cells"
                    f" ({next(iter(found))}, ...); --resume keeps them and runs the others, or choose another"
                    f" --run"
                )
            self._write_plan(identity, plan, cells, asked)
        if not resume:
            return {}
        code = None if allow_dirty else identity.code
        return {c.id: found[c.id] for c in cells if c.id in found and answers(found[c.id], c.key, code)}

    def _compatible(self, identity: Identity, *, resume: bool, allow_dirty: bool) -> Plan | None:
        """The plan to be added to; None where there is none, or one that has been wiped."""
        plan = self._plan()
        if plan is not None:
            differing = [
                name
                for name in Identity.__struct_fields__
                if getattr(plan.identity, name) != getattr(identity, name)
                and not (name == "code" and allow_dirty)
            ]
            if differing and self.name == SCRATCH_RUN and not resume:
                self._wipe()
                plan = None
            elif differing:
                dirty = ", or --allow-dirty mixes them" if differing == ["code"] else ""
                raise UsageError(
                    f"run {self.name} was made with other {', '.join(differing)}: its records cannot be mixed"
                    f" with these; choose another --run{dirty}"
                )
        return plan

    def _plan(self) -> Plan | None:
        path = self.folder / "plan.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Plan)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} is damaged ({one_line(error)}); choose another --run") from error

    def _write_plan(
        self, identity: Identity, plan: Plan | None, cells: Sequence[Planned], asked: tuple[str, ...]
    ) -> None:
        all_cells = {cell.id: cell for cell in (*(plan.cells if plan else ()), *cells)}
        commands = dict.fromkeys((*(plan.asked if plan else ()), asked))
        wanted = Plan(identity=identity, cells=tuple(all_cells.values()), asked=tuple(commands))
        self.records.mkdir(parents=True, exist_ok=True)
        if wanted != plan:
            write_whole(self.folder / "plan.json", msgspec.json.encode(wanted))

    def _head(self, cell_id: str) -> Head | None:
        """None where there is no record, or one that nobody can read: its cell is run again."""
        try:
            return msgspec.json.decode((self.records / f"{cell_id}.json").read_bytes(), type=Head)
        except (FileNotFoundError, ValueError, RecursionError):
            return None

    def _wipe(self) -> None:
        for name in ("records", "logs", "plots", "range-tests", "curves", "checkpoints"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for stale in self.folder.glob("*.*"):
            if not stale.name.startswith("."):
                stale.unlink()

    # Locking

    @contextmanager
    def held(self, *, cell: str | None = None) -> Iterator[None]:
        """Nobody else writes to the run meanwhile; or, with `cell`, nobody else runs that cell, and others
        may run theirs. The system frees it when a process dies.

        Raises:
            UsageError: somebody does.
        """
        locks = self.folder / "locks"
        with contextlib.ExitStack() as stack:
            with self._writable():
                locks.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(locks / "run", self.name, shared=cell is not None))
                if cell is not None:
                    stack.enter_context(_locked(locks / cell, f"{self.name}, cell {cell}"))
            yield

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """What the disk refuses, in one line."""
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"run {self.folder}: cannot be written to ({one_line(error)}); make room, or give another"
                f" --run"
            ) from error


def answers(head: Head, key: str, code: str | None) -> bool:
    """Whether a record is that of a finished cell with this key, made by this code (None: by any)."""
    made_by = head.environment.code_sha256 if head.environment else None
    return head.status == "ok" and head.key == key and code in (None, made_by)


@contextmanager
def _locked(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    with path.open("a+") as stream:
        try:
            _flock(stream, shared=shared)
        except BlockingIOError:
            stream.seek(0)
            who = stream.read().strip() or "another process"
            raise UsageError(
                f"run {what}: {who} is at work on it; wait until it has ended, or choose another --run"
            ) from None
        stream.truncate(0)  # who was here before
        if not shared:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            stream.write(f"process {os.getpid()} on {platform.node()}, since {now},")
            stream.flush()
        yield


def _flock(stream: IO[str], *, shared: bool) -> None:
    try:
        import fcntl
    except ImportError:  # there is no such lock on Windows
        return
    fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
