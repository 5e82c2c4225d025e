"""The peak that achieved FLOPs are held against, and the proof that the clock waits for the device.

A product of known size is timed twice: with the backend's stopwatch, and by a clock that is stopped when the
product's values lie in host memory, which no framework can claim before it has computed them. A stopwatch
that does not wait shows a rate that the machine does not have."""

from __future__ import annotations

import math
from statistics import median
from time import perf_counter

from backends.base import Backend, BenchmarkError

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Of the matrices: the larger ones fill the device, the smaller ones the cache."""
BLOCKS, BLOCK_SECONDS = 5, 0.1
SEEN = 0.7
"""Share of the time until the product's values lie in host memory that the stopwatch has to see: all but the
copy. Both time the same products, so that nothing that disturbs them sets the two apart."""


class ClockError(BenchmarkError):
    """A clock that does not wait for the device: nothing it shows is a time."""


def measure(backend: Backend) -> float:
    """Floating-point operations per second of matrix products in the session's precision, in the library and
    on the threads that layers have: the most that was seen, as a peak is a maximum.

    Raises:
        ClockError: the backend's stopwatch stops before the device has finished.
    """
    kind = backend.session.device.partition(":")[0]
    read, shown, kept = 0.0, 0.0, []
    for size in SIZES[kind]:
        product, flops = backend.matrix_product(size), 2 * size**3
        backend.to_numpy(product(1))  # makes kernels
        times = 1
        for _ in range(BLOCKS):
            start, stop = perf_counter(), backend.stopwatch()
            result = product(times)
            by_stopwatch = max(stop(), 1e-9)
            backend.to_numpy(result)
            seconds = perf_counter() - start
            read, shown = max(read, times * flops / seconds), max(shown, times * flops / by_stopwatch)
            if times > 1:  # the copy of a single product takes its time too
                kept.append(by_stopwatch / seconds)
            times = max(times + 1, math.ceil(BLOCK_SECONDS / seconds * times))
    if median(kept) < SEEN:
        raise ClockError(
            f"{backend.info.name}'s clock shows matrix products at {shown / 1e9:.0f} GFLOP/s, and their"
            f" values came at {read / 1e9:.0f}: it does not wait for the device, and shows no time;"
            " see `synchronize` and `stopwatch` of the backend"
        )
    return read
