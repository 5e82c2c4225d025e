"""How large a change must be to count."""

from __future__ import annotations

import msgspec


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """What a difference must exceed to count, beside being significant (airspeed velocity's rule): with many
    images or quiet clocks a test shows differences that nobody cares about."""

    accuracy: float = 0.01
    """As a difference: one image in a hundred."""
    speed: float = 0.05
    """Of rates and of memory, as a factor: 1.05 or more, or 1 / 1.05 or less. The clock itself is called
    steady at 5 %; see `harness/measurement/steady.py`."""
