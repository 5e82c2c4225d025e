"""What becomes of numbers below the smallest normal one (2**-126 in float32): kept, or taken for zero.

Processors take many times as long over them, so that a training whose activations or gradients fade is as
slow as its framework is exact. TensorFlow's threads take them for zero from the start; PyTorch's and MXNet's
do not.
"""

from __future__ import annotations

import numpy as np

NORMAL, FACTOR = 2.0**-100, 2.0**-40
"""Their product is denormal in float32 and in bfloat16."""
COUNT = 1 << 18
"""Of products: enough for every thread to get some."""


def described(products: np.ndarray) -> str:
    """In words, of `COUNT` products of NORMAL and FACTOR that a framework has computed."""
    kept = int(np.count_nonzero(products))
    if kept == products.size:
        return "kept"
    return "flushed by some threads" if kept else "flushed"
