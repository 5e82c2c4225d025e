"""The comparisons of `benchmarks/test_overhead.py` and `benchmarks/test_tuning.py`: whose turn it is, what
comes of it, and that both sides do the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

import backends
from backends.base import Transform
from backends.optimizers import SGD
from benchmarks.comparison import entry, sides
from benchmarks.comparison.sides import HarnessStep, Job, LeanestStep, Side, WorkError
from benchmarks.comparison.turns import FEWEST_PAIRS, Comparison, in_turns, median_interval, steps_per_turn
from benchmarks.comparison.worker import Worker, WorkerError
from benchmarks.handwritten import Task
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.images.data import DataSet, open_data
from benchmarks.harness.images.decoded import open_decoded
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import recipe_of

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
each_backend = pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)
OPTIMIZER = SGD(learning_rate=2**-12, momentum=0.9, weight_decay=entry.DECAY, head_multiplier=10.0)


@pytest.fixture
def data(data_folder) -> DataSet:
    return open_data(str(data_folder), profile_of("smoke"))


def job_of(card, images, *written: tuple[str, str], variant="default") -> Job:
    recipe = recipe_of(f"matched-{card.architectures[0]}-finetune")
    return Job(
        backend=card.name,
        sides=tuple(Side(written=who, work=what, variant=variant) for who, what in written),
        task=Task(
            spec=recipe.model(classes=2, image_size=32),
            optimizer=OPTIMIZER, batch_size=8, threads=1, tuned=False,
        ),
        transform=Transform(size=32, resize=36, normalization=recipe.input.normalization),
        images=images,
    )  # fmt: skip


@pytest.mark.once
class TestTurns:
    def test_each_goes_first_as_often_as_second(self):
        order: list[str] = []

        def turn(name: str) -> float:
            order.append(name)
            return 1.0

        in_turns(lambda: turn("a"), lambda: turn("b"), seconds=0)
        assert "".join(order) == "abbaab"

    def test_every_turn_is_kept_on_the_side_that_took_it(self):
        base, other = count(1), count(100)
        found = in_turns(lambda: float(next(base)), lambda: float(next(other)), seconds=0)
        assert found == Comparison(base=(1.0, 2.0, 3.0), other=(100.0, 101.0, 102.0))
        assert len(found.base) == FEWEST_PAIRS

    def test_how_many_times_as_fast(self):
        found = Comparison(base=(3.0, 3.0, 9.0), other=(2.0, 1.0, 2.0))
        assert found.ratio == 1.5

    def test_what_begins_later_catches_up_if_it_is_faster(self):
        found = Comparison(base=(3.0,), other=(1.0,))
        assert found.break_even(10.0) == 5.0
        assert found.break_even(-1.0) == 0.0
        assert Comparison(base=(1.0,), other=(1.0,)).break_even(1.0) is None
        assert Comparison(base=(1.0,), other=(3.0,)).break_even(1.0) is None

    @pytest.mark.parametrize(("one", "times"), [(0.5, 1), (0.26, 2), (0.05, 10), (7.0, 1)])
    def test_a_turn_is_long_enough(self, one, times):
        assert steps_per_turn(one, 0.5) == times

    @pytest.mark.parametrize(
        ("many", "interval"),
        [
            (5, None),  # 1 - 2 / 2**5 = .9375
            (6, (0, 5)),  # 1 - 2 / 2**6 = .969
            (8, (0, 7)),  # without its ends 1 - 2 * 9 / 2**8 = .930
            (9, (1, 7)),  # 1 - 2 * 10 / 2**9 = .961
            (20, (5, 14)),  # any table of the sign test
        ],
    )
    def test_interval_of_a_median(self, many, interval):
        shuffled = np.random.RandomState(0).permutation(many).tolist()
        assert median_interval(shuffled) == interval

    def test_the_interval_holds_the_median_as_often_as_it_says(self):
        random = np.random.RandomState(0)
        found = [median_interval(random.exponential(size=11).tolist()) for _ in range(2000)]
        held = np.mean([low <= np.log(2) <= high for low, high in found])
        assert 0.95 <= held <= 0.999


@pytest.mark.once
def test_pictures_are_of_every_class(data, tmp_path):
    chosen = entry.pictures(data, 6, tmp_path / "some")
    assert len(chosen.files) == 6 and sorted(set(chosen.labels)) == [0, 1]
    assert sorted(chosen.files) == sorted(
        path.relative_to(chosen.root).as_posix() for path in Path(chosen.root).rglob("*.jpg")
    )
    everything = entry.pictures(data, 1000, tmp_path / "all")
    assert everything.files == data.train.files


@each_backend
class TestSameWork:
    @pytest.mark.parametrize("variant", ["default", "tuned"])
    def test_by_hand_and_through_the_harness(self, card, variant, data):
        job = job_of(card, data.train, ("harness", "step"), ("leanest", "step"), variant=variant)
        (harness, leanest), seconds = sides.make(job)
        assert seconds is not None and seconds > 0
        assert isinstance(harness, HarnessStep) and isinstance(leanest, LeanestStep)
        assert sides.require_same_work(harness, leanest) <= sides.SAME_CHANGE

    @pytest.mark.parametrize(
        "fault", [{"weight_decay": 0.0}, {"momentum": 0.0}, {"head_multiplier": 1.0}], ids=str
    )
    def test_what_one_of_them_leaves_out_is_found(self, card, fault, data):
        job = job_of(card, data.train, ("harness", "step"))
        (harness,), _ = sides.make(job)
        without = msgspec.structs.replace(OPTIMIZER, **fault)
        other = msgspec.structs.replace(
            job_of(card, data.train, ("leanest", "step")),
            task=msgspec.structs.replace(job.task, optimizer=without),
        )
        batch = sides.first_batch(job, open_decoded(data.train, "comparison"))
        leanest = LeanestStep(other, other.sides[0], batch)
        with pytest.raises(WorkError):
            sides.require_same_work(harness, leanest)

    def test_a_textbook_that_drops_images_is_found(self, card, data, tmp_path):
        images = entry.pictures(data, 10, tmp_path / "some")
        job = job_of(card, images, ("textbook", "epoch"))
        (whole,), seconds = sides.make(job)
        assert whole.run(1) > 0 and seconds is None
        more = msgspec.structs.replace(images, files=(*images.files, "blue/none.jpg"))
        (short,), _ = sides.make(msgspec.structs.replace(job, images=more))
        with pytest.raises(WorkError, match="saw 10 of 11 images"):
            short.run(1)


@each_backend
def test_a_process_says_why_it_ended(card, data, tmp_path):
    missing = msgspec.structs.replace(data.train, root=str(tmp_path / "nowhere"))
    job = job_of(card, missing, ("harness", "epoch"))
    with pytest.raises(WorkerError, match="nowhere"):
        Worker(Path(sys.executable), job, cache=tmp_path / "cache", log=tmp_path / "log")
    with pytest.raises(WorkerError, match="ended with code 1"):
        Worker(Path("/bin/false"), job, cache=tmp_path / "cache", log=tmp_path / "log")


def run_as_a_user_does(data_folder, tmp_path, file: str, *options: str) -> list[dict]:
    variables = {key: value for key, value in os.environ.items() if key != "BENCHMARKS_ENVIRONMENT"}
    answer = subprocess.run(
        [
            sys.executable, "-m", "pytest", f"benchmarks/{file}", "-p", "no:cacheprovider", *options,
            "--data", str(data_folder), "--run", str(tmp_path / "run"),
            f"--benchmark-json={tmp_path / 'found.json'}",
        ],
        cwd=PROJECT, capture_output=True, text=True, timeout=600, env=variables,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = [each["extra_info"] for each in json.loads((tmp_path / "found.json").read_text())["benchmarks"]]
    assert [each["backend"] for each in found] == [card.name for card in INSTALLED]
    return found


@pytest.mark.reference
class TestAsAUserDoes:
    def test_what_the_harness_costs(self, data_folder, tmp_path):
        found = run_as_a_user_does(data_folder, tmp_path, "test_overhead.py", "-k", "leanest and tuned")
        for each in found:
            assert each["against"] == "leanest" and each["variant"] == "tuned"
            assert each["pairs"] == len(each["base_seconds"]) >= FEWEST_PAIRS
            assert each["ratio"] > 0 and each["peak_rss_ratio"] > 0

    def test_what_tuning_brings_to_another_network(self, data_folder, tmp_path):
        only = "-k", "tuned and not bfloat16 and small"
        network = "--arch", "efficientnet_lite0", "--image-size", "32"
        for each in run_as_a_user_does(data_folder, tmp_path, "test_tuning.py", *only, *network):
            assert each["architecture"] == "efficientnet_lite0" and each["image_size"] == 32
            assert each["tuning"] == "tuned" and each["ratio"] > 0
