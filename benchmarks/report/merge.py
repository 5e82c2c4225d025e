"""The environments' pytest-benchmark files, merged into one that `pytest-benchmark compare` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backends.base import BenchmarkError, one_line
from benchmarks.harness.cache import write_whole

MERGED = "benchmark.json"


class MergeError(BenchmarkError):
    """A file that is not pytest-benchmark's."""


def merge(folder: Path) -> Path | None:
    """Merge `<folder>/*.json` of pytest-benchmark into `benchmark.json`; None where there is none.

    Raises:
        MergeError: a file cannot be read.
    """
    parts = []
    for path in sorted(folder.glob("*.json")):
        if path.name in (MERGED, "plan.json"):
            continue
        try:
            part: Any = json.loads(path.read_bytes())
        except (ValueError, RecursionError, OSError) as error:
            raise MergeError(
                f"{path}: cannot be read ({one_line(error)}); delete it and report again"
            ) from error
        if isinstance(part, dict) and isinstance(part.get("benchmarks"), list):
            parts.append(part)
    if not parts:
        return None
    merged = {**parts[0], "benchmarks": [entry for part in parts for entry in part["benchmarks"]]}
    target = folder / MERGED
    write_whole(target, json.dumps(merged, indent=1).encode() + b"\n")
    return target
