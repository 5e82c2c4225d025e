"""Real cells in real workers, with whatever framework this environment has."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time

import msgspec
import numpy as np
import psutil
import pytest

import backends
from backends import weights
from backends.base import (
    DeviceError,
    UsageError,
)
from backends.optimizers import SGD
from benchmarks.harness import initial, messages, record
from benchmarks.harness.gate import scenarios
from benchmarks.harness.images import data
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.decoded import key_of, open_decoded
from benchmarks.harness.messages import CellJob, EpochEnd, StartingWeights
from benchmarks.harness.plan import Cell
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.recipe import (
    Recipe,
    all_recipes,
    recipe_of,
)
from benchmarks.harness.running import runner
from benchmarks.harness.worker import cell

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
needs_framework = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


TINY = msgspec.structs.replace(
    PROFILES["smoke"], image_size=32, batch_size=8, timing_seconds=0.1, parts_seconds=0.1
)


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def card(request):
    return request.param


def recipe_for(card, protocol: str) -> Recipe:
    wanted = (card.name, protocol, "native")
    found = next(r for r in all_recipes() if (r.backend, r.protocol, r.track) == wanted)
    return msgspec.structs.replace(found, epochs=2)


def job_for(
    card,
    images: data.DataSet,
    recipe: Recipe,
    start: StartingWeights | None = None,
    *,
    timed: bool = False,
    batch_size: int = TINY.batch_size,
) -> CellJob:
    return CellJob(
        cell=Cell(
            backend=card.name,
            recipe=recipe,
            variant="default",
            seed=0,
            profile=msgspec.structs.replace(TINY, batch_size=batch_size),
            device="cpu",
            precision="float32",
            timed=timed,
        ),
        data=images,
        weights=start or StartingWeights(name="none"),
        threads=2,
        input_workers=0,
    )


@pytest.fixture
def images(data_folder) -> data.DataSet:
    return data.open_data(str(data_folder), TINY)


def run(job, tmp_path, on_event=lambda _: None) -> record.Record:
    return runner.run_cell(job, log=tmp_path / "worker.log", on_event=on_event)


def run_here(job) -> record.Record:
    """What a worker does, without the seconds that a process takes to import the framework."""
    return cell.run_cell(job, lambda _event: None)


@needs_framework
class TestCells:
    def test_a_cell_learns_two_colours_and_its_record_says_everything(self, card, images, tmp_path):
        events: list[messages.Event] = []
        recipe = recipe_for(card, "scratch")
        easy = msgspec.structs.replace(
            recipe,
            initializer="he",
            input=msgspec.structs.replace(recipe.input, normalization="imagenet"),
            optimizer=SGD(learning_rate=0.001, momentum=0.0),
            epochs=3,
            head="linear",
        )
        job = job_for(card, images, easy, timed=True, batch_size=20)  # all of them: each step is downhill
        found = run(job, tmp_path, events.append)
        assert found.error is None
        assert found.status == "ok"
        assert [row.epoch for row in found.curve] == [1, 2, 3]
        assert found.curve[-1].train_loss < found.curve[0].train_loss
        assert found.accuracy is not None and found.throughput is not None and found.environment is not None
        assert found.accuracy.images == len(found.accuracy.correct) == 10
        assert found.accuracy.test == sum(found.accuracy.correct) / 10 == found.curve[-1].test_accuracy
        assert found.cell.framework_version == backends.version(card)
        assert found.throughput.batch_size == 20
        assert found.throughput.train_images_per_second > 0
        counted = found.throughput.counted
        assert counted is not None and 0 < counted < len(found.throughput.step_seconds)
        assert found.throughput.steps == counted * found.throughput.steps_per_block
        assert found.memory is not None and found.memory.peak_rss_bytes > 100 * 2**20
        assert found.settings["threads"] == 2 and found.settings["trained_parameters"] > 1_000_000
        assert found.environment.threads == 2 and found.environment.packages["numpy"]
        assert len([event for event in events if isinstance(event, EpochEnd)]) == 3
        assert record.read(record.write(tmp_path, found)) == found

    def test_the_same_seed_starts_the_same_way(self, card, images, tmp_path):
        recipe = msgspec.structs.replace(recipe_for(card, "scratch"), epochs=1)
        job = job_for(card, images, recipe)
        first, again = run(job, tmp_path), run_here(job)
        assert first.curve[0].train_loss == pytest.approx(again.curve[0].train_loss, rel=1e-2)

    def test_images_may_be_read_by_processes_of_their_own(self, card, images, tmp_path):
        """As on a GPU. They are forked from a worker that waits for its parent's end."""
        job = job_for(card, images, recipe_for(card, "scratch"))
        assert run(msgspec.structs.replace(job, input_workers=2), tmp_path).error is None

    def test_a_frozen_cell_starts_from_pretrained_weights(self, card, images, tmp_path, cache):
        pretraining = msgspec.structs.replace(
            recipe_for(card, "pretrain"), image_size=32, batch_size=8, epochs=1
        )
        target = cache / "a.safetensors"
        done = runner.pretrain(
            messages.PretrainJob(
                recipe=pretraining,
                data=images,
                key="k",
                target=str(target),
                device="cpu",
                threads=2,
                input_workers=0,
            ),
            log=tmp_path / "log",
            on_event=lambda _: None,
        )
        checkpoint = weights.read(target)
        assert checkpoint.sha256 == done.sha256
        assert (checkpoint.origin.architecture, checkpoint.origin.key) == (pretraining.architecture, "k")
        start = StartingWeights(name="source", path=str(target), sha256=done.sha256)
        found = run(job_for(card, images, recipe_for(card, "frozen"), start), tmp_path)
        assert (found.status, found.cell.weights.sha256) == ("ok", done.sha256)
        stale = msgspec.structs.replace(start, sha256="0" * 64)
        refused = run_here(job_for(card, images, recipe_for(card, "frozen"), stale))
        assert refused.error is not None and "has changed" in refused.error.message

    def test_a_loss_that_is_not_finite_is_a_failed_record_with_its_curve(self, card, images):
        wild = msgspec.structs.replace(
            recipe_for(card, "scratch"),
            initializer="he",  # with a smaller start all of VGG16's relus may die first, at a finite loss
            optimizer=SGD(learning_rate=1e20, momentum=0.9),
            epochs=3,
        )
        found = run_here(job_for(card, images, wild))
        assert found.status == "failed" and found.error is not None
        assert found.error.type == "NumericalError"
        assert "lower the learning rate" in found.error.message and "\n" not in found.error.message
        assert found.environment is not None and found.accuracy is None

    def test_weights_of_another_architecture_are_a_failed_record(self, card, images, tmp_path):
        path = tmp_path / "other.safetensors"
        weights.write(path, {"conv.weight": np.zeros((1, 1), "float32")}, weights.Origin())
        start = StartingWeights(name=path.name, path=str(path))
        found = run_here(job_for(card, images, recipe_for(card, "finetune"), start))
        assert found.error is not None and found.error.type == "WeightsError"
        assert "these weights have no tensor" in found.error.message

    def test_an_image_that_vanishes_is_a_failed_record_that_names_it(self, card, images):
        job = job_for(card, images, recipe_for(card, "scratch"))
        gone = images.train.files[3]
        os.unlink(f"{images.train.root}/{gone}")
        found = run_here(job)
        assert found.status == "failed" and found.error is not None
        assert gone in found.error.message

    def test_a_killed_worker_is_a_failed_record(self, card, images, tmp_path):
        def kill(event: messages.Event) -> None:
            if isinstance(event, EpochEnd):
                children = psutil.Process().children()
                assert children
                for child in children:
                    child.send_signal(signal.SIGKILL)

        found = run(job_for(card, images, recipe_for(card, "scratch")), tmp_path, kill)
        assert found.error is not None and found.error.type == "WorkerDied"
        assert "SIGKILL" in found.error.message

    def test_no_worker_outlives_the_one_who_stops_listening(self, card, images, tmp_path):
        started: list[psutil.Process] = []

        def interrupt(event: messages.Event) -> None:
            if isinstance(event, EpochEnd):
                started.extend(psutil.Process().children())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(job_for(card, images, recipe_for(card, "scratch")), tmp_path, interrupt)
        assert started
        # One that has ended and that nobody has asked for yet, of an earlier test's, is none that lives.
        assert not [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def test_the_framework_says_what_it_is(self, card, tmp_path):
        answer = runner.probe(card, log=tmp_path / "log")
        assert answer.version == backends.version(card)
        assert answer.devices[0] == "cpu"

    def test_a_gpu_that_is_not_there_is_one_line(self, card, tmp_path):
        if len(backends.load(card).devices()) > 1:
            pytest.skip("this machine has a GPU")
        with pytest.raises(DeviceError, match=r"no device 'cuda' here.*cpu"):
            runner.require_device(card, "cuda", log=tmp_path / "log")


@needs_framework
class TestMatchedCells:
    RECIPE = msgspec.structs.replace(recipe_of("matched-resnet18-finetune"), pretrained=False, epochs=2)

    def test_weights_and_batches_are_what_the_harness_says_in_every_backend(self, card, images, tmp_path):
        found = run(job_for(card, images, self.RECIPE), tmp_path)
        assert found.error is None
        spec = self.RECIPE.model(classes=2, image_size=TINY.image_size)
        drawn = initial.sha256_of(initial.draw(spec, seed=0))
        assert found.cell.weights.initial_sha256 == drawn
        batches = Batches(
            open_decoded(images.train, key_of(images, "train")),
            images.train.labels,
            self.RECIPE.transform(TINY.image_size),
            batch_size=8,
            training=True,
            wrap=lambda pixels, labels: (pixels, labels),
            seed=0,
        )
        hashes = []
        for _ in range(2):
            assert sum(len(labels) for _, labels in batches) == 20
            hashes.append(batches.sha256)
        assert list(found.batches_sha256) == hashes
        assert len(set(hashes)) == 2
        assert found.settings["batch_norm"]["running_variance"] == "unbiased"

    def test_the_body_comes_from_the_checkpoint_and_the_head_from_the_harness(self, card, images, tmp_path):
        recipe = msgspec.structs.replace(self.RECIPE, pretrained=True, epochs=1)
        spec = recipe.model(classes=2, image_size=TINY.image_size)
        tensors = initial.draw(spec, seed=7)
        path = tmp_path / "body.safetensors"
        sha256 = weights.write(path, tensors, weights.Origin(architecture="resnet18"))
        start = StartingWeights(name=path.name, path=str(path))
        found = run_here(job_for(card, images, recipe, start))
        assert found.error is None
        head = {name: t for name, t in initial.draw(spec, seed=0).items() if name.startswith("head.")}
        assert found.cell.weights.sha256 == sha256
        assert found.cell.weights.initial_sha256 == initial.sha256_of(tensors | head)

    def test_weights_for_other_inputs_are_refused(self, card, images, tmp_path):
        recipe = msgspec.structs.replace(self.RECIPE, pretrained=True)
        tensors = initial.draw(recipe.model(classes=2, image_size=TINY.image_size), seed=7)
        path = tmp_path / "body.safetensors"
        weights.write(path, tensors, weights.Origin(architecture="resnet18", preprocess="caffe"))
        start = StartingWeights(name=path.name, path=str(path))
        found = run_here(job_for(card, images, recipe, start))
        assert found.error is not None and "normalised as 'caffe'" in found.error.message

    def test_a_gate_that_failed_is_a_failed_record_that_names_the_tensor(self, card, images, matched_record):
        gate = msgspec.structs.replace(
            matched_record.gate, passed=False, failures=("conv1.weight: gradient is off by 3e-2",)
        )
        job = msgspec.structs.replace(job_for(card, images, self.RECIPE), gate=gate)
        found = run_here(job)
        assert found.status == "failed" and found.error is not None and found.gate == gate
        assert found.error.type == "GateError" and "conv1.weight" in found.error.message
        assert found.throughput is None and found.curve == ()

    def test_a_gate_passed_once_is_not_compared_again(self, card, tmp_path):
        job = messages.GateJob(
            backend=card.name,
            network=scenarios.Network("resnet18"),
            modes=("frozen",),
            rules=(),
            device="cpu",
            precision="float32",
            variant="default",
            threads=2,
        )
        gates = [runner.pass_gate(job, log=tmp_path / "log", on_event=lambda _: None) for _ in range(2)]
        assert gates[0].passed
        assert gates[0] == gates[1]  # its seconds too: it was not made twice


class TestInterpreters:
    def test_a_given_one_is_taken(self, monkeypatch, tmp_path):
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\n")
        python.chmod(stat.S_IRWXU)
        monkeypatch.setenv("BENCHMARKS_PYTHON_KERAS", str(python))
        assert runner.interpreter_of(backends.resolve("keras")) == python

    def test_a_given_one_that_is_none_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setenv("BENCHMARKS_PYTHON_KERAS", str(tmp_path / "none"))
        with pytest.raises(UsageError, match=r"BENCHMARKS_PYTHON_KERAS=.*none: no such program"):
            runner.interpreter_of(backends.resolve("keras"))

    def test_without_any_the_way_to_one_is_told(self, monkeypatch, tmp_path):
        monkeypatch.delenv("BENCHMARKS_PYTHON_GLUON", raising=False)
        monkeypatch.setattr(runner, "PROJECT", tmp_path)
        monkeypatch.setattr(runner.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(UsageError, match=r"tox run -e bench-gluon --notest.*BENCHMARKS_PYTHON_GLUON"):
            runner.probe(backends.resolve("gluon"), log=tmp_path / "log")

    def test_a_process_that_dies_at_once_is_a_failed_record_with_its_last_words(
        self, monkeypatch, tmp_path, images
    ):
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 3\n")
        python.chmod(stat.S_IRWXU)
        monkeypatch.setenv("BENCHMARKS_PYTHON_KERAS", str(python))
        card = backends.resolve("keras")
        found = run(job_for(card, images, recipe_for(card, "scratch")), tmp_path)
        assert found.error is not None and found.error.type == "WorkerDied"
        assert "exit code 3" in found.error.message and "no such module" in found.error.message

    def test_what_a_dead_process_started_is_ended(self, monkeypatch, tmp_path, images):
        python, started = tmp_path / "python", tmp_path / "started"
        python.write_text(f"#!/bin/sh\nsleep 600 >&- &\necho $! >{started}\nexit 3\n")
        python.chmod(stat.S_IRWXU)
        monkeypatch.setenv("BENCHMARKS_PYTHON_KERAS", str(python))
        card = backends.resolve("keras")
        found = run(job_for(card, images, recipe_for(card, "scratch")), tmp_path)
        assert found.error is not None and found.error.type == "WorkerDied"
        with contextlib.suppress(psutil.NoSuchProcess):
            child = psutil.Process(int(started.read_text()))
            for _ in range(300):
                if child.status() == psutil.STATUS_ZOMBIE:  # there may be nobody to bury it
                    return
                time.sleep(0.1)
            pytest.fail("it is still there")


@needs_framework
def test_a_worker_ends_when_its_parent_does(tmp_path):
    """Closing the worker's stdin, as a dying parent does, ends it though its job has not."""
    import subprocess

    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [str(runner.interpreter_of(INSTALLED[0])), "-c",
         "import sys, threading, time;"
         "from benchmarks.harness.worker.__main__ import _end_with_parent as end;"
         "threading.Thread(target=end, args=(sys.stdin.fileno(),), daemon=True).start();"
         "print('listening', flush=True); time.sleep(60)"],
        stdin=read_end, stdout=subprocess.PIPE, cwd=runner.PROJECT,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"listening\n"
        os.close(read_end)
        os.close(write_end)
        assert process.wait(timeout=30) == 1
