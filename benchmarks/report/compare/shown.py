"""A comparison of two runs as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.report.compare.changes import Change
from benchmarks.report.compare.verdicts import (
    ANOTHER_MACHINE,
    DISTURBED,
    ONE_SEED,
    ONE_SEED_IN_ONE,
    RATE,
    Comparison,
    Effect,
    LeftOut,
    Metric,
    MetricTable,
    Row,
)
from benchmarks.report.document import Column, Table, table_of
from benchmarks.report.markdown_table import escape, table
from benchmarks.report.verdicts.words import (
    MOST_RATIO,
    NOTHING,
    count_of,
    first_few,
    no_difference_shown,
    p_text,
)


def tables(comparison: Comparison) -> list[Table]:
    """One for each metric of which something was tested: figures without a test are no comparison."""
    return [_table(one) for one in comparison.tables if _has_tests(one)]


def sentence(comparison: Comparison) -> str:
    """What it comes to."""
    worse, better = comparison.rows("worse"), comparison.rows("better")
    found = [_told(metric, row) for metric, row in worse]
    found += [f"{cell.cell} failed ({cell.reason})" for cell in comparison.failed]
    if not comparison.allow_missing:
        found += [f"{cell} is missing" for cell in comparison.missing]
    if not comparison.tested and not found:
        return "Nothing could be tested."
    count = count_of(len(found), "regression") if found else "No regression shown"
    text = f"{count} in {count_of(comparison.tested, 'comparison')}"
    if found:
        text += f": {first_few(found)}"
    text += f"; {len(better)} better"
    if better:
        text += f": {first_few([_told(metric, row) for metric, row in better])}"
    untested = len(comparison.rows("not tested"))
    return f"{text}; {untested} not tested." if untested else f"{text}."


def notes(comparison: Comparison) -> list[str]:
    """What is to be known of the figures, and what only one run has."""
    return list(_notes(comparison))


def changes(comparison: Comparison) -> list[str]:
    """What else differs, a line each."""
    return [_change(one) for one in comparison.changes]


def lists(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Notes and changes under their headings, as far as there are any."""
    found = [("Notes", notes(comparison)), ("What else is not the same in A and B", changes(comparison))]
    return [(heading, lines) for heading, lines in found if lines]


def markdown(comparison: Comparison) -> str:
    """All of it, for a comment under a change of the code."""
    parts = [f"**{escape(sentence(comparison))}**"]
    parts += [f"{escape(one.name)}\n\n{table(one)}" for one in tables(comparison)]
    for heading, lines in lists(comparison):
        parts.append(f"{heading}\n\n" + "\n".join(f"- {escape(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _has_tests(content: MetricTable) -> bool:
    return any(row.effect is not None for row in content.rows)


# --- Tables ---------------------------------------------------------------------------------------


def _table(content: MetricTable) -> Table:
    metric = content.metric
    change = "B / A [95 %]" if metric.by_ratio else "B - A [95 %]"
    columns: list[Column[Row]] = [
        Column("cell", lambda row: row.cell),
        Column("A", lambda row: _figure(row.baseline, metric), number=True),
        Column("B", lambda row: _figure(row.candidate, metric), number=True),
        Column(change, lambda row: _effect(row.effect, metric) if row.effect else "", number=True),
        Column("p", lambda row: p_text(row.effect.p) if row.effect else "", number=True),
        Column("verdict", lambda row: _verdict(row, metric)),
    ]
    unit = f", {metric.unit}" if metric.unit else ""
    return table_of(f"{metric.name}{unit}", content.rows, columns)


def _verdict(row: Row, metric: Metric) -> str:
    if row.effect is None:
        return f"{row.verdict} ({row.reason})"
    if row.verdict == "no difference shown":
        return no_difference_shown(_least(row.effect.least, metric))
    return row.verdict


def _figure(value: float | None, metric: Metric) -> str:
    if value is None:
        return ""
    if metric.unit == RATE:
        return f"{value:.1f}"
    return f"{value:.2f}" if metric.by_ratio else f"{value:.3f}"


def _effect(effect: Effect, metric: Metric) -> str:
    form = ".3f" if metric.by_ratio else "+.3f"
    return f"{effect.estimate:{form}} [{effect.low:{form}}, {effect.high:{form}}]"


def _least(value: float, metric: Metric) -> str:
    if value > (MOST_RATIO - 1 if metric.by_ratio else 1):
        return NOTHING
    return f"{1 + value:.3f}" if metric.by_ratio else f"{value:.3f}"


def _told(metric: Metric, row: Row) -> str:
    return f"{row.cell} {metric.name} {_effect(row.effect, metric)}" if row.effect else row.cell


# --- Notes ----------------------------------------------------------------------------------------


def _notes(comparison: Comparison) -> Iterator[str]:
    reasons = {row.reason for _, row in comparison.rows("not tested")}
    untested: dict[str, list[str]] = {}
    for content in comparison.tables:
        if not _has_tests(content):
            why = ", ".join(sorted({row.reason for row in content.rows}))
            untested.setdefault(why, []).append(content.metric.name)
    for why, metrics in untested.items():
        yield f"Not tested: {', '.join(metrics)} ({why})."
    machines = [_change(change) for change in comparison.changes if change.what in MACHINE]
    if ANOTHER_MACHINE in reasons:
        told = "; ".join(machines) or "a record does not say on which"
        yield (
            f"Speeds and memory were not compared: another machine ({told}); --across-machines compares them."
        )
    elif comparison.across_machines and machines:
        told = "; ".join(machines)
        yield f"Speeds were compared across machines ({told}): a difference may be the machine's."
    if reasons & {ONE_SEED, ONE_SEED_IN_ONE}:
        yield (
            "One seed says how one network came out, and how fast it was once: it takes two or more in each"
            " run to tell a change from what another training would have given; run both with --seeds 5."
        )
    rates = any(table.metric.unit == RATE and _has_tests(table) for table in comparison.tables)
    for name, cells in zip("AB", comparison.disturbed, strict=True):
        if cells and (rates or DISTURBED in reasons):
            yield f"Left out of the rates of {name}: {first_few([_because(cell) for cell in cells])}."
    if DISTURBED in reasons:
        yield "Rates are tested where two seeds or more in each run were steady, and the machine was quiet."
    single = [row for table in comparison.tables if not table.metric.by_ratio for row in table.rows]
    if any(row.effect and row.seeds == (1, 1) for row in single):
        yield "Accuracy of one seed: the test is of these two networks, and says nothing of another seed's."
    for what, ids in (
        ("Only in A" if comparison.allow_missing else MISSING, comparison.missing),
        ("Failed in A, not in B", comparison.failed_and_gone),
        ("Only in B", comparison.candidate_only),
        ("Failed in A, ok in B", comparison.recovered),
        ("Failed in both", comparison.failed_in_both),
    ):
        if ids:
            yield f"{what}: {first_few(ids)}."
    if comparison.tables and not comparison.changes:
        yield "Machine, software, code, settings and input are the same in A and B, as far as records tell."


MISSING = "Only in A, which counts as a regression unless --allow-missing is given"
MACHINE = ("cpu", "cores", "threads", "ram", "gpu")
"""Changes that make another machine; see `changes.Machine`."""


def _because(cell: LeftOut) -> str:
    return f"{cell.cell} ({cell.reason})"


def _change(change: Change) -> str:
    where = f" ({first_few(change.where)})" if change.where else ""
    return f"{change.what}: {change.before} -> {change.after}{where}"
