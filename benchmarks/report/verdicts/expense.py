"""What training and inference take, for the first screen: seconds to an accuracy, memory, latency. None of it
is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.harness.record import Record
from benchmarks.report.groups import Group, by
from benchmarks.report.labels import USUAL, run_of
from benchmarks.report.verdicts.comparisons import at, scenes, variant
from benchmarks.report.verdicts.cost import Reached


def seconds(rows: Sequence[Reached], only: str) -> Iterable[str]:
    """Of training until an accuracy was reached, by each backend's quickest protocol, variant by variant."""

    def scene(row: Reached) -> tuple[str, float, str]:
        return _where(row.group), row.threshold, variant(row.group)

    for (where, threshold, _), same in by(rows, scene):
        quickest: dict[str, Reached] = {}
        for row in same:
            best = quickest.get(row.group.backend)
            if row.typical and (best is None or (row.median or 0.0) < (best.median or 0.0)):
                quickest[row.group.backend] = row
        if quickest:
            told = ", ".join(map(_seconds, quickest.values()))
            place = "" if only else f"{where}, "
            how = variant(same[0].group).removeprefix(", ")
            yield (
                f"{place}{f'{how}, ' if how else ''}seconds of training until test accuracy first reached"
                f" {threshold:.2f}, by the quickest protocol: {told} {NOT_TESTED}."
            )


def memory(groups: Sequence[Group], only: str) -> Iterable[str]:
    """The most that a process ever held."""
    return _of_most_trained(groups, only, _peak, "GiB at the process's peak")


def latency(groups: Sequence[Group], only: str) -> Iterable[str]:
    """Of one image."""
    return _of_most_trained(groups, only, _p50, "ms for one image")


NOT_TESTED = "(medians of the seeds, not tested)"


# --- How ------------------------------------------------------------------------------------------


def _of_most_trained(
    groups: Sequence[Group], only: str, figure: Callable[[Record], float | None], unit: str
) -> Iterable[str]:
    """A figure of each backend, for the protocol that trains the most; only of cells that were timed, for
    timing itself takes memory, and in the matched track, for in the native one networks differ."""
    timed = [
        (group, median(found))
        for group in groups
        if group.cell.track == "matched"
        and (found := [value for record in group.records if (value := figure(record)) is not None])
    ]
    figures = {id(group): value for group, value in timed}
    compared = scenes("backends", [group for group, _ in timed])
    told = []
    for where, same in by(compared, lambda scene: f"{scene.place}{variant(scene.groups[0])}"):
        most = same[0].groups
        values = ", ".join(f"{group.backend} {figures[id(group)]:.3g}" for group in most)
        told.append(f"{at(where, only)}{most[0].protocol}: {values}")
    if told:
        yield f"{unit}; {'; '.join(told)} {NOT_TESTED}."


def _peak(record: Record) -> float | None:
    """In GiB: of the device where that is not the CPU."""
    if record.throughput is None or record.memory is None:
        return None
    found = record.memory
    held = found.peak_rss_bytes if found.peak_device_bytes is None else found.peak_device_bytes
    return held / 2**30


def _p50(record: Record) -> float | None:
    """In milliseconds."""
    found = record.throughput.latency if record.throughput else None
    return None if found is None else 1000 * found.p50


def _where(group: Group) -> str:
    run = run_of(group.records[0])
    device = group.cell.device if group.cell.device != USUAL["device"] else ""
    return ", ".join(filter(None, (f"{group.cell.track} on {group.cell.data.name}", device, run)))


def _seconds(row: Reached) -> str:
    price = "" if row.cost is None else f", {row.cost:.4f} at {row.price:g} an hour"
    return f"{row.group.backend} {row.median:.0f} s ({row.group.protocol}; {row.share} seeds{price})"
