"""torch's way onto a GPU, as far as a machine without one can show it.

Tensors are torch's own fake ones: they have a shape, a type and a device, and an operation on tensors of two
devices fails as it does on a GPU. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import ImageList, ModelSpec, Session, Trainable, Transform
from backends.optimizers import SGD

PYTORCH = backends.resolve("pytorch")
torch = pytest.importorskip("torch", reason="PyTorch is not installed in this environment")
FrameworkBackend = backends.load(PYTORCH)

from torch._subclasses import FakeTensorMode  # noqa: E402  where there is no torch these lines aren't reached

from backends.pytorch import models  # noqa: E402

SIZE, IMAGES = 32, 4
CUDA = Session(device="cuda", track="matched", threads=2)
TUNED = Session(device="cuda", track="matched", threads=2, variant="tuned")
UNCOMPILED = Session(device="cuda", track="matched", variant="tuned", tuning=("channels-last", "tf32"))


@pytest.fixture(autouse=True)
def gpu(monkeypatch) -> Iterator[None]:
    """One that is there to be asked for; torch's global switches are put back."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def make(monkeypatch) -> Callable[[Session], FrameworkBackend]:
    """A backend on the fake device; its network is made there, since fake parameters cannot be moved."""
    build = models.build

    def build_there(spec: ModelSpec, *, dropout: bool):
        with torch.device("cuda"):
            return build(spec, dropout=dropout)

    monkeypatch.setattr(models, "build", build_there)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)

    def make(session: Session) -> FrameworkBackend:
        backend = FrameworkBackend(session)
        backend.build(
            ModelSpec(architecture="resnet18", classes=3, image_size=SIZE, dropout=0.5, normalization="caffe")
        )
        backend.set_trainable(Trainable())
        backend.configure_optimizer(SGD(learning_rate=0.1, momentum=0.9))
        return backend

    return make


def host_batch():
    """Bytes, labels and masks, as they lie in host memory."""
    return (
        torch.zeros(IMAGES, SIZE, SIZE, 3, dtype=torch.uint8),
        torch.zeros(IMAGES, dtype=torch.int64),
        torch.ones(IMAGES, 512, dtype=torch.uint8),
    )


class TestDevice:
    @pytest.mark.parametrize("session", [CUDA, UNCOMPILED], ids=["default", "tuned"])
    def test_everything_that_meets_lies_there(self, make, session):
        with FakeTensorMode():
            backend, batch = make(session), host_batch()
            backend.run_stages(batch, "forward")
            found = [backend.logits(batch), backend.features(batch), backend.features(batch, "layer2")]
            found += [backend._loss_sum, backend._correct, backend.matrix_product(64)(2)]
            outputs, loss = backend._forward_loss(*backend._transferred(batch))
            found += [outputs, loss, backend._answers(outputs) == backend._transferred(batch)[1]]
        assert {tensor.device for tensor in found} == {torch.device("cuda:0")}

    def test_what_was_left_in_host_memory_is_told(self, make, monkeypatch):
        """Or the test above could not fail."""
        with FakeTensorMode():
            backend = make(CUDA)
            monkeypatch.setattr(type(backend), "_to_device", lambda _, tensor: tensor)
            with pytest.raises(RuntimeError, match="device"):
                backend.run_stages(host_batch(), "forward")

    def test_inputs_lie_in_memory_as_convolutions_want_them(self, make):
        with FakeTensorMode():
            for session, layout in ((CUDA, torch.contiguous_format), (UNCOMPILED, torch.channels_last)):
                backend, batch = make(session), host_batch()
                inputs = backend._transferred(batch)[0]
                assert inputs.shape == (IMAGES, 3, SIZE, SIZE)
                assert inputs.is_contiguous(memory_format=layout)


class TestSwitches:
    def test_tuned_sets_them_and_default_does_not(self):
        with FakeTensorMode():
            for _ in range(2):  # and a session takes back what the one before had set
                backend = FrameworkBackend(CUDA)
                assert backend._tuning == frozenset()
                assert not torch.backends.cudnn.benchmark
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cuda.matmul.allow_tf32
                backend = FrameworkBackend(TUNED)
                assert backend._tuning == {"channels-last", "compile", "cudnn-benchmark", "tf32"}
                assert torch.backends.cudnn.benchmark
                assert torch.get_float32_matmul_precision() == "high"
                assert torch.backends.cuda.matmul.allow_tf32

    def test_settings_tell_them(self, make, monkeypatch):
        # A stand-in for a tensor has no values to tell denormal numbers by.
        monkeypatch.setattr(FrameworkBackend, "_denormal_products", lambda _self: np.ones(1))
        with FakeTensorMode():
            for session, layout in ((CUDA, "NCHW"), (UNCOMPILED, "NHWC (channels_last)")):
                backend = make(session)
                settings = backend.settings()
                assert settings["layout"] == layout
                allowed = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
                assert settings["tf32"] is bool(allowed)
        assert FrameworkBackend(Session(threads=2))._tuning == frozenset()


class TestPinnedMemory:
    def test_batches_for_a_gpu_are_pinned(self, monkeypatch):
        pinned: list[torch.Tensor] = []
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
        arrays = (
            np.zeros((IMAGES, SIZE, SIZE, 3), np.uint8),
            np.zeros(IMAGES, np.int64),
            np.ones((IMAGES, 512), np.uint8),
        )
        with FakeTensorMode():
            backend = FrameworkBackend(CUDA)
        batch = backend.to_host_batch(*arrays)
        assert [part.data_ptr() for part in batch] == [array.ctypes.data for array in arrays]
        assert len(pinned) == 3 and all(a is b for a, b in zip(pinned, batch, strict=True))
        FrameworkBackend(Session(threads=2)).to_host_batch(*arrays)
        assert len(pinned) == 3

    def test_so_are_those_of_torch_s_own_pipeline(self, tmp_path):
        (tmp_path / "a").mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / "a" / "0.png")
        images = ImageList(root=str(tmp_path), files=("a/0.png",), labels=(0,), classes=("a",))
        for session, pins in ((CUDA, True), (Session(threads=2), False)):
            with FakeTensorMode():
                backend = FrameworkBackend(session)
            for training in (True, False):
                pipeline = backend.input_pipeline(
                    images, Transform(size=SIZE, resize=36), batch_size=2, training=training
                )
                assert pipeline.pin_memory is pins


class TestStopwatch:
    def test_it_is_the_device_s_own_events(self, monkeypatch):
        """In order: what was given before ends, an event, the work, an event that is waited for."""
        log, now = [], [0.0]  # milliseconds, as CUDA counts them

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing
                self.at: float | None = None

            def record(self) -> None:
                log.append("event")
                self.at = now[0]

            def synchronize(self) -> None:
                assert self.at is not None
                log.append("wait for the event")

            def elapsed_time(self, other: Event) -> float:
                assert log[-1] == "wait for the event"
                return other.at - self.at

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(f"wait for {device}"))
        with FakeTensorMode():
            backend = FrameworkBackend(CUDA)
        now[0] = 1000.0
        stop = backend.stopwatch()
        log.append("work")
        now[0] += 250
        assert stop() == 0.25
        assert log == ["wait for cuda", "event", "work", "event", "wait for the event"]

    def test_synchronising_waits_for_the_session_s_device(self, monkeypatch):
        waited = []
        monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
        FrameworkBackend(Session(threads=2)).synchronize()
        assert waited == []
        with FakeTensorMode():
            backend = FrameworkBackend(CUDA)
        backend.synchronize()
        assert waited == [torch.device("cuda")]
