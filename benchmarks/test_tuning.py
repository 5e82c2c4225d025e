"""What each thing that an expert may switch on brings, alone and together: the evidence for what the `tuned`
variant has.

`pytest benchmarks/test_tuning.py --data hotdog.zip --profile cpu --run tuning`, on a machine that does
nothing else; with `--arch efficientnet_lite0 --image-size 128` of another network, at one size. In
`extra_info` is `ratio`: how many times as fast a training step is as that of `default`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backends.base import BackendInfo, Precision
from benchmarks.comparison.entry import INSTALLED, Bench, compared_steps, report, size_at
from benchmarks.comparison.sides import Side
from benchmarks.conftest import REPLAY, Replayed

ON_GPU_ONLY = {"cudnn-benchmark", "tf32"}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """Something to try."""

    card: BackendInfo
    name: str
    tuning: tuple[str, ...] | None
    """None: all that the variant has."""
    precision: Precision = "float32"

    def __str__(self) -> str:
        return f"{self.card.name}-{self.name}"


def candidates(card: BackendInfo) -> list[Candidate]:
    """Each thing alone, bfloat16 too, and what the variant has."""
    names = [name for name in card.tuning if name not in ON_GPU_ONLY]
    return [
        *(Candidate(card=card, name=name, tuning=(name,)) for name in names),
        Candidate(card=card, name="bfloat16", tuning=(), precision="bfloat16"),
        Candidate(card=card, name="tuned", tuning=None),
        Candidate(card=card, name="tuned-bfloat16", tuning=None, precision="bfloat16"),
    ]


CANDIDATES = [candidate for card in INSTALLED for candidate in candidates(card)]


@pytest.fixture
def bench(candidate: Candidate, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with Bench(request, tmp_path, candidate.card) as made:
        yield made


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("place", [0, 1], ids=["small", "large"])
@pytest.mark.parametrize("candidate", CANDIDATES, ids=str)
def test_tuning(candidate: Candidate, place: int, bench: Bench, replay: Replayed, benchmark: Any) -> None:
    if candidate.name == "compile" and not _compiler():
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    size, scale = size_at(place, bench), bench.scale
    sides = (
        Side(written="harness", work="step"),
        Side(
            written="harness",
            work="step",
            variant="tuned",
            precision=candidate.precision,
            tuning=candidate.tuning,
        ),
    )
    default, tried = (
        bench.worker(bench.job([side], image_size=size, images=scale.batch_size)) for side in sides
    )
    logits = [np.array(worker.logits(0)) for worker in (default, tried)]  # of the same, untrained network
    first = [worker.run(0, 1) for worker in (default, tried)]
    found = compared_steps(base=(default, 0), other=(tried, 0), seconds=scale.seconds)
    report(
        benchmark,
        replay,
        found,
        group=f"{candidate.card.name}: a training step of {bench.architecture}, {size} px",
        backend=candidate.card.name,
        architecture=bench.architecture,
        against="default",
        tuning=candidate.name,
        precision=candidate.precision,
        image_size=size,
        batch_size=scale.batch_size,
        default_first_step_seconds=first[0],
        first_step_seconds=first[1],
        break_even_steps=found.break_even(first[1] - first[0]),
        logit_difference=float(np.abs(logits[1] - logits[0]).max() / np.abs(logits[0]).max()),
    )


def _compiler() -> str | None:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)
