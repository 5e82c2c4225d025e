"""What goes wrong with a file, as hypothesis draws it, and what may come of reading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from backends.base import BenchmarkError

Result = TypeVar("Result")

EXTREMES = tuple(
    value.to_bytes(size, order)
    for size in (2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
)
"""What a size, a count or an offset of this many bytes should not be."""


def examples(count: int) -> settings:
    """The same examples every time, as many as are quick."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with one to three faults: flipped bits, extreme numbers, bytes cut off, missing, inserted or
    repeated. Half of them lie near one of its ends, where formats keep what they go by."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        last = max(len(content) - 1, 0)
        near = st.integers(0, min(last, 200))
        at = draw(st.integers(0, last) | near | near.map(lambda place, last=last: last - place))
        length = draw(st.integers(1, 64))
        fault = draw(st.sampled_from(("flip", "extreme", "cut", "remove", "insert", "repeat")))
        if fault == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif fault == "extreme":
            value = draw(st.sampled_from(EXTREMES))
            content[at : at + len(value)] = value
        elif fault == "cut":
            del content[at:]
        elif fault == "remove":
            del content[at : at + length]
        elif fault == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            content[at:at] = content[at : at + length]
    return bytes(content)


def ours(read: Callable[[], Result]) -> Result | None:
    """What `read` returns, or None where it raises an error of ours; any other error fails the test."""
    try:
        return read()
    except BenchmarkError as error:
        text = str(error)
        assert text and text.isprintable(), f"not one plain line: {text!r}"
        return None
