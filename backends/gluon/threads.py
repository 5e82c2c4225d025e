"""How many threads MXNet computes an operation with, set and read where that is decided.

MXNet computes in a worker thread of its engine, and OpenMP keeps a number of threads for each thread that
calls it: it has to be set, and read, from in there. oneDNN's kernels and the BLAS follow it at any time;
MXNet's own kernels were fixed at import to OMP_NUM_THREADS or, without it, to at most half the processors.

Their number may fall in a process, and not rise. MXNet keeps the primitives it made with oneDNN, whose
scratchpads have room for as many threads as there were then; with more they write beyond it, and the process
dies of a damaged heap somewhere later (seen with kernels for AVX2: 32 px, one thread, then two).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import mxnet as mx
from mxnet.base import _LIB, check_call

_fewest: float = math.inf
"""That this process has computed with."""


def use(threads: int) -> None:
    """Compute with so many, or with the fewest that this process has computed with, if that is less."""
    global _fewest
    _fewest = allowed = min(threads, _fewest)
    _in_cpu_worker(lambda: _LIB.omp_set_num_threads(allowed))


def in_use() -> int:
    """As many as it computes with."""
    answers: list[int] = []
    _in_cpu_worker(lambda: answers.append(_LIB.omp_get_max_threads()))
    return answers[0]


class _Context(ctypes.Structure):
    """`mxnet::Context`: kind of device (1 is the CPU) and its number."""

    _fields_ = (("kind", ctypes.c_int), ("index", ctypes.c_int))


def _in_cpu_worker(call: Callable[[], object]) -> None:
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(
        lambda _run, _parameter: call() and None
    )
    context, normal = _Context(1, 0), ctypes.c_int(0)
    check_call(
        _LIB.MXEnginePushSync(
            function, None, None, ctypes.byref(context), None, 0, None, 0, ctypes.byref(normal), 0, b"threads"
        )
    )
    mx.nd.waitall()
