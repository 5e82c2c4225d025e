"""Rules of the matched track: what backends are compared on must be the same for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.harness.record import Record
from benchmarks.report.check.evidence import Evidence, comparison_of, group_of, grouped, parted, recipe_of
from benchmarks.report.check.files import RUN_AGAIN, SHA256
from benchmarks.report.check.findings import Finding, Violation

DECLARED: Mapping[str, str] = {
    "compiled": "eager, hybridised or a graph: how its users run each framework, and the variant says which",
    "layout": "the order of an image's axes in memory; the gate proves that the values are the same",
    "input_workers": "who else reads ahead; the matched track's batches are the harness's, and hashed",
    "optimizer.class": "each framework's own class; the gate proves that its steps are the same",
    "denormals": "a framework's own default; it costs time and no accuracy, since they are next to nothing",
}
"""Effective settings that may differ between backends, and why. All others must be equal."""

NO_SETTING = "no such setting"


def weights(run: Evidence) -> Iterator[Finding]:
    """The weights that a cell starts from are known by their hash (native cells that the framework's own
    loader gave a published checkpoint apart); in the matched track all cells of an architecture start from
    the same ones, random ones and recipes that declare others apart, and every backend from the same values,
    the new head's included."""
    for record in run.ok:
        start = record.cell.weights
        verified_elsewhere = start.name == "none" or (
            record.cell.track == "native" and start.name != "source"
        )
        known = start.sha256 is not None and SHA256.fullmatch(start.sha256)
        if not known and not (start.sha256 is None and verified_elsewhere):
            what = f"the hash of its weights ({start.name}) is not known"
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)
    for (place, *_), records in grouped(run.ok, _checkpoint).items():
        differing = parted({record.cell.id: record.cell.weights.sha256 for record in records})
        if differing:
            what = f"different weights to start from: {differing}"
            yield Violation(where=place, what=what, remedy="give all of them the same --weights")
    for record in run.matched:
        if not record.cell.weights.initial_sha256:
            what = "the hash of its values before the first step is not known"
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)
    for place, records in grouped(run.matched, _start).items():
        differing = parted({record.cell.id: record.cell.weights.initial_sha256 for record in records})
        if differing:
            what = f"different values before the first step: {differing}"
            yield Violation(
                where=place, what=what, remedy="run those cells again with one version of the code"
            )


def batches(run: Evidence) -> Iterator[Finding]:
    """In the matched track, every backend was given the same bytes in every epoch on images."""
    hashed: list[Record] = []
    for record in run.matched:
        epochs = _image_epochs(record)
        if len(record.batches_sha256) != len(epochs):
            what = f"{len(record.batches_sha256)} hashes of batches for {len(epochs)} epochs on images"
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)
        else:
            hashed.append(record)
    for place, records in grouped(hashed, _start).items():
        if differing := other_batches(records):
            yield Violation(
                where=place,
                what=f"different batches: {differing}",
                remedy="run those cells again from one cache, with one version of the code",
            )


def other_batches(records: Iterable[Record]) -> str | None:
    """The first epoch in which some were given other batches than others, and who; None where all were given
    the same as far as they went."""
    by_epoch: dict[int, dict[str, object]] = {}
    for record in records:
        for epoch, sha256 in zip(_image_epochs(record), record.batches_sha256, strict=False):
            by_epoch.setdefault(epoch, {})[record.cell.id] = sha256
    told = (
        f"epoch {epoch}: {text}" for epoch, hashes in sorted(by_epoch.items()) if (text := parted(hashes))
    )
    return next(told, None)


def gate(run: Evidence) -> Iterator[Finding]:
    """Every matched cell passed the gate before it was trained."""
    for record in run.matched:
        if record.gate is None:
            what, remedy = "no gate: nobody knows whether it computes what the others compute", RUN_AGAIN
        elif not record.gate.passed:
            reason = record.gate.failures[0] if record.gate.failures else "no reason given"
            what, remedy = f"the gate was not passed ({reason})", f"mend the backend, then {RUN_AGAIN}"
        else:
            continue
        yield Violation(where=record.cell.id, what=what, remedy=remedy)


def settings(run: Evidence) -> Iterator[Finding]:
    """The settings in force, read off the live objects, are the same in every seed of a cell and, in the
    matched track, in every backend, but for those that are declared to differ and for the variant `tuned`,
    which is open. (A classifier that is fitted has none.)"""
    for record in run.ok:
        if not record.settings and record.fit_seconds is None:
            yield Violation(where=record.cell.id, what="no settings in its record", remedy=RUN_AGAIN)
    told = [record for record in run.ok if record.settings]
    of_seeds = grouped(told, lambda record: group_of(record.cell.id))
    for group, records in of_seeds.items():
        yield from _differences(group, records, "its seeds were not run under the same conditions")
    firsts = [
        records[0]
        for records in of_seeds.values()
        if records[0].cell.track == "matched" and records[0].cell.variant != "tuned"
    ]
    for comparison, records in grouped(firsts, comparison_of).items():
        yield from _differences(
            comparison, records, "make the backends equal, or declare it in check/fairness.py", but=DECLARED
        )


# --- How ------------------------------------------------------------------------------------------


def _checkpoint(record: Record) -> tuple[str, ...]:
    """What decides the weights file: of a matched cell with pretrained weights what its recipe declares, and
    the user's `--weights` is the same for the whole run; of others the recipe."""
    recipe = recipe_of(record)
    if recipe is None or recipe.track != "matched" or not recipe.pretrained:
        return (record.cell.recipe,)
    return (f"matched {recipe.architecture}", recipe.weights, recipe.published_by or "")


def _start(record: Record) -> str:
    """What decides the first values and the batches of a matched cell: recipe, seed, sizes, sample."""
    cell, training = record.cell, record.training
    sizes = f", {training.image_size} px, batches of {training.batch_size}" if training else ""
    return f"{cell.recipe}, seed {cell.seed}{sizes}{', resampled' if cell.resampled else ''}"


def _image_epochs(record: Record) -> list[int]:
    """The epochs that were trained on images, not on stored features."""
    phases = record.training.phases if record.training else ()
    on_features = {number for number, phase in enumerate(phases, start=1) if phase.on == "features"}
    return [row.epoch for row in record.curve if row.phase not in on_features]


def _differences(
    where: str, records: list[Record], remedy: str, *, but: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    flat = {record.cell.id: dict(_flat(record.settings)) for record in records}
    for key in dict.fromkeys(key for values in flat.values() for key in values):
        if key in (but or {}):
            continue
        differing = parted({cell: values.get(key, NO_SETTING) for cell, values in flat.items()})
        if differing:
            yield Violation(where=where, what=f"{key}: {differing}", remedy=remedy)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under dotted names."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
