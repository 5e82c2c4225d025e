"""Groups of cells that one panel of a plot compares: they differ in backend and variant alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.harness.record import Record
from benchmarks.report.groups import Group, groups
from benchmarks.report.labels import data_key, data_title, in_words, run_of, several_data_sets


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Of a plot."""

    title: str
    name: str
    """Of a file: its own, and harmless."""
    groups: tuple[Group, ...]


def panels(records: Iterable[Record]) -> list[Panel]:
    """The groups of cells that ended well, a panel for each track, network, protocol, image size and data
    set, in the order in which tables show them."""
    records = list(records)
    found: dict[tuple[object, ...], list[Group]] = {}
    for group in groups(records):
        found.setdefault(_key(group), []).append(group)
    several = several_data_sets(records)
    titles = [_title(members[0], several=several) for members in found.values()]
    return [
        Panel(title=title, name=name, groups=tuple(members))
        for title, name, members in zip(titles, file_names(titles), found.values(), strict=True)
    ]


def of_most_weight(panels: Sequence[Panel], most: int) -> list[Panel]:
    """As many as that: those that compare most backends, over most seeds; in their own order."""
    if len(panels) <= most:
        return list(panels)

    def weight(place: int) -> tuple[int, int, int]:
        members = panels[place].groups
        several = len({group.cell.backend for group in members})
        return -several, -max(len(group.seeds) for group in members), place

    return [panels[place] for place in sorted(sorted(range(len(panels)), key=weight)[:most])]


def labels(groups: Sequence[Group]) -> list[str]:
    """What a panel calls its groups: each its backend, and what is special about it."""
    return told_apart([(_label(group), run_of(group.records[0])) for group in groups])


def told_apart(names: Sequence[tuple[str, str]]) -> list[str]:
    """Names, with the run behind them where two are the same."""
    times = Counter(name for name, _ in names)
    return [f"{name} ({run})" if times[name] > 1 and run else name for name, run in names]


def variant_of(group: Group) -> str:
    """In words, the usual one too."""
    return in_words(group.cell.variant, group.cell.precision, group.cell.device)


def file_names(titles: Iterable[str]) -> list[str]:
    """For each title a name of lower-case letters, digits and hyphens, and no name twice."""
    taken: dict[str, int] = {}
    names = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "x"
        taken[name] = taken.get(name, 0) + 1
        names.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return names


# --- How ------------------------------------------------------------------------------------------


def _label(group: Group) -> str:
    cell = group.cell
    said = [] if cell.track == "matched" else [cell.architecture]
    said += [group.variant] if group.variant else []
    return ", ".join((group.backend, *said))


def _key(group: Group) -> tuple[object, ...]:
    cell = group.cell
    network = cell.architecture if cell.track == "matched" else ""
    return cell.track, network, group.protocol, group.image_size or 0, *data_key(group.records[0])


def _title(group: Group, *, several: bool) -> str:
    cell = group.cell
    said = [f"matched {cell.architecture}" if cell.track == "matched" else cell.track, group.protocol]
    said += [f"{group.image_size} px"] if group.image_size else []
    return ", ".join((*said, *([data_title(group.records[0])] if several else [])))
