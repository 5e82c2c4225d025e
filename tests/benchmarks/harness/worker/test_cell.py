"""What a worker says of a machine that is too busy."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from benchmarks.harness.figures import Conditions
from benchmarks.harness.messages import EpochEnd, Event, Notice, Stage
from benchmarks.harness.worker.cell import warned

pytestmark = pytest.mark.once

QUIET = Conditions(seconds=60.0, load_average=0.1, others=0.0, stolen=0.0, throttled=None, megahertz=None)
STOLEN = "the hypervisor gave 11% of the machine's time to others"


@pytest.mark.parametrize("noisy", [(), (STOLEN,)], ids=["quiet", "busy"])
def test_a_busy_machine_is_told_after_the_first_epoch(ok_record, noisy):
    watch = SimpleNamespace(stop=lambda: msgspec.structs.replace(QUIET, noisy=noisy))
    rows = [msgspec.structs.replace(ok_record.curve[0], epoch=number) for number in (1, 2)]
    events: list[Event] = [Stage(text="importing"), *(EpochEnd(row=row, epochs=2) for row in rows)]
    heard: list[Event] = []
    tell = warned(heard.append, watch)  # type: ignore[arg-type]
    for event in events:
        tell(event)
    assert [event for event in heard if not isinstance(event, Notice)] == events
    said = [(place, event.text) for place, event in enumerate(heard) if isinstance(event, Notice)]
    assert said == [
        (2, f"~ {reason}; if that goes on, this cell's speed is compared with nothing") for reason in noisy
    ]
