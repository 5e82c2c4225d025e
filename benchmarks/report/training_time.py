"""What a training took: what every table and plot of it counts."""

from __future__ import annotations

from itertools import accumulate

from benchmarks.harness.record import Record


def is_told(record: Record) -> bool:
    """Whether its seconds are: with `--no-timing` a cell may have run beside other work, and says no word
    about speed."""
    return record.throughput is not None or not record.curve


def before_epochs(record: Record) -> float:
    """Seconds of extracting the training features, and of fitting a classifier."""
    extracted = sum(one.seconds for one in record.extractions if one.split == "train")
    return extracted + (record.fit_seconds or 0.0)


def after_each_epoch(record: Record) -> tuple[float, ...]:
    """Seconds from the beginning to the end of each epoch; no evaluation."""
    return tuple(accumulate((row.train_seconds for row in record.curve), initial=before_epochs(record)))[1:]


def training_seconds(record: Record) -> float:
    """All of it; no evaluation."""
    return (before_epochs(record), *after_each_epoch(record))[-1]
