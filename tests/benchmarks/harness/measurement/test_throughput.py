from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.measurement import throughput

pytestmark = pytest.mark.once


class Compiling:
    """A backend whose first answer to a batch of a new size takes longer."""

    SECONDS = 0.2

    def __init__(self) -> None:
        self._seen = set[int]()

    def logits(self, batch: tuple[np.ndarray, ...]) -> np.ndarray:
        size = len(batch[0])
        if size not in self._seen:
            self._seen.add(size)
            time.sleep(self.SECONDS)
        return np.zeros((size, 2), np.float32)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array

    def stopwatch(self) -> Any:
        start = time.perf_counter()
        return lambda: time.perf_counter() - start


def test_compilation_is_in_no_latency():
    found = throughput.latency(Compiling(), (np.zeros((1, 8, 8, 3), np.uint8),), limit=0.0)  # type: ignore[arg-type]
    assert len(found.seconds) == throughput.FEWEST_LATENCIES
    assert max(found.seconds) < Compiling.SECONDS
