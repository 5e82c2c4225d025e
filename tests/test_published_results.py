"""What is published under `results/`: made by the rules, and all that is generated from it is up to date."""

from __future__ import annotations

import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.harness.environment import PROJECT
from benchmarks.report import publication

pytestmark = pytest.mark.once

RESULTS = PROJECT / "results"
RUNS = [run for one in publication.folders(RESULTS) for run in publication.runs_in(one)]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "/".join(run.parts[-2:]))
def test_a_published_run_is_valid(run):
    answer = CliRunner().invoke(app, ["check", str(run)])
    assert answer.exit_code == 0, answer.output


def test_reports_plots_and_readme_are_those_that_the_records_make():
    if not RUNS:
        pytest.skip("nothing is published")
    answer = CliRunner().invoke(app, ["results", str(RESULTS), "--check"])
    assert answer.exit_code == 0, answer.output
