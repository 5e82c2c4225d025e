"""Default and tuned side by side: what each variant of a backend is worth, at which accuracy, and when its
compilation has paid for itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean, geometric_mean, median

import msgspec

from benchmarks.harness.figures import Attempt, Throughput
from benchmarks.harness.record import Record
from benchmarks.report.document import Block, Column, Table, filled, first_number, table_of
from benchmarks.report.labels import scored
from benchmarks.report.markdown_table import escape
from benchmarks.report.sections.variants import Timed, Variant, head, variants
from benchmarks.report.verdicts import speed

COLUMNS = {
    "x default": """\
- **x default** is a variant's training images/s over those of its own backend's `default` in float32; over
  several seeds the geometric mean of the ratios, each of two cells of one seed.""",
    "seeds": """\
- Rates of several **seeds** are the geometric mean of those whose timing was sound, other figures medians;
  the accuracy also has its lowest and highest.""",
    "end-to-end images/s": """\
- **End-to-end** images/s are those of whole epochs, input pipeline included: the median of the epochs after
  the first.""",
    "utilisation": """\
- **Utilisation** is the rate of floating-point operations in training, counted once per architecture, over
  the peak of matrix products in the same process, precision and number of threads.""",
    "page faults/image": """\
- **Page faults/image** are the pages of memory (4 KiB as a rule) that the system had to give the process
  anew for each image, in training and **in inference**. Many mean that what a step frees goes back to the
  system and is fetched again by the next; `tuned` keeps it.""",
    "compile s": """\
- **Compile s** is what the first step took beyond a steady one.""",
    "pays after": """\
- **Pays after** is the number of epochs after which the time that a variant saves in each has made up for
  what it compiles longer than the default: "at once" where it does not, "never" where its epochs are no
  shorter.""",
}
"""What they mean that are not in every report; in order."""

CONDITIONS = """\
- "noisy" marks a figure taken while the machine had other work; steps, in each attempt to time them. It is
  shown all the same, and the reasons stand below the table."""

QUIET = "quiet at last"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant takes, in seconds."""

    compilation: float
    epoch: float


def blocks(records: Sequence[Record]) -> tuple[Block, ...]:
    """The variants of each backend beside each other, and which timings were disturbed; none where nothing
    was timed."""
    rows = variants(records)
    if not rows:
        return ()
    told = (speed_table(rows), method(rows), *disturbances(records), untimed(records))
    return tuple(filter(None, told))


def reading(records: Iterable[Record]) -> str:
    """What the columns mean that these records fill."""
    shown = {column.heading for column in _columns(variants(records))}
    meanings = [meaning for heading, meaning in COLUMNS.items() if heading in shown]
    return "\n".join((*meanings, CONDITIONS))


def speed_table(rows: Sequence[Variant]) -> Table:
    """One row for each variant; columns of which nothing is known are left out."""
    return table_of("Speed of each variant of each backend", rows, _columns(rows))


def times_default(row: Variant) -> float | None:
    """Training images/s over the default's: the geometric mean over the seeds that both have, the undisturbed
    ones if there are any; None without such seeds."""
    pairs = [(own.throughput, default.throughput) for own, default in row.pairs()]
    pairs = [pair for pair in pairs if speed.NO_RATE not in map(speed.disturbed, pair)]
    undisturbed = [pair for pair in pairs if not any(map(speed.disturbed, pair))]
    ratios = [
        own.train_images_per_second / default.train_images_per_second for own, default in undisturbed or pairs
    ]
    return geometric_mean(ratios) if ratios else None


def break_even(variant: Cost, default: Cost) -> float:
    """After how many epochs a variant has paid for its compilation: 0 if at once, infinite if never."""
    saved = default.epoch - variant.epoch
    if saved <= 0:
        return math.inf
    return max(0.0, variant.compilation - default.compilation) / saved


def pays_after(row: Variant) -> float | None:
    """The break-even of a variant; None where it has no default beside it, or compilation was not timed."""
    pairs = row.pairs()
    own, default = (_cost([pair[side] for pair in pairs]) for side in (0, 1))
    return None if own is None or default is None else break_even(own, default)


def method(rows: Sequence[Variant]) -> str:
    """By what a rate was called steady; empty where that is not recorded."""
    names = {throughput.steady_by for row in rows for throughput in row.throughputs} - {None}
    return f"Steady: {escape('; '.join(sorted(map(str, names))))}." if names else ""


def disturbances(records: Iterable[Record]) -> tuple[Block, ...]:
    """Cells whose timing was disturbed or had to be repeated: why, and how often."""
    timed = [
        record
        for record in records
        if record.throughput is not None and record.throughput.conditions is not None
    ]
    if not timed:
        return ()
    rows = [record for record in timed if _noisy(record) or _repeated(record)]
    if not rows:
        return ("No timing was disturbed by other work on the machine, and none had to be repeated.",)
    columns: list[Column[Record]] = [
        Column("cell", lambda record: record.cell.id, record=lambda record: record.cell.id),
        Column("while its figures were taken", lambda record: "; ".join(_noisy(record)) or QUIET),
        Column("repeated", lambda record: str(len(_repeated(record))), number=True),
        Column("since before", _before),
    ]
    told = (
        f"Noisy cells: {sum(bool(_noisy(record)) for record in rows)}. Timings that were given up and"
        f" repeated: {sum(len(_repeated(record)) for record in rows)}."
    )
    return told, table_of("Cells whose timing was disturbed", rows, columns)


def untimed(records: Iterable[Record]) -> str:
    """Which cells ended well and have no speed; empty where all have."""
    names = [record.cell.id for record in records if record.status == "ok" and record.throughput is None]
    return f"Not timed: {escape(', '.join(names))}." if names else ""


# --- How ------------------------------------------------------------------------------------------


def _noisy(record: Record) -> tuple[str, ...]:
    return record.throughput.noisy if record.throughput else ()


def _repeated(record: Record) -> tuple[Attempt, ...]:
    return record.throughput.disturbed if record.throughput else ()


def _before(record: Record) -> str:
    reasons = [
        reason
        for attempt in _repeated(record)
        for reason in (*attempt.conditions.noisy, *(() if attempt.steady else ("not steady",)))
    ]
    return "; ".join(dict.fromkeys(reasons))


def _columns(rows: Sequence[Variant]) -> list[Column[Variant]]:
    columns: list[Column[Variant]] = [
        Column("batch", lambda row: str(row.throughputs[0].batch_size), number=True),
        Column("train images/s", partial(_rate, speed.TRAINING), number=True),
        Column("x default", _ratio_text, number=True),
        Column("inference images/s", partial(_rate, speed.INFERENCE), number=True),
        Column("end-to-end images/s", partial(_rate, speed.EPOCHS), number=True),
        Column("test accuracy", _accuracy, order=lambda row: first_number(_accuracy(row))),
        Column("utilisation", _utilization, number=True),
        Column("peak RSS", _peak_rss, number=True),
        Column("page faults/image", partial(_page_faults, speed.TRAINING), number=True),
        Column("in inference", partial(_page_faults, speed.INFERENCE), number=True),
        Column("compile s", _compile_seconds, number=True),
        Column("pays after", _pays_after, number=True, order=_pays_after_order),
    ]
    return [*head(rows), *filled(rows, columns)]


def _cost(cells: Sequence[Timed]) -> Cost | None:
    compilations = [cell.throughput.compile_seconds for cell in cells]
    known = [seconds for seconds in compilations if seconds is not None]
    if not known or not all(cell.record.curve for cell in cells):
        return None
    epochs = [cell.record.curve[-1].images / cell.throughput.end_to_end_images_per_second for cell in cells]
    return Cost(compilation=median(known), epoch=median(epochs))


def _rate(metric: speed.Metric, row: Variant) -> str:
    return speed.rate_text(row.throughputs, metric)


def _ratio_text(row: Variant) -> str:
    """Blank for a default: it would be 1."""
    ratio = None if row.is_default else times_default(row)
    return "" if ratio is None else f"{ratio:.2f}"


def _accuracy(row: Variant) -> str:
    told = scored(timed.record for timed in row.cells)
    found = sorted(record.accuracy.test for record in told if record.accuracy is not None)
    if not found:
        return ""
    spread = f" ({found[0]:.3f} to {found[-1]:.3f})" if len(found) > 1 else ""
    return f"{fmean(found):.3f}{spread}"


def _utilization(row: Variant) -> str:
    share = row.median(lambda throughput: throughput.utilization)
    return "" if share is None else f"{100 * share:.0f} %"


def _peak_rss(row: Variant) -> str:
    found = [timed.record.memory.peak_rss_bytes for timed in row.cells if timed.record.memory is not None]
    return f"{median(found) / 2**30:.2f} GiB" if found else ""


def _page_faults(metric: speed.Metric, row: Variant) -> str:
    """For each image that the metric's rate counts."""

    def per_image(throughput: Throughput) -> float | None:
        found, rate = metric.conditions(throughput), metric.rate(throughput)
        return found.page_faults / rate if found and found.page_faults is not None and rate else None

    return _number(row.median(per_image), ",.0f")


def _compile_seconds(row: Variant) -> str:
    return _number(row.median(lambda throughput: throughput.compile_seconds), ".2f")


def _pays_after(row: Variant) -> str:
    epochs = None if row.is_default else pays_after(row)
    if epochs is None:
        return ""
    if math.isinf(epochs):
        return "never"
    whole = math.ceil(round(epochs, 6))  # a quotient's last digits are no epoch
    return f"{whole} epoch{'' if whole == 1 else 's'}" if whole else "at once"


def _pays_after_order(row: Variant) -> float | None:
    return None if row.is_default else pays_after(row)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
