"""The documents' protocols: their published figures beside ours, and what becomes of their claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import msgspec

from benchmarks.harness.recipe import Recipe, recipes_by_id
from benchmarks.harness.record import CellDescription, Record
from benchmarks.report.document import Column, Table, filled, table_of
from benchmarks.report.groups import Group, groups
from benchmarks.report.labels import backend_title, data_key, place, run_of, unusual, variant_place
from benchmarks.report.statistics import spread
from benchmarks.report.training_time import training_seconds
from benchmarks.report.verdicts.accuracy import (
    Compared,
    accuracy_heading,
    accuracy_text,
    difference_text,
    tested,
)
from benchmarks.report.verdicts.comparisons import Pair, Scene, network_of
from benchmarks.report.verdicts.words import Choices, count_of, p_text

USUAL_CHOICES = Choices()


class Row(msgspec.Struct, frozen=True):
    """The seeds of a recipe in a backend; a failed cell, where none ended well."""

    recipe: Recipe
    group: Group | None
    records: tuple[Record, ...]

    @property
    def cell(self) -> CellDescription:
        """Of the first."""
        return self.records[0].cell


def protocols_table(records: Sequence[Record]) -> Table:
    """One row per recipe and backend: what the document's authors report, what we got, and why the two are
    not the same."""
    rows = _rows(records)
    ours = f"our {accuracy_heading(row.group for row in rows if row.group)}"
    columns: list[Column[Row]] = [
        *filled(rows, [Column("run", lambda row: run_of(row.records[0]))]),
        Column("document", lambda row: row.recipe.seed_document),
        Column("protocol", lambda row: row.recipe.protocol),
        Column("recipe", lambda row: row.recipe.id),
        Column("backend", lambda row: backend_title(row.cell.backend)),
        Column("network", lambda row: network_of(row.group) if row.group else row.cell.architecture),
        *(Column(field, partial(_field, field)) for field in unusual(r for row in rows for r in row.records)),
        Column("published", lambda row: published_text(row.recipe)),
        Column("seeds", lambda row: str(len(row.group.seeds)) if row.group else "", number=True),
        Column(ours, _ours, order=_mean, record=lambda row: row.cell.id),
        Column("epochs", lambda row: "; ".join(dict.fromkeys(filter(None, map(epochs_text, row.records))))),
        *filled(rows, [Column("training s", _training, number=True)]),
        Column("why they differ", lambda row: row.recipe.difference),
    ]
    return table_of("The documents' figures and ours", rows, columns)


def published_text(recipe: Recipe) -> str:
    """What others report, and who."""
    return "; ".join(f"{figure.accuracy} ({figure.source})" for figure in recipe.published) or "none"


def is_documented(record: Record) -> bool:
    """Whether others report a figure for the cell's protocol, or claim something of it."""
    recipe = recipes_by_id().get(record.cell.recipe)
    return recipe is not None and bool(recipe.published or recipe.claim)


def epochs_text(record: Record) -> str:
    """Epochs of each phase; what the recipe asks for behind it, where the profile or patience cut it."""
    if record.training is None or not record.curve:
        return ""
    parts = []
    for number, phase in enumerate(record.training.phases, start=1):
        ran = sum(row.phase == number for row in record.curve)
        cut = "" if ran == phase.recipe_epochs else f" of {phase.recipe_epochs}"
        parts.append(f"{ran}{cut}{' on features' if phase.on == 'features' else ''}")
    chosen = record.accuracy.epoch if record.accuracy else None
    kept = f"; kept {chosen}" if record.training.validation_images and chosen else ""
    return " + ".join(parts) + kept


def claims(records: Sequence[Record], choices: Choices = USUAL_CHOICES) -> str:
    """For each claim whose two recipes are both among the records: what paired tests say of it, all claims
    being one family of tests."""
    recipes = recipes_by_id()
    found = groups(records)
    by_recipe = {(group.cell.recipe, *_conditions(group)): group for group in found}
    members = []
    for group in found:
        recipe = recipes.get(group.cell.recipe)
        if recipe is not None and recipe.claim is not None:
            other = by_recipe.get((recipe.claim.against, *_conditions(group)))
            if other is not None:
                members.append(Pair(Scene("protocols", (group, other)), group, other))
    return "\n".join(map(_told, tested(members, choices.margin)))


# --- How ------------------------------------------------------------------------------------------


def _rows(records: Sequence[Record]) -> list[Row]:
    recipes = recipes_by_id()
    known = [record for record in records if record.cell.recipe in recipes]
    found = [
        Row(recipes[group.cell.recipe], group, (*group.records, *group.failed)) for group in groups(known)
    ]
    told = {record.cell.id for row in found for record in row.records}
    found += [Row(recipes[r.cell.recipe], None, (r,)) for r in known if r.cell.id not in told]
    return sorted(found, key=_place)


def _place(row: Row) -> tuple[object, ...]:
    cell = row.cell
    variant = variant_place(cell.variant, cell.precision)
    return (
        run_of(row.records[0]),
        cell.architecture,
        place(cell.protocol),
        cell.recipe,
        cell.backend,
        variant,
    )


def _ours(row: Row) -> str:
    return accuracy_text(row.group) if row.group else row.records[0].status


def _mean(row: Row) -> float | None:
    return spread(row.group.accuracies).mean if row.group else None


def _training(row: Row) -> str:
    group = row.group
    return f"{median(map(training_seconds, group.records)):.0f}" if group and group.timed else ""


def _field(field: str, row: Row) -> str:
    return str(getattr(row.cell, field))


def _conditions(group: Group) -> tuple[object, ...]:
    """What two groups must share to be compared."""
    record, cell = group.records[0], group.cell
    of_cell = cell.backend, cell.variant, cell.device, cell.precision, group.image_size
    return (run_of(record), *of_cell, *data_key(record))


def _told(row: Compared) -> str:
    first, second = row.pair.first, row.pair.second
    recipe = recipes_by_id()[first.cell.recipe]
    assert recipe.claim is not None
    variant = f" ({first.variant})" if first.variant else ""
    found = row.difference
    means = [f"{group.correct(row.seeds).mean():.3f}" for group in (first, second)]
    return (
        f"- {recipe.seed_document} says: {recipe.claim.text}. {network_of(first)} in"
        f" {first.backend}{variant}, `{recipe.id}` against `{recipe.claim.against}`: accuracy"
        f" **{row.verdict}** ({means[0]} against {means[1]},"
        f" {difference_text(found.estimate, found.low, found.high)} points,"
        f" {count_of(len(row.seeds), 'seed')}, p = {p_text(row.tested.p)}).{_duration(row)}"
    )


def _duration(row: Compared) -> str:
    if not (row.pair.first.timed and row.pair.second.timed):
        return ""
    return (
        f" Training takes {_times(row, training_seconds)} times as long in all,"
        f" {_times(row, _seconds_per_epoch)} times per epoch (median seeds; told, not tested)."
    )


def _times(row: Compared, seconds: Callable[[Record], float]) -> str:
    """How many times the second's time the first's is."""
    own, other = (
        median(seconds(record) for record in group.records if record.cell.seed in row.seeds)
        for group in (row.pair.first, row.pair.second)
    )
    return f"{own / other:.2f}"


def _seconds_per_epoch(record: Record) -> float:
    return sum(row.train_seconds for row in record.curve) / len(record.curve)
