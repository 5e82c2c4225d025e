"""What becomes of memory that a framework frees: given back to the system, or kept.

A training step frees and asks anew for every activation. glibc maps large ones one by one, and the system has
to clear each page each time: on a CPU that is a tenth of a step and more.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_LARGEST = 2**31 - 1
_GLIBC_MMAP_MAX, _GLIBC_TRIM_THRESHOLD = 65536, 128 * 1024  # as a process begins

_kept = False


def keep_freed(wanted: bool) -> None:
    """Keep freed memory for the next step, in this process, or give it back as glibc begins to. Nothing where
    there is no glibc."""
    global _kept
    if wanted == _kept or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0 if wanted else _GLIBC_MMAP_MAX)
    mallopt(_TRIM_THRESHOLD, _LARGEST if wanted else _GLIBC_TRIM_THRESHOLD)
    _kept = wanted


def keeps_freed() -> bool:
    """Whether this process keeps it."""
    return _kept
