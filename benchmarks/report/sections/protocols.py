"""The documents' protocols: their published figures beside ours, and what becomes of their claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from benchmarks.harness.recipe import Recipe, recipes_by_id
from benchmarks.harness.record import Record
from benchmarks.report.document import Column, Table, table_of
from benchmarks.report.labels import backend_title, data_key, in_words, place, unusual, variant_place
from benchmarks.report.sections.results import accuracy_order, accuracy_text
from benchmarks.report.statistics import ALPHA, least_difference, mcnemar
from benchmarks.report.training_time import training_seconds


def protocols_table(records: Iterable[Record]) -> Table:
    """One row per cell: what the document's authors report, what we got, and why the two are not the same."""
    recipes = recipes_by_id()
    rows = [
        (recipes[record.cell.recipe], record)
        for record in sorted(records, key=_place)
        if record.cell.recipe in recipes
    ]
    columns: list[Column[tuple[Recipe, Record]]] = [
        Column("document", lambda row: row[0].seed_document),
        Column("protocol", lambda row: row[0].protocol),
        Column("recipe", lambda row: row[0].id),
        Column("backend", lambda row: backend_title(row[1].cell.backend)),
        Column("architecture", lambda row: row[1].cell.architecture),
        *(Column(field, partial(_field, field)) for field in unusual(record for _, record in rows)),
        Column("published", _published),
        Column(
            "ours [95 %]",
            lambda row: accuracy_text(row[1]),
            order=lambda row: accuracy_order(row[1]),
            record=lambda row: row[1].cell.id,
        ),
        Column("epochs", lambda row: epochs_text(row[1])),
        Column(
            "training s",
            lambda row: f"{training_seconds(row[1]):.0f}" if row[1].accuracy else "",
            number=True,
        ),
        Column("why they differ", lambda row: row[0].difference),
    ]
    return table_of("The documents' figures and ours", rows, columns)


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


def claims(records: Sequence[Record]) -> str:
    """For each claim whose two recipes are both among the records: what a paired test says of it."""
    recipes = recipes_by_id()
    cells = {(r.cell.recipe, *_conditions(r)): r for r in records if r.status == "ok"}
    lines = []
    for (name, *conditions), record in sorted(cells.items(), key=lambda item: item[1].cell.id):
        recipe = recipes.get(str(name))
        if recipe is None or recipe.claim is None:
            continue
        other = cells.get((recipe.claim.against, *conditions))
        if other is not None:
            lines.append(_verdict(recipe, record, other))
    return "\n".join(lines)


def _conditions(record: Record) -> tuple[object, ...]:
    """What two cells must share to be compared."""
    cell = record.cell
    size = record.training.image_size if record.training else None
    return (cell.backend, cell.seed, cell.variant, cell.device, cell.precision, size, *data_key(record))


def _verdict(recipe: Recipe, record: Record, other: Record) -> str:
    assert recipe.claim is not None and record.accuracy is not None and other.accuracy is not None
    only, only_other, p = mcnemar(record.accuracy.correct, other.accuracy.correct)
    if p >= ALPHA:
        least = least_difference(only + only_other)
        accurate = "more accurate: **no difference shown**"
        if least is not None:
            accurate += f" (could have shown {least / record.accuracy.images:.3f})"
    else:
        accurate = f"more accurate: **{'yes' if only > only_other else 'no, less'}**"
    return (
        f"- {recipe.seed_document} says: {recipe.claim.text}. {record.cell.architecture} in"
        f" {backend_title(record.cell.backend)}{_variant(record)}, `{recipe.id}` against"
        f" `{recipe.claim.against}`: {accurate}"
        f" ({record.accuracy.test:.3f} against {other.accuracy.test:.3f}; {only} images right only here,"
        f" {only_other} only there, exact McNemar p = {p:.2g}). Training time:"
        f" {_times(training_seconds(other), training_seconds(record))} in all,"
        f" {_times(_seconds_per_epoch(other), _seconds_per_epoch(record))} per epoch (one run each, not"
        " interleaved)."
    )


def _variant(record: Record) -> str:
    cell = record.cell
    return f" ({in_words(cell.variant, cell.precision, cell.device)})" if unusual([record]) else ""


def _times(other: float, own: float) -> str:
    """How two times compare, in words."""
    return f"{other / own:.1f} times less" if own < other else f"{own / other:.1f} times more"


def _seconds_per_epoch(record: Record) -> float:
    return sum(row.train_seconds for row in record.curve) / len(record.curve)


def _published(row: tuple[Recipe, Record]) -> str:
    return "; ".join(f"{figure.accuracy} ({figure.source})" for figure in row[0].published) or "none"


def _field(field: str, row: tuple[Recipe, Record]) -> str:
    return str(getattr(row[1].cell, field))


def _place(record: Record) -> tuple[object, ...]:
    cell = record.cell
    variant = variant_place(cell.variant, cell.precision)
    return (cell.architecture, place(cell.protocol), cell.recipe, cell.backend, variant, cell.seed)
