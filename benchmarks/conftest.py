"""pytest's entry: the options, one test per cell, and each cell's blocks in pytest-benchmark's tables."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from rich.console import Console

import backends
from backends.base import BenchmarkError
from benchmarks.harness import plan
from benchmarks.harness.gate import scenarios
from benchmarks.harness.plan import Cell
from benchmarks.harness.record import Curves, Gate, Record
from benchmarks.harness.running import runner
from benchmarks.harness.running.progress import Display
from benchmarks.harness.running.session import Session

EXAMPLES = """examples:
  pytest benchmarks                                         all installed backends on the drawn data
  pytest benchmarks --backend torch --protocol frozen       one cell
  pytest benchmarks --data hotdog.zip --profile cpu --run photographs --seeds 3
  pytest benchmarks --weights vgg16.safetensors --backend keras --protocol frozen,scratch
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("transfer-learning benchmarks", description=EXAMPLES)
    for flag in plan.FLAGS:
        if flag.switch:
            group.addoption(flag.name, action="store_true", help=flag.help)
        elif flag.many:
            group.addoption(flag.name, action="append", help=flag.help)
        else:
            group.addoption(flag.name, help=flag.help)


ENVIRONMENT = "BENCHMARKS_ENVIRONMENT"
"""Set by tox to the name of the environment."""
SESSION = pytest.StashKey[Session]()
RECORDS = pytest.StashKey[dict[str, Record]]()


def pytest_configure(config: pytest.Config) -> None:
    if config.option.help or config.option.version:
        return
    display = Display(Console(file=sys.__stdout__))  # a cell runs with pytest's capture switched off
    try:
        values = {flag.key: config.getoption(flag.name) for flag in plan.FLAGS}
        options = plan.parse(values)
        cells = _cells(options)
        if not cells:
            pytest.exit(f"none of the cells asked for is one of {os.environ[ENVIRONMENT]}'s", returncode=0)
        session = Session(options, cells, display)
    except (BenchmarkError, OSError) as error:
        pytest.exit(f"{type(error).__name__}: {error}", returncode=2)
    config.stash[SESSION] = session
    config.stash[RECORDS] = {}
    config.addinivalue_line("markers", "benchmark(...): pytest-benchmark's options for a test")
    if not config.option.benchmark_json:
        names = "-".join(sorted({cell.backend for cell in session.cells}))
        config.option.benchmark_json = str(session.run_folder.folder / f"{names}.json")


def pytest_unconfigure(config: pytest.Config) -> None:
    if SESSION in config.stash:
        config.stash[SESSION].close()


def _cells(options: plan.Options) -> list[Cell]:
    """What was asked for: of the frameworks installed here or, in a tox environment, of that environment's
    backend.

    `tox run -m bench -- OPTIONS` hands the same options to every environment, and each takes its part of
    them.
    """
    environment = os.environ.get(ENVIRONMENT)
    if environment is None:
        return plan.plan(options, runner.available(here_only=True))
    backend = backends.resolve(environment.removeprefix("bench-"))
    cells = plan.plan(options, tuple(backends.known().values()))
    return [cell for cell in cells if cell.backend == backend.name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cells = metafunc.config.stash[SESSION].cells
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", cells, ids=[cell.id for cell in cells])
    if "gate" in metafunc.fixturenames:
        gated = {_gate_name(cell): cell for cell in cells if cell.recipe.track == "matched"}
        metafunc.parametrize("gate", list(gated.values()), ids=list(gated), indirect=True)
    if "curve" in metafunc.fixturenames:
        asked = metafunc.config.stash[SESSION].options.curves
        curved = plan.curved(cells) if asked else []
        metafunc.parametrize("curve", curved, ids=[cell.id for cell in curved], indirect=True)


def _gate_name(cell: Cell) -> str:
    covered = scenarios.coverage_name(*scenarios.coverage_of(cell.recipe))
    network = scenarios.network_of(cell.recipe.model(classes=2, image_size=cell.profile.image_size))
    return f"{cell.backend}-{network.name}-{covered}"


@pytest.fixture
def record(cell: Cell, request: pytest.FixtureRequest) -> Record:
    """The cell's record; the first test that asks has the cell run."""
    records = request.config.stash[RECORDS]
    if cell.id not in records:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            try:
                records[cell.id] = request.config.stash[SESSION].run(cell)
            except BenchmarkError as error:  # the record itself cannot be written
                pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    return records[cell.id]


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """How closely the backend of a matched cell computes what the reference computes."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            found = request.config.stash[SESSION].supplies.gate_of(request.param)
        except BenchmarkError as error:
            pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    assert found is not None
    return found


@pytest.fixture
def curve(request: pytest.FixtureRequest) -> Curves:
    """Images/s of a network against batch size, image size and threads."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            return request.config.stash[SESSION].curves(request.param)
        except BenchmarkError as error:
            pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)


class Replay:
    """A timer that hands out the edges of blocks that another process has timed."""

    def __init__(self) -> None:
        self._edges: deque[float] = deque()

    def load(self, seconds: Iterable[float]) -> int:
        """Queue these durations; returns how many there are."""
        self._edges.clear()
        for duration in seconds:
            self._edges += (0.0, duration)
        return len(self._edges) // 2

    def __call__(self) -> float:
        return self._edges.popleft()


REPLAY = Replay()
Replayed = Callable[[Iterable[float]], None]


@pytest.fixture
def replay(benchmark: Any) -> Replayed:
    """Put durations into pytest-benchmark's table; for tests marked `benchmark(timer=REPLAY)`."""

    def run(seconds: Iterable[float]) -> None:
        rounds = REPLAY.load(seconds)
        benchmark.pedantic(lambda: None, rounds=rounds, iterations=1, warmup_rounds=0)

    return run
