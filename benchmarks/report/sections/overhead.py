"""What the harness costs and saves, from the JSON of `pytest benchmarks/test_overhead.py` and
`test_tuning.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.record import RecordError
from benchmarks.report.document import Column, Table, filled, table_of
from benchmarks.report.labels import backend_title

TARGETS = {
    ("leanest", "pytorch"): 0.97,
    ("leanest", "gluon"): 0.97,
    ("leanest", "keras"): 0.97,
    ("textbook", "pytorch"): 1.4,
    ("textbook", "gluon"): 1.25,
    ("textbook", "keras"): 1.1,
    ("default", "pytorch"): 1.4,
    ("default", "gluon"): 1.2,
    ("default", "keras"): 1.1,
}
"""Ratios that this project set itself, by what the harness is held against and backend."""

Entry = dict[str, Any]
"""A test's `extra_info`."""
NETWORK = Column[Entry]("network", lambda entry: str(entry.get("architecture", "")))


def overhead_table(folder: Path) -> Table:
    """How many times as fast the harness is as what it is held against.

    Raises:
        RecordError: a file cannot be read, or none holds a comparison.
    """
    rows = _sorted(folder, tuned_apart=False)
    columns = (
        Column[Entry]("against", lambda entry: str(entry["against"])),
        Column[Entry]("backend", lambda entry: backend_title(entry["backend"])),
        *filled(rows, [NETWORK]),
        Column[Entry]("variant", _variant),
        Column[Entry]("px", lambda entry: str(entry["image_size"]), number=True),
        Column[Entry]("ratio", lambda entry: f"{entry['ratio']:.3f}", number=True),
        Column[Entry]("95 %", _interval),
        Column[Entry]("pairs", lambda entry: str(entry["pairs"]), number=True),
        Column[Entry]("target", _target, number=True),
        Column[Entry]("peak memory", _memory, number=True),
    )
    return table_of("The harness against other loops", rows, columns)


def tuning_table(folder: Path) -> Table:
    """What each thing that an expert may switch on brings: the evidence for what `tuned` has.

    Raises:
        RecordError: a file cannot be read, or none holds a comparison.
    """
    rows = _sorted(folder, tuned_apart=True)
    columns = (
        Column[Entry]("backend", lambda entry: backend_title(entry["backend"])),
        *filled(rows, [NETWORK]),
        Column[Entry]("switched on", lambda entry: str(entry["tuning"])),
        Column[Entry]("px", lambda entry: str(entry["image_size"]), number=True),
        Column[Entry]("ratio", lambda entry: f"{entry['ratio']:.3f}", number=True),
        Column[Entry]("95 %", _interval),
        Column[Entry]("first step s", lambda entry: f"{entry['first_step_seconds']:.1f}", number=True),
        Column[Entry]("logits differ by", lambda entry: f"{entry['logit_difference']:.0e}", number=True),
    )
    return table_of("What each tuning brings", rows, columns)


def _sorted(folder: Path, *, tuned_apart: bool) -> Sequence[Entry]:
    found = [entry for entry in _entries(folder) if ("tuning" in entry) == tuned_apart]
    if not found:
        raise RecordError(f"{folder}: no comparison for the table of that name; see test_overhead.py")
    kinds = list(dict.fromkeys(against for against, _ in TARGETS))

    def place(entry: Entry) -> tuple[object, ...]:
        what = (entry["backend"], entry.get("tuning", ""), entry.get("variant", ""), entry["image_size"])
        return kinds.index(entry["against"]), *what

    return sorted(found, key=place)


def _entries(folder: Path) -> Iterator[Entry]:
    for path in sorted(folder.glob("*.json")):
        try:
            benchmarks = json.loads(path.read_bytes())["benchmarks"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise RecordError(f"{path}: not a file of pytest-benchmark's ({error})") from error
        yield from (entry["extra_info"] for entry in benchmarks if "ratio" in entry["extra_info"])


def _variant(entry: Entry) -> str:
    return f"{entry['variant']}, {entry['precision']}"


def _interval(entry: Entry) -> str:
    interval = entry["ratio_interval"]
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _target(entry: Entry) -> str:
    target = TARGETS.get((entry["against"], entry["backend"]))
    return "" if target is None else f"{target:.2f}"


def _memory(entry: Entry) -> str:
    ratio = entry.get("peak_rss_ratio")
    return "" if ratio is None else f"x {ratio:.2f}"
