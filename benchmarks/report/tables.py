"""Records to Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import backends
from benchmarks.harness.recipe import recipes_by_id
from benchmarks.harness.record import Record
from benchmarks.report.statistics import wilson

ORDER = (
    "finetune",
    "head-then-finetune",
    "last-block",
    "frozen",
    "bottleneck",
    "classifier",
    "scratch",
)  # as a reader compares them: from most to least that is trained, and what reuses nothing last


def conditions(records: Sequence[Record]) -> str:
    """What all records of a run share, in two lines."""
    cell = records[0].cell
    data = cell.data
    ok = sum(record.status == "ok" for record in records)
    lines = [
        f"{ok} of {len(records)} cells ok. Data: {data.name} ({data.train} training and {data.test} test"
        f" images,"
        f" classes {', '.join(data.classes)}; sha256 `{data.sha256[:12]}`). Profile: {cell.profile}."
    ]
    environment = next((record.environment for record in records if record.environment), None)
    if environment:
        lines.append(
            f"Machine: {environment.cpu}, {environment.cores} cores, {environment.ram_bytes / 2**30:.0f} GiB,"
            f" {environment.os}; {environment.gpu or 'no GPU'}."
        )
    return "\n".join(lines)


HEADINGS = (
    "backend",
    "architecture",
    "weights",
    "seed",
    "test accuracy [95 %]",
    "train images/s",
    "inference images/s",
    "epoch s",
    "peak memory",
    "version",
)


def results_table(records: Iterable[Record]) -> str:
    """One row per cell."""
    return table(HEADINGS, [_row(record) for record in records], right=range(5, 9))


OVERVIEW_HEADINGS = (
    "track",
    "protocol",
    "backend",
    "architecture",
    "weights",
    "test accuracy [95 %]",
    "train images/s",
    "inference images/s",
    "epoch s",
)


def overview(records: Sequence[Record]) -> str:
    """All cells in one table, by protocol, under a line that says on what they ran."""
    ordered = sorted(
        records,
        key=lambda record: (
            record.cell.track,
            record.cell.architecture if record.cell.track == "matched" else "",
            place(record.cell.protocol),
            record.cell.backend,
            record.cell.seed,
        ),
    )
    rows = []
    for record in ordered:
        backend, architecture, start, _, accuracy, train, inference, epoch, *_ = _row(record)
        cell = record.cell
        what = cell.protocol if canonical(record) else cell.recipe
        rows.append((cell.track, what, backend, architecture, start, accuracy, train, inference, epoch))
    return conditions(records) + "\n\n" + table(OVERVIEW_HEADINGS, rows, right=range(6, 9))


def comparisons(records: Iterable[Record]) -> list[list[Record]]:
    """Matched cells that differ in nothing but their backend, two or more at a time."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        cell = record.cell
        if cell.track == "matched" and record.curve:
            size = record.training.image_size if record.training else None
            key = (cell.recipe, cell.seed, cell.variant, cell.device, cell.precision, size or 0)
            groups.setdefault(key, []).append(record)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def equality(records: Sequence[Record]) -> str:
    """In words: whether the backends started from the same weights and saw the same batches."""
    lines = []
    shared = comparisons(records)
    for group in shared:
        for what, values in (
            ("initial weights", {record.cell.weights.initial_sha256 for record in group}),
            ("batches", {record.batches_sha256 for record in group}),
        ):
            if len(values) > 1:
                names = ", ".join(record.cell.id for record in group)
                lines.append(f"- **not the same {what}**: {names}")
    backends_seen = len({record.cell.backend for group in shared for record in group})
    if shared and not lines:
        return (
            f"Initial weights, and the bytes of every training batch, were the same in all"
            f" {backends_seen} backends (SHA-256; recipes and seeds compared: {len(shared)})."
        )
    return "\n".join(lines) or "One backend only: nothing to compare its weights and batches with."


def first_epochs_table(records: Iterable[Record]) -> str:
    """Mean training loss of the first epoch in each backend, and how far they are apart."""
    shared = comparisons(records)
    names = sorted({record.cell.backend for group in shared for record in group})
    rows = []
    for group in shared:
        losses = {record.cell.backend: record.curve[0].train_loss for record in group}
        spread = (max(losses.values()) - min(losses.values())) / min(losses.values())
        shown = (f"{losses[name]:.6f}" if name in losses else "" for name in names)
        cell = group[0].cell
        what = cell.protocol if canonical(group[0]) else cell.recipe
        rows.append((cell.architecture, what, str(cell.seed), *shown, f"{spread:.0e}"))
    headings = ("architecture", "protocol", "seed", *map(backend_title, names), "relative spread")
    return table(headings, rows, right=range(3, len(headings)))


PARITY_HEADINGS = (
    "network",
    "backend",
    "trained",
    "logits (float32)",
    "first loss (float32)",
    "gradients (float64)",
    "after 5 steps (float64)",
    "gate",
)


def parity_table(records: Iterable[Record]) -> str:
    """How closely each backend computed what the reference computed, by architecture."""
    gates = {
        (record.gate.network or record.cell.architecture, record.cell.backend, record.gate.mode): record.gate
        for record in records
        if record.gate is not None
    }
    rows = [
        (
            network,
            backend_title(backend),
            mode,
            *(
                "not finite" if error is None else f"{error:.0e}" if error else "0"
                for error in (
                    gate.logit_error,
                    gate.first_loss_error,
                    gate.gradient_error,
                    gate.step_error,
                )
            ),
            "passed" if gate.passed else "failed",
        )
        for (network, backend, mode), gate in sorted(gates.items(), key=lambda item: item[0])
    ]
    return table(PARITY_HEADINGS, rows, right=range(3, 7))


def failures_table(records: Iterable[Record]) -> str:
    """Why cells failed."""
    rows = [
        (record.cell.id, f"{record.error.type}: {record.error.message}")
        for record in records
        if record.error is not None
    ]
    return table(("cell", "reason"), rows)


def environment_table(records: Sequence[Record]) -> str:
    """Each backend's packages and effective settings."""
    rows = []
    seen = set()
    for record in records:
        environment = record.environment
        if environment is None or record.cell.backend in seen:
            continue
        seen.add(record.cell.backend)
        packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
        rows.append(
            (
                backend_title(record.cell.backend),
                f"Python {environment.python}",
                packages,
                str(record.settings.get("threads", "")),
                str(record.settings.get("compiled", "")),
                _commit(record),
            )
        )
    return table(("backend", "Python", "packages", "threads", "compiled", "commit"), rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A GitHub table, aligned in plain text too; nothing in a cell can break it or inject markup."""
    cells = [[escape(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    rights = set(right)
    lines = [_line(row, widths, rights) for row in cells]
    rule = [
        ("-" * (width - 1) + ":") if column in rights else "-" * width for column, width in enumerate(widths)
    ]
    return "\n".join((lines[0], _line(rule, widths, rights), *lines[1:]))


def escape(text: str) -> str:
    """Text as it stands, in one line, with Markdown's and HTML's marks disarmed."""
    flat = " ".join(str(text).split())
    for mark, stand_in in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("`", "'"),
        ("](", "] ("),
    ):
        flat = flat.replace(mark, stand_in)
    return flat


# --- How ------------------------------------------------------------------------------------------


def _line(cells: Sequence[str], widths: Sequence[int], rights: set[int]) -> str:
    padded = [
        cell.rjust(width) if column in rights else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def canonical(record: Record) -> bool:
    """Whether its recipe is what its track, architecture and protocol mean when nothing else is said."""
    recipe = recipes_by_id().get(record.cell.recipe)
    return recipe is not None and recipe.canonical


def place(protocol: str) -> tuple[int, str]:
    """Where a protocol stands in a table."""
    return (ORDER.index(protocol) if protocol in ORDER else len(ORDER), protocol)


def backend_title(backend: str) -> str:
    """A backend's framework, as tables call it."""
    card = backends.known().get(backend)
    return card.title if card else backend


def summary(records: Sequence[Record]) -> str:
    """What the recipe of these cells does, in its own words."""
    recipe = recipes_by_id().get(records[0].cell.recipe)
    return recipe.summary if recipe else ""


def _row(record: Record) -> tuple[str, ...]:
    cell = record.cell
    start = (backend_title(cell.backend), cell.architecture, cell.weights.name, str(cell.seed))
    if record.accuracy is None or record.memory is None:
        return (*start, "failed", "", "", "", "", cell.framework_version)
    interval = wilson(sum(record.accuracy.correct), record.accuracy.images)
    return (
        *start,
        f"{record.accuracy.test:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
        *_speed(record),
        f"{record.memory.peak_rss_bytes / 2**30:.2f} GiB",
        cell.framework_version,
    )


def _speed(record: Record) -> tuple[str, str, str]:
    """Training and inference images/s, and seconds per epoch; nothing where nothing was trained by steps."""
    throughput = record.throughput
    if throughput is None:
        return ("", "", "")
    last = [row for row in record.curve if row.phase == record.curve[-1].phase]
    return (
        f"{'' if throughput.steady else '~'}{throughput.train_images_per_second:.1f}",
        f"{throughput.inference_images_per_second:.1f}",
        f"{median(row.train_seconds for row in last[1:] or last):.1f}",
    )


def _commit(record: Record) -> str:
    environment = record.environment
    if environment is None or environment.git_commit is None:
        return "unknown"
    return environment.git_commit[:10] + (" (with changes)" if environment.git_dirty else "")
