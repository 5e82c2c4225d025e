"""What the harness costs, and what it saves: its training against the leanest loop that can be written by
hand, against a textbook's, and its best variant against its default.

`pytest benchmarks/test_overhead.py --data hotdog.zip --profile cpu --run overhead`, on a machine that does
nothing else. In `extra_info` is `ratio`: how many times as fast the harness is as what it is held `against`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.base import BackendInfo, Variant
from benchmarks.comparison.entry import BACKENDS, Bench, compared_steps, report, size_at
from benchmarks.comparison.sides import Job, Side
from benchmarks.comparison.turns import REST, Comparison, in_turns
from benchmarks.conftest import REPLAY, Replayed

EPOCHS = 5
"""Of the recipes: what decoding once is spread over."""
STEPS_FOR_MEMORY = 4
"""The second has all that a step needs; two more for what an allocator does late."""


@pytest.fixture
def bench(card: BackendInfo, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with Bench(request, tmp_path, card) as made:
        yield made


@BACKENDS
@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("variant", ["default", "tuned"])
def test_leanest(card: BackendInfo, variant: Variant, bench: Bench, replay: Replayed, benchmark: Any) -> None:
    """A step on a batch in memory: both in one process, from the same weights to the same weights."""
    size, scale = size_at(0, bench), bench.scale  # the smallest: there, what does not compute weighs most
    harness, leanest = (
        Side(written="harness", work="step", variant=variant),
        Side(written="leanest", work="step", variant=variant),
    )
    job = bench.job([harness, leanest], image_size=size, images=scale.batch_size)
    with bench.worker(job) as both:
        difference = both.same_work()
        found = compared_steps(base=(both, 1), other=(both, 0), seconds=scale.seconds)
    peaks = [_peak(bench, msgspec.structs.replace(job, sides=(side,))) for side in (harness, leanest)]
    report(
        benchmark,
        replay,
        found,
        group=f"a training step, {size} px",
        backend=card.name,
        architecture=bench.architecture,
        against="leanest",
        variant=variant,
        precision="float32",
        image_size=size,
        batch_size=scale.batch_size,
        difference=difference,
        peak_rss_ratio=peaks[0] / peaks[1],
    )


def _peak(bench: Bench, job: Job) -> float:
    """Bytes, of a process that holds one side alone."""
    with bench.worker(job) as alone:
        alone.run(0, STEPS_FOR_MEMORY)
        return alone.peak_rss_bytes()


@BACKENDS
@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("place", [0, 1], ids=["small", "large"])
def test_textbook(card: BackendInfo, place: int, bench: Bench, replay: Replayed, benchmark: Any) -> None:
    """Epochs from files, decoding included. The harness decodes once, and each of its epochs is charged with
    a fifth of that."""
    size, scale = size_at(place, bench), bench.scale
    images = scale.images[place]
    harness = Side(written="harness", work="epoch", variant="tuned")
    textbook = Side(written="textbook", work="epoch")
    ours, theirs = (
        bench.worker(bench.job([side], image_size=size, images=images)) for side in (harness, textbook)
    )
    for worker in (ours, theirs):
        worker.run(0, 1)  # compiles, and reads the files into the system's cache
    found = in_turns(partial(theirs.run, 0, 1), partial(ours.run, 0, 1), seconds=scale.seconds, rest=REST)
    assert ours.decode_seconds is not None
    charged = tuple(seconds + ours.decode_seconds / EPOCHS for seconds in found.other)
    report(
        benchmark,
        replay,
        Comparison(base=found.base, other=charged),
        group=f"an epoch of {images} images, {size} px",
        backend=card.name,
        architecture=bench.architecture,
        against="textbook",
        variant="tuned",
        precision="float32",
        image_size=size,
        batch_size=scale.batch_size,
        images=images,
        decode_seconds=ours.decode_seconds,
        decoding_spread_over_epochs=EPOCHS,
        ratio_without_decoding=found.ratio,
    )


@BACKENDS
@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("place", [0, 1], ids=["small", "large"])
def test_default(card: BackendInfo, place: int, bench: Bench, replay: Replayed, benchmark: Any) -> None:
    """A step of `tuned` in bfloat16 against one of `default`."""
    size, scale = size_at(place, bench), bench.scale
    sides = (
        Side(written="harness", work="step"),
        Side(written="harness", work="step", variant="tuned", precision="bfloat16"),
    )
    default, tuned = (
        bench.worker(bench.job([side], image_size=size, images=scale.batch_size)) for side in sides
    )
    report(
        benchmark,
        replay,
        compared_steps(base=(default, 0), other=(tuned, 0), seconds=scale.seconds),
        group=f"a training step, {size} px",
        backend=card.name,
        architecture=bench.architecture,
        against="default",
        variant="tuned",
        precision="bfloat16",
        image_size=size,
        batch_size=scale.batch_size,
    )
