"""Rules of what a run's folder holds: readable records of the cells that were planned and of all seeds, made
by one code from one data set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from backends.base import UsageError
from benchmarks.harness.images import manifest
from benchmarks.harness.record import Record
from benchmarks.report.check.evidence import (
    SEED,
    Evidence,
    comparison_of,
    described,
    group_of,
    grouped,
    parted,
    recipe_of,
)
from benchmarks.report.check.findings import Finding, Note, Violation

SHA256 = re.compile("[0-9a-f]{64}")
RUN_AGAIN = "delete its record and --resume"
PLAN_AGAIN = "`run` with the same options and --resume writes it"


def schema(run: Evidence) -> Iterator[Finding]:
    """Every file reads under the current schema, has no field that the schema does not know, and is named
    after its cell, whose id says what its fields say."""
    for unread in run.unread:
        yield Violation(where=unread.file, what=unread.problem, remedy=unread.remedy)
    for record in run.records:
        for what in _contradictions(record):
            yield Violation(where=record.cell.id, what=what, remedy=RUN_AGAIN)


def cells(run: Evidence) -> Iterator[Finding]:
    """Every planned cell has its record, made from what the plan says, and no other cell has one. A cell that
    failed has a record: it is counted, and makes no run invalid unless nothing of its backend is left."""
    for failed in run.failed:
        why = f"{failed.error.type}: {failed.error.message}" if failed.error else "no reason given"
        yield Note(where=failed.cell.id, what=f"failed: {why}")
    yield from _nothing_left(run)
    if run.plan is None:
        if not any(unread.file == "plan.json" for unread in run.unread):
            yield Violation(
                where="plan.json",
                what="none: nobody can tell which cells were planned",
                remedy=f"keep it beside the records; {PLAN_AGAIN}",
            )
        return
    planned = {cell.id: cell.key for cell in run.plan.cells}
    there = {record.cell.id: record for record in run.records}
    unread = {unread.file for unread in run.unread}
    for cell_id, key in planned.items():
        if cell_id not in there:
            if f"{cell_id}.json" not in unread:
                yield Violation(
                    where=cell_id, what="planned, and has no record", remedy="run it with --resume"
                )
        elif there[cell_id].key != key:
            yield Violation(
                where=cell_id,
                what="made from another recipe, other conditions, data or weights than the plan says",
                remedy=RUN_AGAIN,
            )
    for cell_id in there:
        if cell_id not in planned:
            yield Violation(
                where=cell_id, what="not planned", remedy="remove its record, or run it in this run"
            )


def code(run: Evidence) -> Iterator[Finding]:
    """One and the same code made all records, and it is the plan's."""
    made_by: dict[str, object] = {
        record.cell.id: record.environment.code_sha256 for record in run.records if record.environment
    }
    if run.plan is not None:
        made_by["the plan"] = run.plan.identity.code
    differing = parted(made_by)
    if differing:
        yield Violation(
            where="code",
            what=f"mixed: {differing}",
            remedy="run all cells again with one version of the code",
        )


def seeds(run: Evidence) -> Iterator[Finding]:
    """Cells that differ only in their seed have the seeds from 0 up, each once and none left out; every
    backend has as many of them; and no two ended with the same weights."""
    found: dict[str, list[int]] = defaultdict(list)
    for record in run.records:
        found[group_of(record.cell.id)].append(record.cell.seed)
    recorded = {record.cell.id for record in run.records}
    for planned in run.plan.cells if run.plan else ():  # one without a record is the cells' rule's to report
        parts = SEED.fullmatch(planned.id)
        if parts and planned.id not in recorded:
            found[parts["group"]].append(int(parts["seed"]))
    for group, those in found.items():
        yield from _numbering(group, those)
    for comparison, records in grouped(run.records, comparison_of).items():
        counts = {group_of(one.cell.id): len(set(found[group_of(one.cell.id)])) for one in records}
        differing = parted({group: f"{count} seeds" for group, count in counts.items()})
        if differing:
            remedy = f"--seeds {max(counts.values())} --resume for all of them"
            yield Violation(where=comparison, what=differing, remedy=remedy)
    for group, records in grouped(run.ok, lambda record: group_of(record.cell.id)).items():
        yield from _alike(group, records)


def data(run: Evidence) -> Iterator[Finding]:
    """One and the same data set, of known hash: the plan's and the manifest's, with as many images as were
    used."""
    for record in run.records:
        if not SHA256.fullmatch(record.cell.data.sha256):
            yield Violation(where=record.cell.id, what="the data's hash is not known", remedy=RUN_AGAIN)
    hashes: dict[str, object] = {record.cell.id: record.cell.data.sha256 for record in run.records}
    counts: dict[str, object] = {
        record.cell.id: [record.cell.data.train, record.cell.data.test, *record.cell.data.classes]
        for record in run.records
    }
    if run.plan is not None:
        hashes["the plan"] = run.plan.identity.data
    images = run.manifest
    if images is not None:
        hashes[manifest.FILE] = images.sha256
        counts[manifest.FILE] = [len(images.train.files), len(images.test.files), *images.classes]
        for name, split in (("train", images.train), ("test", images.test)):
            if len(split.labels) != len(split.files) or set(split.labels) - set(range(len(images.classes))):
                what = f"{name}: not one class for each image"
                yield Violation(where=manifest.FILE, what=what, remedy=f"delete it; {PLAN_AGAIN}")
    elif not any(unread.file == manifest.FILE for unread in run.unread):
        what = "none: nobody can tell which images these are, and whether both splits share some"
        yield Violation(where=manifest.FILE, what=what, remedy=PLAN_AGAIN)
    for what, values in (("hashes", hashes), ("images and classes", counts)):
        differing = parted(values)
        if differing:
            remedy = "keep what was made from other data in a run of its own"
            yield Violation(where="data", what=f"several {what}: {differing}", remedy=remedy)


# --- How ------------------------------------------------------------------------------------------


def _contradictions(record: Record) -> Iterator[str]:
    """What a cell's fields say otherwise than its id, and than the recipe of that id."""
    cell, recipe = record.cell, recipe_of(record)
    try:
        found = described(record)
    except UsageError as error:
        yield str(error).replace("; ", ", and ")
    else:
        if found != cell.id:
            yield f"its fields are those of {found}"
    said = {"track": cell.track, "architecture": cell.architecture, "protocol": cell.protocol}
    for name, value in said.items():
        if recipe is not None and value != getattr(recipe, name):
            yield f"{name} {value}, and its recipe's is {getattr(recipe, name)}"


def _nothing_left(run: Evidence) -> Iterator[Finding]:
    """Backends that have records, and none of a cell that ended well."""
    remedy = "mend what made them fail (the notes say it), then --resume"
    lost = list(dict.fromkeys(record.cell.backend for record in run.failed))
    ended_well = {record.cell.backend for record in run.ok}
    if lost and not ended_well:
        yield Violation(where="all cells", what="failed: there is no result to judge", remedy=remedy)
        return
    for backend in lost:
        if backend not in ended_well:
            what = f"all cells of {backend} failed: what is left compares the others"
            yield Violation(where=backend, what=what, remedy=remedy)


def _numbering(group: str, those: list[int]) -> Iterator[Finding]:
    twice = sorted({seed for seed in those if those.count(seed) > 1})
    if twice:
        what = f"seed {', '.join(map(str, twice))} several times"
        yield Violation(where=group, what=what, remedy="remove the records that are copies")
    missing = sorted(set(range(max(those) + 1)) - set(those))
    if missing:
        yield Violation(
            where=group,
            what=f"without seed {', '.join(map(str, missing))}, and seed {max(those)} is there",
            remedy=f"--seeds {max(those) + 1} --resume: no seed may be left out",
        )


def _alike(group: str, records: list[Record]) -> Iterator[Finding]:
    """Cells whose training ended with the same weights, as no two seeds can."""
    for sha256, those in grouped(records, lambda record: record.trained_sha256).items():
        if sha256 is not None and len({record.cell.seed for record in those}) > 1:
            numbers = " and ".join(str(record.cell.seed) for record in those)
            yield Violation(
                where=group,
                what=f"seeds {numbers} ended with the same weights: a copy, or the seed changed nothing",
                remedy=RUN_AGAIN,
            )
