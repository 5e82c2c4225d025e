"""A whole plan, cell by cell: backends in alternation, one display, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from datetime import datetime, timezone
from statistics import mean
from uuid import uuid4

import msgspec

from benchmarks.harness.plan import Cell
from benchmarks.harness.record import Record, Turn
from benchmarks.harness.running.session import Session


def alternating(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in an order in which what drifts on a machine meets alike all whose speeds are compared.

    A comparison are the cells of one seed that differ in nothing but the backend and, in the native track,
    what belongs to it; its backends stand beside each other. The comparisons of several variants follow each
    other, every second one backwards: A B C, C' B' A'. The next seed has all of that backwards: A' B' C',
    C B A. So of any two, backends or variants, each goes before the other in every second seed.
    """
    groups: dict[tuple[int, str, str], dict[Hashable, list[Cell]]] = {}
    for cell in cells:
        recipe = cell.recipe
        own = recipe.backend is not None and recipe.canonical
        what = recipe.protocol if own else recipe.id
        comparisons = groups.setdefault((cell.seed, recipe.track, what), {})
        comparisons.setdefault((cell.variant, cell.precision), []).append(cell)
    first: dict[Hashable, int] = {}
    ordered: list[Cell] = []
    for (seed, *recipes), comparisons in groups.items():
        place = first.setdefault(tuple(recipes), len(first))
        snake = [
            cell
            for number, comparison in enumerate(comparisons.values())
            for cell in (comparison[::-1] if number % 2 else comparison)
        ]
        ordered += snake[::-1] if (seed + place) % 2 else snake
    return ordered


class Estimate:
    """How long cells take, learnt from those that have run."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def learn(self, cell: Cell, seconds: float) -> None:
        """A cell has taken so long."""
        for kind in self._kinds(cell):
            self._seconds[kind].append(seconds)

    def left(self, cells: Sequence[Cell]) -> float | None:
        """Seconds that these cells will take; None as long as nothing is known."""
        if not self._seconds:
            return None
        return sum(self._of(cell) for cell in cells)

    def _of(self, cell: Cell) -> float:
        return mean(next(self._seconds[kind] for kind in self._kinds(cell) if kind in self._seconds))

    def _kinds(self, cell: Cell) -> Iterator[tuple[str, ...]]:
        """From its likes to all there are."""
        recipe = cell.recipe
        yield cell.backend, recipe.id, cell.variant
        yield cell.backend, recipe.architecture, recipe.protocol
        yield cell.backend, recipe.architecture
        yield (recipe.architecture,)
        yield (cell.backend,)
        yield ()


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a plan."""

    cells: int
    kept: int
    """Had a record already."""
    records: tuple[Record, ...]
    """Of the cells that were run now."""

    @property
    def failed(self) -> tuple[Record, ...]:
        """Those that failed."""
        return tuple(record for record in self.records if record.status == "failed")


def new_sitting() -> str:
    """A name for the turns that this process is about to give: when, in UTC, and something that no other
    process has."""
    return f"{datetime.now(timezone.utc).isoformat(timespec='seconds')} {uuid4().hex[:8]}"


def run_all(session: Session, *, sitting: str | None = None) -> Iterator[Tally]:
    """Run the session's cells that have no record yet, and yield what has come of them after each, and once
    before the first.

    Args:
        sitting: goes into the records, whose speeds may then be compared; None: a part of a plan, whose other
            cells run elsewhere.

    Raises:
        RecordError: a record cannot be written; going on would lose more of them.
    """
    waiting = [cell for cell in alternating(session.cells) if cell.id not in session.answered]
    kept, estimate = len(session.answered), Estimate()
    for cell in session.cells:
        if cell.id in session.answered:
            estimate.learn(cell, session.answered[cell.id].seconds)
    records: list[Record] = []

    def tally() -> Tally:
        return Tally(cells=len(session.cells), kept=kept, records=tuple(records))

    yield tally()
    with session.display.live() as live:
        task = live.add_task("", total=len(waiting), title="all cells") if live else None
        for place, cell in enumerate(waiting):
            left = duration(estimate.left(waiting[place:]))
            count = f"{kept + place + 1}/{len(session.cells)}"
            if live is not None and task is not None:
                failed = len(tally().failed)
                text = "  ".join(part for part in (count, left, f"{failed} failed" if failed else "") if part)
                live.update(task, completed=place, description=text)
            title = cell.id if live else f"[{', '.join(part for part in (count, left) if part)}] {cell.id}"
            turn = Turn(sitting=sitting, place=place) if sitting is not None else None
            record = session.run(cell, title, turn=turn)
            records.append(record)
            estimate.learn(cell, record.seconds)
            yield tally()


def duration(seconds: float | None) -> str:
    """`about 12 min left`; nothing where it is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} s left"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"
