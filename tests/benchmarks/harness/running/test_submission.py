"""Options as the words of a command line, and what a submission forgets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import backends
from benchmarks.commands.shared import takes_flags
from benchmarks.harness import plan
from benchmarks.harness.cache import write_whole
from benchmarks.harness.plan import FLAGS, Options
from benchmarks.harness.running import submission
from benchmarks.harness.running.command_line import asked, words_of
from benchmarks.harness.running.progress import Display
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


class TestCurves:
    @pytest.fixture
    def submitted(self, tmp_path, monkeypatch) -> Submission:
        """All of whose cells have their records."""
        options = Options(
            curves=True, seeds=2, track=("matched",), protocol=("frozen", "finetune"), run=str(tmp_path)
        )
        cells = plan.plan(options, tuple(backends.known().values()))
        supplies = SimpleNamespace(identity=lambda: None, planned=lambda cell: cell)
        monkeypatch.setattr(submission, "Supplies", lambda *_: supplies)
        made = Submission(options, cells, Display(Console()))
        monkeypatch.setattr(made.run, "take_up", lambda *_, **__: dict.fromkeys(cell.id for cell in cells))
        return made

    def test_one_job_for_each_network_measures_them(self, submitted):
        measuring = [cell.id for cell in submitted.cells if "--curves" in submitted.job(cell).argv]
        assert measuring == [
            f"{name}-matched-efficientnet_lite0-finetune-s0" for name in ("gluon", "keras", "pytorch")
        ]

    def test_a_cell_that_has_none_to_show_is_submitted_again(self, submitted):
        every = {cell.id for cell in submitted.cells}
        chosen = [cell for cell in submitted.cells if "--curves" in submitted.job(cell).argv]
        assert submitted.answered() == every - {cell.id for cell in chosen}
        for cell in chosen:
            write_whole(submitted.run.curves(cell), b"{}")
        assert submitted.answered() == every
        submitted.start_over(chosen[:1])
        assert submitted.answered() == every - {chosen[0].id}


def test_a_job_resumes_by_itself():
    assert words_of(Options(resume=True, seeds=2)) == ("--seeds", "2")
    assert plan.parse({}) == parsed(())
