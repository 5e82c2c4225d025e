"""What the tests that compare share: the pictures, the job, the processes, and how a result is reported."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import backends
from backends.base import BackendInfo, ImageList
from backends.optimizers import SGD
from benchmarks.comparison.sides import Job, Side
from benchmarks.comparison.turns import REST, Comparison, in_turns, steps_per_turn
from benchmarks.comparison.worker import Worker
from benchmarks.conftest import SESSION, Replayed
from benchmarks.handwritten import Task
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.recipe import recipe_of
from benchmarks.harness.running import runner

TURN_SECONDS = 0.5
"""The least a turn of steps lasts."""

GENTLE = 1 / 64
"""Of the recipe's learning rate. At the whole one a fresh network amplifies the last bit a thousandfold in
three steps; and one batch is to be trained on for minutes."""

DECAY = 0.01
"""More than any recipe's: enough to be missed where it is left out."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it all, by profile."""

    sizes: tuple[int, ...]
    """Image sizes in pixels, the smallest first."""
    batch_size: int
    images: tuple[int, ...]
    """In an epoch, by image size."""
    seconds: float
    """That a comparison goes on for, at least."""


SMOKE = Scale(sizes=(48,), batch_size=16, images=(32,), seconds=3)
FULL = Scale(sizes=(96, 224), batch_size=32, images=(320, 64), seconds=30)
"""Of a CPU; sizes and batch size are those that the targets name."""


INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
BACKENDS = pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)


class Bench:
    """One test's: makes processes, and ends them with it."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path, card: BackendInfo) -> None:
        session = request.config.stash[SESSION]
        file = request.path.name
        if not any(argument.partition("::")[0].endswith(file) for argument in request.config.args):
            pytest.skip(f"takes minutes: `pytest benchmarks/{file}` runs it")
        if card.name not in {cell.backend for cell in session.cells}:
            pytest.skip("not a backend that was asked for")
        if importlib.util.find_spec(f"benchmarks.handwritten.{card.name}") is None:
            pytest.skip(f"nobody has written benchmarks/handwritten/{card.name}.py yet")
        if session.options.device != "cpu":
            pytest.skip("the hand-written loops, and what pays, are a CPU's")
        options = session.options
        if len(options.arch) > 1:
            pytest.skip("one --arch at a time")
        self.card, self.data = card, session.supplies.data
        self.architecture = options.arch[0] if options.arch else card.architectures[0]
        self.scale = SMOKE if options.profile == "smoke" else FULL
        if options.image_size is not None:
            self.scale = msgspec.structs.replace(
                self.scale, sizes=(options.image_size,), images=self.scale.images[:1]
            )
        self._folder, self._stack, self._made = folder, contextlib.ExitStack(), 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *raised: object) -> None:
        """End the processes."""
        self._stack.close()

    def job(self, sides: Sequence[Side], *, image_size: int, images: int) -> Job:
        """With the matched `finetune` recipe of the architecture; but with one optimiser for all, which has
        everything. Skips where loops written by hand do not know the architecture."""
        own = self.card.architectures[0]
        if self.architecture != own and any(side.written != "harness" for side in sides):
            pytest.skip(f"the hand-written loops train {own}")
        recipe = recipe_of(f"matched-{self.architecture}-finetune")
        rate = GENTLE * recipe.phases[0].optimizer.learning_rate
        optimizer = SGD(learning_rate=rate, momentum=0.9, weight_decay=DECAY, head_multiplier=10.0)
        task = Task(
            spec=recipe.model(classes=len(self.data.classes), image_size=image_size),
            optimizer=optimizer,
            batch_size=self.scale.batch_size,
            threads=runner.threads(),
            tuned=False,
        )
        chosen = pictures(self.data, images, self._folder / f"images-{images}")
        return Job(
            backend=self.card.name,
            sides=tuple(sides),
            task=task,
            transform=recipe.transform(image_size),
            images=chosen,
        )

    def worker(self, job: Job) -> Worker:
        """A process with the job's sides."""
        python = runner.interpreter_of(self.card)
        assert python is not None
        self._made += 1
        cache, log = self._folder / f"cache-{self._made}", self._folder / f"log-{self._made}"
        return self._stack.enter_context(Worker(python, job, cache=cache, log=log))


def size_at(place: int, bench: Bench) -> int:
    """One of the scale's image sizes; skips where it has none there."""
    if place >= len(bench.scale.sizes):
        pytest.skip("--image-size names one size, and a first look takes one; else there are two")
    return bench.scale.sizes[place]


def pictures(data: DataSet, count: int, folder: Path) -> ImageList:
    """A folder of so many training images, spread over the classes."""
    whole = data.train
    stride = max(1, len(whole.files) // count)
    places = range(0, len(whole.files), stride)[:count]
    for place in places:
        target = folder / whole.files[place]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(whole.root, whole.files[place]), target)
    return ImageList(
        root=str(folder),
        files=tuple(whole.files[place] for place in places),
        labels=tuple(whole.labels[place] for place in places),
        classes=whole.classes,
    )


def compared_steps(base: tuple[Worker, int], other: tuple[Worker, int], seconds: float) -> Comparison:
    """Seconds per step of two sides, of as many steps in each turn. Both have taken one already."""
    warm = [worker.run(side, 1) for worker, side in (base, other)]
    times = steps_per_turn(min(warm), TURN_SECONDS)
    found = in_turns(
        partial(base[0].run, base[1], times),
        partial(other[0].run, other[1], times),
        seconds=seconds,
        rest=0.0 if base[0] is other[0] else REST,
    )
    return Comparison(
        base=tuple(value / times for value in found.base), other=tuple(value / times for value in found.other)
    )


def report(benchmark: Any, replay: Replayed, found: Comparison, *, group: str, **more: Any) -> None:
    """Put the other side's turns into pytest-benchmark's table, and how it compares beside them."""
    benchmark.group = group
    benchmark.extra_info.update(
        ratio=found.ratio,
        ratio_interval=found.interval,
        pairs=len(found.base),
        base_seconds=found.base,
        threads=runner.threads(),
        **more,
    )
    replay(found.other)
