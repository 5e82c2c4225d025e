"""The words of a report that a newcomer does not know, in one line each."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.record import Record
from benchmarks.report.labels import PROTOCOLS

TRACKS = {
    "matched": "one network, the same weights and the same bytes in every framework",
    "native": "each framework with its own network and idioms",
}
TRAINED = {
    "finetune": "everything is trained",
    "head-then-finetune": "the head, and then everything",
    "last-block": "the last block and the head",
    "frozen": "the head alone",
    "bottleneck": "the head alone, on stored features",
    "classifier": "a classical classifier, on stored features",
    "scratch": "everything, from random weights",
}
"""What a protocol trains."""


def words(records: Sequence[Record]) -> str:
    """What the tracks and protocols of these records are; only these."""
    tracks = {record.cell.track for record in records}
    protocols = {record.cell.protocol for record in records}
    told = [f"*{name}*: {meaning}" for name, meaning in TRACKS.items() if name in tracks]
    told += [f"*{name}*: {TRAINED[name]}" for name in PROTOCOLS if name in protocols]
    told += ["*seed*: a training with other random numbers, the same ones in every framework"] if told else []
    return f"{'; '.join(told)}." if told else ""
