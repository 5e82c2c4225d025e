"""What a worker says of a machine that is too busy, and which training it goes on with."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from benchmarks.harness import environment
from benchmarks.harness.figures import Conditions
from benchmarks.harness.measurement import conditions
from benchmarks.harness.messages import EpochEnd, Event, Notice, Stage
from benchmarks.harness.worker.cell import Epochs, keeper_of

pytestmark = pytest.mark.once

QUIET = Conditions(seconds=60.0, load_average=0.1, others=0.0, stolen=0.0, throttled=None, megahertz=None)
STOLEN = "the hypervisor gave 11% of the machine's time to others"


@pytest.mark.parametrize("noisy", [(), (STOLEN,)], ids=["quiet", "busy"])
def test_a_busy_machine_is_told_after_the_first_epoch(ok_record, monkeypatch, noisy):
    found = msgspec.structs.replace(QUIET, noisy=noisy)
    monkeypatch.setattr(conditions, "Watch", lambda: SimpleNamespace(stop=lambda: found))
    rows = [msgspec.structs.replace(ok_record.curve[0], epoch=number) for number in (1, 2)]
    events: list[Event] = [Stage(text="importing"), *(EpochEnd(row=row, epochs=2) for row in rows)]
    heard: list[Event] = []
    epochs = Epochs(heard.append)
    for event in events:
        epochs.tell(event)
    assert [event for event in heard if not isinstance(event, Notice)] == events
    said = [(place, event.text) for place, event in enumerate(heard) if isinstance(event, Notice)]
    assert said == [
        (2, f"~ {reason}; if that goes on, this cell's speed is compared with nothing") for reason in noisy
    ]
    assert epochs.found == {1: found, 2: found}


def test_no_training_begins_by_one_version_of_the_code_and_ends_by_another(tmp_path, monkeypatch):
    job = SimpleNamespace(key="key", snapshot=str(tmp_path / "cell.checkpoint"))
    before, again = keeper_of(job), keeper_of(job)  # type: ignore[arg-type]
    monkeypatch.setattr(environment, "code_sha256", lambda: "another")
    after = keeper_of(job)  # type: ignore[arg-type]
    assert before is not None and again is not None and after is not None
    assert before.path == after.path and before.key == again.key != after.key
    assert keeper_of(SimpleNamespace(key="key", snapshot="")) is None  # type: ignore[arg-type]
