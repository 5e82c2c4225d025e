"""A finished cell in a few words."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.harness.record import Record
from benchmarks.harness.running.progress import outcome

pytestmark = pytest.mark.once

STOLEN = "the hypervisor gave 11% of the machine's time to others"


def timed(record: Record, **figures: object) -> Record:
    return msgspec.structs.replace(record, throughput=msgspec.structs.replace(record.throughput, **figures))


def test_speeds_that_stand_are_told_as_they_are(measured_record):
    assert "images/s" in outcome(measured_record) and "~" not in outcome(measured_record)


def test_the_first_reason_to_doubt_a_speed_stands_beside_it(measured_record):
    noisy = msgspec.structs.replace(measured_record.throughput.conditions, noisy=(STOLEN,))
    assert f"~ whole epochs: {STOLEN}" in outcome(timed(measured_record, epoch_conditions=noisy))
    unsteady = outcome(timed(measured_record, inference_steady=False, conditions=noisy))
    assert "~ inference: not steady" in unsteady and STOLEN not in unsteady
