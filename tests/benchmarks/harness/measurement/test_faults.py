"""Faults that a measurement must not survive, put into each real backend that is installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType

import msgspec
import numpy as np
import pytest

import backends
from backends.base import Backend, BackendInfo, NumericalError, Session, Trainable
from backends.optimizers import SGD
from benchmarks.harness.figures import Throughput
from benchmarks.harness.images import data
from benchmarks.harness.measurement import conditions, peak, throughput
from benchmarks.harness.measurement.conditions import ConditionsError
from benchmarks.harness.measurement.peak import ClockError
from benchmarks.harness.measurement.throughput import StepError
from benchmarks.harness.messages import Stage, StartingWeights
from benchmarks.harness.plan import Cell
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import recipe_of
from benchmarks.harness.training import starting
from benchmarks.harness.training.phases import Story, Trained, Trainer

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]

each_backend = pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)

QUICK = msgspec.structs.replace(
    profile_of("smoke"), image_size=32, batch_size=8, timing_seconds=0.05, parts_seconds=0.05,
    timing_attempts=1, inference_batches=(1, 4),
)  # fmt: skip
THREADS = 2


@pytest.fixture
def small_products(monkeypatch) -> None:
    monkeypatch.setattr(peak, "SIZES", {"cpu": (512,)})
    monkeypatch.setattr(peak, "BLOCK_SECONDS", 0.01)


def trainer_of(card: BackendInfo, folder: Path, *, attempts: int = 1) -> tuple[Trainer, Trained]:
    """A cell as it is after its training."""
    profile = msgspec.structs.replace(QUICK, timing_attempts=attempts)
    recipe = msgspec.structs.replace(
        recipe_of("matched-resnet18-finetune"), pretrained=False, epochs=1, optimizer=SGD(learning_rate=0.01)
    )
    cell = Cell(
        backend=card.name, recipe=recipe, variant="default", seed=0, profile=profile, device="cpu",
        precision="float32",
    )  # fmt: skip
    images = data.open_data(str(folder), QUICK)
    backend = backends.load(card)(Session(track="matched", threads=THREADS))
    spec, _ = starting.build(backend, cell, images, StartingWeights(name="none"))
    trainer = Trainer(backend, spec, cell, images, Story(), lambda _event: None)
    trained = trainer.train()
    agree(backend)
    return trainer, trained


def agree(backend: Backend) -> None:
    """TensorFlow keeps the threads that whichever test of this process came first has asked for."""
    backend.session = msgspec.structs.replace(backend.session, threads=backend.settings()["threads"])


@each_backend
def test_everything_is_measured(card, data_folder, small_products):
    trainer, trained = trainer_of(card, data_folder)
    before = trainer.backend.export_weights()
    told: list[str] = []
    trainer.emit = lambda event: told.append(event.text if isinstance(event, Stage) else "")
    found = throughput.measure(trainer, trained, conditions.Watch().stop(), {})
    assert found.counted is not None and found.steps == found.counted * found.steps_per_block
    assert [rate.batch_size for rate in found.inference_by_batch] == [1, 4]
    assert found.latency is not None and len(found.latency.seconds) >= throughput.FEWEST_LATENCIES
    assert found.utilization == pytest.approx(found.achieved_flops / found.gemm_peak_flops)
    assert found.flops_per_image > 2.5 * found.inference_flops_per_image
    parts = found.parts
    step = sum((parts.transfer, parts.forward, parts.backward, parts.update))
    assert parts.explained == pytest.approx((parts.wait * parts.epoch + step + parts.beside) / parts.epoch)
    assert min(parts.transfer, parts.forward, parts.backward, parts.update, parts.decode) >= 0
    assert told[0] == "timing matrix products" and len(told) == 4
    # what is timed is timed on the weights that the training ended with, and leaves them
    for name, tensor in trainer.backend.export_weights().items():
        np.testing.assert_array_equal(tensor, before[name])
    assert msgspec.json.decode(msgspec.json.encode(found), type=Throughput) == found


@pytest.mark.reference
@each_backend
def test_a_busy_neighbour(card, data_folder, small_products, neighbour, monkeypatch):
    monkeypatch.setattr(conditions, "PAUSE", 0.0)
    trainer, trained = trainer_of(card, data_folder, attempts=2)
    found = throughput.measure(trainer, trained, conditions.Watch().stop(), {})
    assert found.conditions is not None
    assert any("other processes kept" in reason for reason in found.conditions.noisy)  # marked
    assert len(found.disturbed) == 1  # repeated
    assert found.disturbed[0].conditions.noisy  # and not dropped


@pytest.mark.reference
@each_backend
def test_a_training_that_was_disturbed_for_a_while(card, data_folder, small_products):
    trainer, trained = trainer_of(card, data_folder)
    quiet = msgspec.structs.replace(conditions.Watch().stop(), seconds=2.0, noisy=())
    busy = msgspec.structs.replace(quiet, noisy=("others",))
    (row,) = trainer.story.curve
    trainer.story.curve += [msgspec.structs.replace(row, epoch=n, train_seconds=float(n)) for n in (2, 3, 4)]
    found = throughput.measure(trainer, trained, busy, {1: quiet, 2: busy, 3: quiet, 4: busy})
    assert found.end_to_end_images_per_second == row.images / 3.0
    assert found.epochs_counted == (3,) and found.epoch_conditions == quiet
    always = throughput.measure(trainer, trained, busy, dict.fromkeys((1, 2, 3, 4), busy))
    assert always.end_to_end_images_per_second == row.images / 3.0  # the median of 2, 3, 4
    assert always.epochs_counted is None and always.epoch_conditions == busy


@each_backend
def test_a_step_that_skips_the_update(card, data_folder, small_products, monkeypatch):
    trainer, trained = trainer_of(card, data_folder)
    whole = trainer.backend.run_stages

    def skipping(_backend: Backend, batch, last) -> None:
        whole(batch, "backward" if last == "update" else last)

    monkeypatch.setattr(trainer.backend, "run_stages", MethodType(skipping, trainer.backend))
    with pytest.raises(StepError, match="skip the update"):
        throughput.measure(trainer, trained, conditions.Watch().stop(), {})


@each_backend
def test_a_loss_that_leaves_all_bounds(card, data_folder, small_products):
    trainer, trained = trainer_of(card, data_folder)
    trainer.backend.set_trainable(Trainable())
    trainer.backend.configure_optimizer(SGD(learning_rate=1e30))
    with pytest.raises(NumericalError, match="infinite"):
        throughput.measure(trainer, trained, conditions.Watch().stop(), {})


@each_backend
def test_other_threads_than_were_asked_for(card):
    backend = backends.load(card)(Session(track="matched", threads=THREADS))
    backend.build(recipe_of("matched-resnet18-finetune").model(classes=2, image_size=32))
    backend.configure_optimizer(SGD(learning_rate=0.1))
    agree(backend)
    conditions.require_threads(backend)
    CHANGED[card.name](backend)
    with pytest.raises(ConditionsError, match="threads where"):
        conditions.require_threads(backend)


def _change_torch(_backend: Backend) -> None:
    import torch

    torch.set_num_threads(1)


def _change_mxnet(backend: Backend) -> None:
    """Behind the back of what forbids it; nothing computes before another backend sets it again."""
    from backends.gluon import threads

    threads._in_cpu_worker(lambda: threads._LIB.omp_set_num_threads(backend.session.threads + 1))


def _change_tensorflow(backend: Backend) -> None:
    """TensorFlow's pool stays what it was made with: what changes is what somebody asks for."""
    backend.session = msgspec.structs.replace(backend.session, threads=backend.session.threads + 1)


CHANGED: dict[str, Callable[[Backend], None]] = {
    "pytorch": _change_torch,
    "gluon": _change_mxnet,
    "keras": _change_tensorflow,
}


@each_backend
def test_a_clock_that_waits_passes(card, small_products):
    assert peak.measure(backends.load(card)(Session(track="matched", threads=THREADS))) > 1e9


@pytest.mark.skipif(
    "gluon" not in [card.name for card in INSTALLED], reason="MXNet alone is asynchronous on the CPU"
)
def test_a_synchronize_that_does_nothing(monkeypatch):
    backend = backends.load(backends.resolve("gluon"))(Session(track="matched", threads=THREADS))
    monkeypatch.setattr(type(backend), "synchronize", lambda _self: None)
    with pytest.raises(ClockError, match="does not wait for the device"):
        peak.measure(backend)


class Asynchronous:
    """A device that computes a product for a known time, and lets nobody wait but who reads it."""

    info = backends.resolve("pytorch")
    session = Session()
    seconds = 0.02

    def __init__(self, *, waits: bool) -> None:
        self._waits, self._ready = waits, 0.0

    def matrix_product(self, _size: int) -> Callable[[int], None]:
        def product(times: int) -> None:
            self._ready = max(self._ready, time.perf_counter()) + times * self.seconds

        return product

    def to_numpy(self, _product: None) -> None:
        time.sleep(max(0.0, self._ready - time.perf_counter()))

    def stopwatch(self) -> Callable[[], float]:
        start = time.perf_counter()

        def stop() -> float:
            if self._waits:
                self.to_numpy(None)
            return time.perf_counter() - start

        return stop


@pytest.mark.once
def test_an_asynchronous_device_is_seen_through(small_products):
    found = peak.measure(Asynchronous(waits=True))  # type: ignore[arg-type]
    assert found == pytest.approx(2 * 512**3 / Asynchronous.seconds, rel=0.3)
    with pytest.raises(ClockError):
        peak.measure(Asynchronous(waits=False))  # type: ignore[arg-type]
