"""Rules of where results come from: a machine and a version that are known, and a test set that nobody was
trained on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import backends
from benchmarks.harness.images.duplicates import Duplicate
from benchmarks.harness.record import Accuracy, Data, Environment, Record
from benchmarks.report.check.evidence import Evidence, parted
from benchmarks.report.check.files import RUN_AGAIN
from benchmarks.report.check.findings import Finding, Note, Violation
from benchmarks.report.labels import shows_hot_dogs
from benchmarks.report.training_time import is_told

MOST_SHARED = 0.01
"""Share of the test images that may be in the training set too: they can move an accuracy by so much at most,
and the interval of one from 800 images is wider."""
ALARM = 0.98
"""Top-1 accuracy on the photographs of hot dogs above which something is wrong: published results end at .96,
and some of the photographs are mislabelled."""
PUBLISHED = 0.96
"""Where those end. The 95 % interval of an accuracy that alarms begins above it: two wrong of 150 are within
chance of what others reached, and 10 of 800 are not."""
ONE_MACHINE = (
    "run all cells on one machine, on as many threads, or with --no-timing those of each seed; other machines"
    " are other runs"
)
Z = NormalDist().inv_cdf(0.975)
"""Standard deviations on either side of a 95 % interval."""


def environment(run: Evidence) -> Iterator[Finding]:
    """Machine, threads, packages and commit are recorded; nothing was changed since the commit; and all cells
    ran on the same device and number of threads, and on one machine: all of them where one is timed, else
    those of each seed, which is what is compared in accuracy."""
    for record in run.ok:
        if record.environment is None:
            yield Violation(where=record.cell.id, what="no environment in its record", remedy=RUN_AGAIN)
            continue
        for what, remedy in _gaps(record, record.environment):
            yield Violation(where=record.cell.id, what=what, remedy=remedy)
    for name in ("cpu", "cores", "threads", "gpu"):
        for together in _of_one_machine(run.records):
            differing = parted({cell: getattr(found, name) for cell, found in together.items()})
            if differing:
                yield Violation(where=name, what=differing, remedy=ONE_MACHINE)
    differing = parted({record.cell.id: record.cell.device for record in run.records})
    if differing:
        remedy = "keep what ran on another device in a run of its own"
        yield Violation(where="device", what=differing, remedy=remedy)


def leak(run: Evidence) -> Iterator[Finding]:
    """Nothing points to test images that were trained on: no accuracy on photographs of hot dogs that is too
    good, by more than chance, and hardly a test image that is in the training set too."""
    for record in run.ok:
        accuracy = record.accuracy
        if accuracy is not None and _too_good(record.cell.data, accuracy):
            yield Violation(
                where=record.cell.id,
                what=f"accuracy {accuracy.test:.4f} on photographs of hot dogs is too good",
                remedy="look for test images in what it was trained on, its starting weights included",
            )
    if run.manifest is None or not run.manifest.audit.duplicates:
        return
    found, images = run.manifest.audit.duplicates, len(run.manifest.test.files)
    what = f"{len(found)} of {images} test images are in the training set too{_told(found)}"
    if len(found) > MOST_SHARED * images:
        yield Violation(
            where=run.manifest.name,
            what=what,
            remedy=f"look at these pairs, and take them out of one split; {MOST_SHARED:.0%} is the most",
        )
    else:
        yield Note(where=run.manifest.name, what=what)


def wilson_low(share: float, images: int) -> float:
    """Low end of Wilson's 95 % interval of a share of so many images (E. B. Wilson, JASA 22, 1927). By hand:
    the rules run in the frameworks' environments, which have no scipy."""
    if images < 1:
        return 0.0
    middle = share + Z**2 / (2 * images)
    half = Z * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return (middle - half) / (1 + Z**2 / images)


# --- How ------------------------------------------------------------------------------------------


def _too_good(data: Data, accuracy: Accuracy) -> bool:
    """Whether an accuracy on photographs of hot dogs raises the alarm. The drawn images are easier."""
    if not shows_hot_dogs(data):
        return False
    share = min(accuracy.test, 1.0)  # that a record says more is the accuracy rule's to report
    return share > ALARM and wilson_low(share, accuracy.images) > PUBLISHED


def _of_one_machine(records: Sequence[Record]) -> Iterator[dict[str, Environment]]:
    """The environments that belong to one machine, by cell."""
    timed = any(record.status == "ok" and is_told(record) for record in records)
    for seed in [None] if timed else sorted({record.cell.seed for record in records}):
        yield {
            record.cell.id: record.environment
            for record in records
            if record.environment is not None and seed in (None, record.cell.seed)
        }


def _gaps(record: Record, found: Environment) -> Iterator[tuple[str, str]]:
    """What is missing or wrong in an environment, and what to do."""
    if not found.cpu or found.cores < 1 or found.threads < 1:
        yield "its machine is not recorded", RUN_AGAIN
    in_force = record.settings.get("threads", found.threads)
    if in_force != found.threads:
        yield f"{found.threads} threads were asked for and {in_force} in force", RUN_AGAIN
    card = backends.known().get(record.cell.backend)
    if card is not None and not set(card.distributions) & set(found.packages):
        yield f"the version of {card.title} is not among its packages", RUN_AGAIN
    if found.git_commit is None:
        yield "no commit: nobody can get its code", f"run it from a clone of the repository: {RUN_AGAIN}"
    elif found.git_dirty is not False:
        yield (
            f"the code was not that of commit {found.git_commit[:12]}, but changed",
            f"commit the changes, then {RUN_AGAIN}",
        )


def _told(found: tuple[Duplicate, ...]) -> str:
    """How many of which kind, and one of them by name."""
    kinds = Counter("exactly" if one.exact else "saved or cut otherwise" for one in found)
    one = found[0]
    return f" ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}; {one.test} is {one.train})"
