"""What things are called in the report, in which order they stand, and what tells one cell from another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import backends
from benchmarks.harness.images.data import DRAWN
from benchmarks.harness.images.sketch import TARGET_CLASSES
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.recipe import recipes_by_id
from benchmarks.harness.record import CellDescription, Data, Record
from benchmarks.report.document import Column

PROTOCOLS = (
    "finetune",
    "head-then-finetune",
    "last-block",
    "frozen",
    "bottleneck",
    "classifier",
    "scratch",
)  # as a reader compares them: from most to least that is trained, and what reuses nothing last
VARIANTS = ("default", "tuned", "reproducible")
PRECISIONS = ("float32", "bfloat16")
USUAL = {"variant": "default", "precision": "float32", "device": "cpu"}
"""What goes unsaid where all cells of a table have it."""


def place(protocol: str) -> tuple[int, str]:
    """Where a protocol stands in a table."""
    return _place(protocol, PROTOCOLS)


def variant_place(variant: str, precision: str) -> tuple[tuple[int, str], tuple[int, str]]:
    """Where a variant stands among those of its backend: the default, and what is compared with it."""
    return _place(variant, VARIANTS), _place(precision, PRECISIONS)


def side_by_side(records: Iterable[Record]) -> list[Record]:
    """The same records, those together that differ only in variant, precision and seed; backends and
    architectures stand as they come."""
    records = list(records)
    first: dict[tuple[str, str], int] = {}
    for number, record in enumerate(records):
        first.setdefault((record.cell.backend, record.cell.architecture), number)

    def order(record: Record) -> tuple[object, ...]:
        cell = record.cell
        return (
            first[cell.backend, cell.architecture],
            variant_place(cell.variant, cell.precision),
            cell.device,
            cell.seed,
        )

    return sorted(records, key=order)


def conditions_columns(records: Iterable[Record]) -> list[Column[Record]]:
    """Columns for the run and the data, where they tell cells apart, and for variant, precision and device,
    as far as they are not the usual ones everywhere."""
    records = list(records)
    told = [Column("run", run_of)] if any(map(run_of, records)) else []
    told += [Column("data", data_title)] if several_data_sets(records) else []
    return [*told, *(_of_cell(field) for field in unusual(records))]


def run_of(record: Record) -> str:
    """The run of a cell that several runs have; else empty."""
    return record.cell.id.rpartition("/")[0]


def several_data_sets(records: Iterable[Record]) -> bool:
    """Whether cells saw other images, or another part of them."""
    return len(set(map(data_key, records))) > 1


def data_key(record: Record) -> tuple[str, str, bool]:
    """What tells a cell's data from others': the data set, how much of it was used, and whether each seed
    drew its own training images."""
    return record.cell.data.sha256, record.cell.profile, record.cell.resampled


def data_title(record: Record) -> str:
    """The same in words."""
    cell = record.cell
    return f"{cell.data.name}, {cell.profile}{', resampled' if cell.resampled else ''}"


def unusual(records: Iterable[Record]) -> list[str]:
    """The names of those fields of `USUAL` in which a cell differs from it; precision stands with variant,
    without which it says little."""
    cells = [record.cell for record in records]
    fields = [field for field, usual in USUAL.items() if any(getattr(cell, field) != usual for cell in cells)]
    if "variant" in fields or "precision" in fields:
        fields = ["variant", "precision", *(["device"] if "device" in fields else [])]
    return fields


def is_default(cell: CellDescription) -> bool:
    """Whether it is each framework as it comes, on whatever device: what other variants are compared with."""
    return (cell.variant, cell.precision) == (USUAL["variant"], USUAL["precision"])


def scored(records: Iterable[Record]) -> list[Record]:
    """Those whose accuracies are told and compared; see `Profile.scored`."""
    return [record for record in records if is_scored(record.cell)]


def is_scored(cell: CellDescription) -> bool:
    """Whether its accuracy is. A profile that there is no more may have been any."""
    return cell.profile not in PROFILES or PROFILES[cell.profile].scored


def shows_hot_dogs(data: Data) -> bool:
    """Whether these are photographs of hot dogs and other things, under whatever name somebody keeps them."""
    return data.name not in DRAWN and set(data.classes) == set(TARGET_CLASSES)


def in_words(variant: str, precision: str, device: str = "cpu") -> str:
    """A variant in a few words; the usual precision and device go unsaid."""
    told = [variant]
    told += [precision] if precision != USUAL["precision"] else []
    told += [device] if device != USUAL["device"] else []
    return " ".join(told)


def protocol_or_recipe(record: Record) -> str:
    """What was trained: the protocol, or the recipe where it is not the one that the protocol means."""
    return record.cell.protocol if canonical(record) else record.cell.recipe


def canonical(record: Record) -> bool:
    """Whether its recipe is what its track, architecture and protocol mean when nothing else is said."""
    recipe = recipes_by_id().get(record.cell.recipe)
    return recipe is not None and recipe.canonical


def backend_title(backend: str) -> str:
    """A backend's framework, as tables call it."""
    card = backends.known().get(backend)
    return card.title if card else backend


def summary(records: Sequence[Record]) -> str:
    """What the recipe of these cells does, in its own words."""
    recipe = recipes_by_id().get(records[0].cell.recipe)
    return recipe.summary if recipe else ""


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _of_cell(field: str) -> Column[Record]:
    return Column(field, lambda record: str(getattr(record.cell, field)))
