"""Options as the words of a command line, and what a submission forgets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

import backends
from benchmarks.commands.shared import takes_flags
from benchmarks.harness import plan
from benchmarks.harness.plan import FLAGS, Options
from benchmarks.harness.running.command_line import asked, words_of
from benchmarks.harness.running.submission import Submission

pytestmark = pytest.mark.once

VALUES = {
    "backend": ("pytorch", "keras"),
    "track": ("native",),
    "arch": ("resnet18", "vgg16"),
    "protocol": ("finetune", "frozen"),
    "recipe": ("003-*", "001-reuse"),
    "variant": ("default", "reproducible"),
    "seeds": 3,
    "data": "sketch-five",
    "weights": "imagenet",
    "profile": "full",
    "image_size": 96,
    "device": "cuda:1",
    "precision": ("float32", "bfloat16"),
    "run": "/shared/a run",
    "resample": True,
    "no_timing": True,
    "curves": True,
    "resume": False,
    "allow_dirty": True,
    "cell_timeout": 60.5,
}


def parsed(words: tuple[str, ...]) -> Options:
    """What a command makes of the words."""
    given = []
    app = typer.Typer()
    app.command()(takes_flags(lambda options: given.append(options)))
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return given[0]


def test_every_option_has_a_value_here():
    assert set(VALUES) == {flag.key for flag in FLAGS}


@pytest.mark.parametrize("keys", [[], *([key] for key in VALUES), list(VALUES)], ids="+".join)
def test_words_mean_their_options(keys):
    options = Options(**{key: VALUES[key] for key in keys})
    assert parsed(words_of(options)) == options


def test_what_was_asked_names_no_machine():
    options = Options(
        data="/home/me/hotdog.zip", weights="/home/me/vgg16.safetensors", run="/home/me/run",
        cell_timeout=60, allow_dirty=True, resume=True, seeds=3,
    )  # fmt: skip
    assert asked(options) == ("--seeds", "3", "--data", "hotdog.zip", "--weights", "vgg16.safetensors")


def test_one_job_for_each_network_measures_its_curves():
    options = Options(curves=True, seeds=2, track=("matched",), protocol=("frozen", "finetune"))
    cells = plan.plan(options, tuple(backends.known().values()))
    submission = SimpleNamespace(options=options, cells=cells)
    measuring = [cell.id for cell in cells if "--curves" in Submission.job(submission, cell).argv]
    assert measuring == [
        f"{name}-matched-efficientnet_lite0-finetune-s0" for name in ("gluon", "keras", "pytorch")
    ]


def test_a_job_resumes_by_itself():
    assert words_of(Options(resume=True, seeds=2)) == ("--seeds", "2")
    assert plan.parse({}) == parsed(())
