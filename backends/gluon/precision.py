"""MXNet's own mixed precision, switched on and off again: what is recorded while it is on computes its
convolutions and affine layers in bfloat16.

`amp.init` writes wrappers over MXNet's operators, for the process and for good. What it wrote over is kept
here, and put back for a session in another precision.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mxnet as mx
from mxnet.contrib.amp import amp

from backends.base import DeviceError

PROCESSOR = Path("/proc/cpuinfo")
FLAG = "avx512bw"
"""Of the instructions that oneDNN's kernels in bfloat16 are written in, emulated ones included."""

_before: dict[str, dict[str, Any]] = {}
"""Each module of operators as it was; empty while mixed precision is off."""


def use_mixed(wanted: bool) -> None:
    """Switch mixed precision on or off."""
    if wanted and not _before:
        _before.update({module.__name__: dict(vars(module)) for module in _operators()})
        amp.init(target_dtype="bfloat16")
    elif not wanted and _before:
        for name, own in _before.items():
            vars(sys.modules[name]).update(own)
        _before.clear()
        amp._amp_initialized = False


def require() -> None:
    """Raise DeviceError where MXNet has no kernels in bfloat16 for this processor. By the processor's flags:
    an operation that fails in MXNet's threads may take the process with it, later."""
    if PROCESSOR.exists() and FLAG not in PROCESSOR.read_text().split():
        raise DeviceError(
            "MXNet computes in bfloat16 on processors with AVX-512 only, which this one lacks; use"
            " --precision float32"
        )


def in_use() -> bool:
    """Whether it is on."""
    return bool(_before)


def low(array: mx.nd.NDArray) -> mx.nd.NDArray:
    """In bfloat16."""
    return mx.nd.amp_cast(array, dtype=amp.bfloat16)


def whole(array: mx.nd.NDArray) -> mx.nd.NDArray:
    """In float32, if it was in bfloat16: NumPy has none."""
    return mx.nd.amp_cast(array, dtype="float32")


def _operators() -> list[ModuleType]:
    names = (mx.nd.__name__, mx.sym.__name__)
    return [
        module
        for name, module in sys.modules.items()
        if isinstance(module, ModuleType) and name.startswith(tuple(names))
    ]
