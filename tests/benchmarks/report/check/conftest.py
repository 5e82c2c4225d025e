from __future__ import annotations

import pytest

from benchmarks.harness.record import Record
from tests.benchmarks.report.check.drafts import Draft


@pytest.fixture
def draft(measured_record: Record) -> Draft:
    """A valid run."""
    return Draft(measured_record)
