"""What the suite itself costs: planning, reading and resuming 10,000 cells, and starting a process for one.

`pytest benchmarks/test_scale.py --profile cpu --run scale`
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import msgspec
import pytest

import backends
from backends.base import BackendInfo
from benchmarks.conftest import SESSION
from benchmarks.harness import environment, figures, plan, record
from benchmarks.harness.plan import Cell
from benchmarks.harness.running import matrix, runner
from benchmarks.harness.running.run import Identity, Planned, Run, key_of

CELLS = 10_000
IMAGES = 800
"""Test images of a record: as many as the photographs have."""
BLOCKS = 60
"""Timed steps of a record."""
ROUNDS = 3


@pytest.fixture(autouse=True)
def asked_for(request: pytest.FixtureRequest) -> None:
    if request.config.stash[SESSION].options.profile == "smoke":
        pytest.skip("no part of a first look; --profile cpu runs it")


def cells() -> list[Cell]:
    """All recipes on all backends, and as many seeds as it takes."""
    known = tuple(backends.known().values())
    each = len(plan.plan(plan.parse({"recipe": ["*"]}), known))
    options = plan.parse({"recipe": ["*"], "seeds": -(-CELLS // each)})
    return matrix.alternating(plan.plan(options, known))[:CELLS]


def test_planning(benchmark: Any) -> None:
    def planned() -> int:
        return len({key_of(cell, data="d", weights="w") for cell in cells()})

    benchmark.group = f"{CELLS:,} cells"
    assert benchmark.pedantic(planned, rounds=ROUNDS, iterations=1) == CELLS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[Planned]]:
    """A run whose cells are all finished."""
    made = Run(str(tmp_path_factory.mktemp("scale")))
    made.records.mkdir()
    planned, described = [], environment.describe(2, 0.5)
    for cell in cells():
        finished = finished_cell(cell, described)
        planned.append(Planned(cell.id, str(finished.key)))
        (made.records / f"{cell.id}.json").write_bytes(record.to_json(finished))
    return made, planned


def finished_cell(cell: Cell, described: record.Environment) -> record.Record:
    """A record with as much in it as a real one has."""
    epoch = record.Epoch(
        epoch=1, train_loss=0.6931471805599453, train_accuracy=0.5, test_accuracy=0.5, train_seconds=21.25,
        input_wait_seconds=0.0625, eval_seconds=4.125, images=2000,
    )  # fmt: skip
    blocks = tuple(0.7310585786300049 + index / 1e6 for index in range(BLOCKS))
    return record.Record(
        key=key_of(cell, data="d", weights="w"),
        cell=record.CellDescription(
            id=cell.id, backend=cell.backend, framework_version="1", track=cell.recipe.track,
            architecture=cell.recipe.architecture, recipe=cell.recipe.id, protocol=cell.recipe.protocol,
            variant=cell.variant, seed=cell.seed, profile=cell.profile.name, device=cell.device,
            precision=cell.precision,
            data=record.Data(name="d", sha256="d" * 64, train=2000, test=IMAGES, classes=("a", "b")),
            weights=record.Weights(name="source", sha256="e" * 64),
        ),
        status="ok",
        curve=tuple(msgspec.structs.replace(epoch, epoch=number) for number in range(1, 6)),
        accuracy=record.Accuracy(test=0.5, correct=(0, 1) * (IMAGES // 2), images=IMAGES),
        throughput=figures.Throughput(
            batch_size=32, image_size=128, steady=True, steps=BLOCKS, train_images_per_second=43.77,
            inference_images_per_second=131.31, end_to_end_images_per_second=41.41, step_seconds=blocks,
            inference_seconds=blocks, parts=figures.Parts(wait=0.003), first_step_seconds=1.5,
        ),
        environment=described,
        started="2026-01-01T00:00:00+00:00",
        seconds=150.5,
    )  # fmt: skip


def test_reading(run: tuple[Run, list[Planned]], benchmark: Any) -> None:
    benchmark.group = f"{CELLS:,} cells"
    found = benchmark.pedantic(lambda: record.read_all(run[0].records), rounds=ROUNDS, iterations=1)
    assert len(found) == CELLS


def test_resuming(run: tuple[Run, list[Planned]], benchmark: Any) -> None:
    made, planned = run
    identity = Identity(data="d", profile="smoke", weights="default", code=environment.code_sha256())

    def decide() -> int:
        return len(made.take_up(identity, planned, resume=True, allow_dirty=False))

    benchmark.group = f"{CELLS:,} cells"
    assert benchmark.pedantic(decide, rounds=ROUNDS, iterations=1) == CELLS


@pytest.mark.parametrize(
    "card", [card for card in backends.known().values() if runner.interpreter_of(card)], ids=lambda c: c.name
)
def test_starting_a_process(card: BackendInfo, benchmark: Any, tmp_path: Path) -> None:
    """A worker that answers what its framework is, against the framework's import alone, in alternation."""
    python, imported = runner.interpreter_of(card), []

    def bare_import() -> None:
        begin = perf_counter()
        module = f"backends.{card.name}.backend"
        subprocess.run([str(python), "-c", f"import {module}"], check=True, cwd=environment.PROJECT)
        imported.append(perf_counter() - begin)

    benchmark.group = "a process for a cell"
    benchmark.pedantic(
        lambda: runner.probe(card, log=tmp_path / "log"), setup=bare_import, rounds=5, iterations=1
    )
    benchmark.extra_info.update(backend=card.name, import_seconds=median(imported))
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["added_seconds"] = benchmark.stats.stats.median - median(imported)
