"""The peak that achieved FLOPs are held against, and the proof that the clock waits for the device.

A product of known size is timed twice: with the backend's stopwatch, and by a clock that is stopped when the
product's values lie in host memory, which no framework can claim before it has computed them. A stopwatch
that does not wait shows a rate that the machine does not have."""

from __future__ import annotations

import math
from time import perf_counter

import msgspec

from backends.base import Backend, BenchmarkError

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Of the matrices: the larger ones fill the device, the smaller ones the cache."""
BLOCKS, BLOCK_SECONDS = 5, 0.1
BELIEVED = 1.3
"""Times the rate seen in host memory that a stopwatch may show: noise, and the copy of the product."""


class ClockError(BenchmarkError):
    """A clock that does not wait for the device: nothing it shows is a time."""


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """Matrix products in a process."""

    flops: float
    """Per second, the most that was seen: a peak is a maximum. Products lay in host memory at the end."""
    by_stopwatch: float
    """Per second, the most that the backend's stopwatch showed."""


def measure(backend: Backend) -> Peak:
    """Time products in the session's precision, in the library and on the threads that layers have.

    Raises:
        ClockError: the backend's stopwatch stops before the device has finished.
    """
    kind = backend.session.device.partition(":")[0]
    read = shown = 0.0
    for size in SIZES[kind]:
        product, flops = backend.matrix_product(size), 2 * size**3
        backend.to_numpy(product(1))  # makes kernels
        times = 1
        for _ in range(BLOCKS):
            start = perf_counter()
            backend.to_numpy(product(times))
            seconds = perf_counter() - start
            read = max(read, times * flops / seconds)
            stop = backend.stopwatch()
            product(times)
            shown = max(shown, times * flops / max(stop(), 1e-9))
            times = max(times, math.ceil(BLOCK_SECONDS / seconds * times))
    if shown > BELIEVED * read:
        raise ClockError(
            f"{backend.info.name}'s clock shows matrix products at {shown / 1e9:.0f} GFLOP/s, and their"
            f" values came at {read / 1e9:.0f}: it does not wait for the device, and shows no time;"
            " see `synchronize` and `stopwatch` of the backend"
        )
    return Peak(flops=read, by_stopwatch=shown)
