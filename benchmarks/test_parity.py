"""The gate of every matched cell: its backend computes what the reference computes, or is not timed.

`pytest benchmarks/test_parity.py --track matched --arch resnet18,resnet18_v2,vgg16,efficientnet_lite0`
compares everything that is installed, and times nothing.
"""

from __future__ import annotations

import pytest

from benchmarks.harness.record import Gate


def test_parity(gate: Gate) -> None:
    if not gate.passed:
        pytest.fail("; ".join(gate.failures), pytrace=False)
    for kind, tolerance in gate.tolerances.items():
        error = getattr(gate, f"{kind}_error")
        assert error is not None and error <= tolerance
