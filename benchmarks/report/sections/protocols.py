"""The documents' protocols: their published figures beside ours, and what becomes of their claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

import msgspec

from benchmarks.harness.recipe import Recipe, recipes_by_id
from benchmarks.harness.record import CellDescription, Record
from benchmarks.report.document import Column, Table, filled, table_of
from benchmarks.report.groups import Group, by, groups, without_seed
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
    """A recipe under one set of conditions, in every backend that ran it, all seeds."""

    recipe: Recipe
    records: tuple[Record, ...]
    """Failed ones too; never empty."""
    groups: Mapping[str, Group]
    """By backend, those of which a seed ended well."""

    @property
    def cell(self) -> CellDescription:
        """Of the first."""
        return self.records[0].cell

    def of(self, backend: str) -> list[Record]:
        """The records of a backend."""
        return [record for record in self.records if record.cell.backend == backend]


def protocols_table(records: Sequence[Record]) -> Table:
    """One row per recipe: what the document's authors report, what we got in each backend, and why the two
    are not the same."""
    rows = _rows(records)
    heading = accuracy_heading(group for row in rows for group in row.groups.values())
    backends = sorted({record.cell.backend for row in rows for record in row.records})
    in_each = {backend: f", {backend_title(backend)}" for backend in backends}
    columns: list[Column[Row]] = [
        *filled(rows, [Column("run", lambda row: run_of(row.records[0]))]),
        Column("document", lambda row: row.recipe.seed_document),
        Column("protocol", lambda row: row.recipe.protocol),
        Column("recipe", lambda row: row.recipe.id),
        Column("network", _network),
        *(Column(field, partial(_field, field)) for field in unusual(r for row in rows for r in row.records)),
        Column("published", lambda row: published_text(row.recipe)),
        Column("seeds", _seeds, number=True),
        *(
            Column(
                f"our {heading}{title}",
                partial(_ours, backend),
                order=partial(_mean, backend),
                record=partial(_first, backend),
            )
            for backend, title in in_each.items()
        ),
        Column("epochs", lambda row: "; ".join(dict.fromkeys(filter(None, map(epochs_text, row.records))))),
        *filled(
            rows,
            [
                Column(f"training s{title}", partial(_training, backend), number=True)
                for backend, title in in_each.items()
            ],
        ),
        Column("why they differ", _difference),
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
    found = by(groups(known), lambda group: _what(group.records[0]))
    ended = {what: {group.cell.backend: group for group in members} for what, members in found}
    return [
        Row(recipes[members[0].cell.recipe], tuple(members), ended.get(what, {}))
        for what, members in by(sorted(known, key=_place), _what)
    ]


def _what(record: Record) -> tuple[object, ...]:
    """What the cells of a row share: all that their ids say beside backend and seed, weights and data. A
    failed cell may have no more."""
    cell = record.cell
    alike = without_seed(cell).rpartition("/")[2].removeprefix(f"{cell.backend}-")
    return run_of(record), alike, cell.weights.name, *data_key(record)


def _place(record: Record) -> tuple[object, ...]:
    cell = record.cell
    variant = variant_place(cell.variant, cell.precision)
    return (
        run_of(record),
        cell.architecture,
        place(cell.protocol),
        cell.recipe,
        variant,
        cell.backend,
        cell.seed,
    )


def _network(row: Row) -> str:
    return next(map(network_of, row.groups.values()), row.cell.architecture)


def _seeds(row: Row) -> str:
    counts = sorted({len(group.seeds) for group in row.groups.values()})
    return " to ".join(dict.fromkeys(map(str, counts[:1] + counts[-1:])))


def _ours(backend: str, row: Row) -> str:
    group = row.groups.get(backend)
    return accuracy_text(group) if group else next((record.status for record in row.of(backend)), "")


def _mean(backend: str, row: Row) -> float | None:
    group = row.groups.get(backend)
    return spread(group.accuracies).mean if group else None


def _first(backend: str, row: Row) -> str | None:
    return next((record.cell.id for record in row.of(backend)), None)


def _training(backend: str, row: Row) -> str:
    group = row.groups.get(backend)
    return f"{median(map(training_seconds, group.records)):.0f}" if group and group.timed else ""


def _difference(row: Row) -> str:
    training = next((record.training for record in row.records if record.training), None)
    if training is None or training.recipe_batch_size in (None, training.batch_size):
        return row.recipe.difference
    smaller = f"batches of {training.batch_size} at the rates meant for {training.recipe_batch_size}"
    return "; ".join(filter(None, (row.recipe.difference, smaller)))


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
