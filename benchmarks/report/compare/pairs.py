"""Which cells of two runs belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from backends.base import UsageError
from benchmarks.harness.record import Record
from benchmarks.report.groups import without_seed
from benchmarks.report.labels import USUAL, place, protocol_or_recipe, variant_place
from benchmarks.report.verdicts.words import first_few


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of both runs that differ in nothing but their seed, as far as they ended well."""

    name: str
    """Backend, protocol, and as much more as tells it from the other pairs."""
    baseline: tuple[Record, ...]
    candidate: tuple[Record, ...]
    """By rising seed; neither is empty."""


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of two runs."""

    pairs: tuple[Pair, ...]
    """In the order in which tables show them."""
    failed: tuple[Record, ...]
    """Of the candidate: their baseline was ok."""
    recovered: tuple[Record, ...]
    """Of the candidate: they are ok, and their baseline had failed."""
    failed_in_both: tuple[Record, ...]
    """Of the candidate."""
    baseline_only: tuple[Record, ...]
    candidate_only: tuple[Record, ...]


def pair_up(baseline: Sequence[Record], candidate: Sequence[Record], names: tuple[str, str]) -> Pairs:
    """The cells of two runs, put beside each other by all that makes them the same.

    Args:
        names: of the runs, for an error's text.

    Raises:
        UsageError: no cell is in both, or the data are not the same.
    """
    _require_same_data(baseline, candidate, names)
    sizes = _sizes(candidate) | _sizes(baseline)
    first, second = (_by_cell(records, _sizes(records), sizes) for records in (baseline, candidate))
    both = [key for key in first if key in second]
    if not both:
        raise UsageError(
            f"compare {names[0]} {names[1]}: no cell is in both; the first has {_cells(baseline)}, the"
            f" second {_cells(candidate)}; run the same recipes with the same --profile, --image-size and"
            " --resample"
        )
    groups: dict[_Group, list[_Key]] = {}
    for key in sorted(both, key=lambda key: _place(first[key], key)):
        if first[key].status == second[key].status == "ok":
            groups.setdefault(key[0], []).append(key)
    labels = _labels([first[keys[0]] for keys in groups.values()])
    return Pairs(
        pairs=tuple(
            Pair(
                name=name,
                baseline=tuple(_ok(first, group)),
                candidate=tuple(_ok(second, group)),
            )
            for group, name in zip(groups, labels, strict=True)
        ),
        failed=_where(first, second, both, "ok", "failed"),
        recovered=_where(first, second, both, "failed", "ok"),
        failed_in_both=_where(first, second, both, "failed", "failed"),
        baseline_only=tuple(first[key] for key in first if key not in second),
        candidate_only=tuple(second[key] for key in second if key not in first),
    )


# --- How ------------------------------------------------------------------------------------------

_Group: TypeAlias = tuple[str, str, str, "int | None"]
"""All that makes cells the same but the seed: the id without it, profile, data and image size."""
_Key: TypeAlias = tuple[_Group, int]


def _stem(record: Record) -> tuple[str, str]:
    return without_seed(record.cell), record.cell.profile


def _sizes(records: Iterable[Record]) -> dict[tuple[str, str], int]:
    """Image sizes in pixels: a version of the code may have given a profile another one."""
    return {_stem(record): record.training.image_size for record in records if record.training is not None}


def _by_cell(
    records: Iterable[Record], own: dict[tuple[str, str], int], others: dict[tuple[str, str], int]
) -> dict[_Key, Record]:
    found = {}
    for record in records:
        stem = _stem(record)
        size = own.get(stem, others.get(stem))  # a cell that failed early says nothing of its size
        found[(*stem, record.cell.data.sha256, size), record.cell.seed] = record
    return found


def _ok(records: dict[_Key, Record], group: _Group) -> list[Record]:
    found = [record for key, record in records.items() if key[0] == group and record.status == "ok"]
    return sorted(found, key=lambda record: record.cell.seed)


def _where(
    first: dict[_Key, Record], second: dict[_Key, Record], keys: Iterable[_Key], before: str, after: str
) -> tuple[Record, ...]:
    return tuple(second[key] for key in keys if (first[key].status, second[key].status) == (before, after))


def _cells(records: Iterable[Record]) -> str:
    return first_few([f"{record.cell.id} ({record.cell.profile})" for record in records] or ["none"])


def _require_same_data(
    baseline: Sequence[Record], candidate: Sequence[Record], names: tuple[str, str]
) -> None:
    hashes = [{record.cell.data.sha256 for record in records} for records in (baseline, candidate)]
    if not hashes[0] & hashes[1]:
        told = [
            ", ".join(sorted({f"{record.cell.data.name} ({record.cell.data.sha256[:12]})" for record in run}))
            for run in (baseline, candidate)
        ]
        raise UsageError(
            f"compare {names[0]} {names[1]}: their data are not the same, {told[0]} and {told[1]}; run both"
            " with the same --data and --profile"
        )


def _place(record: Record, key: _Key) -> tuple[object, ...]:
    cell = record.cell
    return (
        cell.track,
        cell.architecture if cell.track == "matched" else "",
        place(cell.protocol),
        cell.recipe,
        key[0][3] or 0,
        variant_place(cell.variant, cell.precision),
        cell.device,
        cell.backend,
        key[1],
    )


def _labels(records: Sequence[Record]) -> list[str]:
    """For each a name: its backend and protocol, and as much more as it takes to tell them all apart."""
    columns = [_words(record) for record in records]
    told = [BACKEND, PROTOCOL]
    for more in (TRACK, VARIANT, PRECISION, DEVICE, ARCHITECTURE, SIZE, PROFILE, RESAMPLED):
        before, after = ({_chosen(words, which) for words in columns} for which in (told, [*told, more]))
        if len(after) > len(before):
            told.append(more)
    return [" ".join(filter(None, _chosen(words, sorted(told)))) for words in columns]


BACKEND, TRACK, ARCHITECTURE, PROTOCOL, VARIANT, PRECISION, DEVICE, PROFILE, SIZE, RESAMPLED = range(10)
"""Where a word stands in a name."""


def _words(record: Record) -> tuple[str, ...]:
    cell = record.cell
    usual = [
        "" if getattr(cell, field) == value else str(getattr(cell, field)) for field, value in USUAL.items()
    ]
    return (
        cell.backend,
        cell.track,
        cell.architecture,
        protocol_or_recipe(record),
        *usual,
        cell.profile,
        f"{record.training.image_size}px" if record.training else "",
        "resampled" if cell.resampled else "",
    )


def _chosen(words: Sequence[str], places: Iterable[int]) -> tuple[str, ...]:
    return tuple(words[place] for place in places)
