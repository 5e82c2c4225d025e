"""What all tests share: a cache of their own, a small data set, and where the large files may lie."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import psutil
import pytest
from PIL import Image

import backends
from backends.base import DeviceError, Session
from benchmarks.harness.figures import (
    BatchRate,
    Conditions,
    Latency,
    Memory,
    Parts,
    Throughput,
)
from benchmarks.harness.recipe import REFERENCE_BACKEND
from benchmarks.harness.record import (
    Accuracy,
    CellDescription,
    Data,
    Environment,
    Epoch,
    Failure,
    Gate,
    Record,
    Weights,
)

SHARED = Path(os.environ.get("BENCHMARKS_SHARED", Path(__file__).parents[2] / "shared"))
"""Real photographs and weights, which are no part of the project; tests that need them skip where they are
missing."""
ENOUGH_TO_COLLECT = 64 * 2**20
"""Bytes: about one network."""


def pytest_configure() -> None:
    """Before any framework is imported, here or in a worker: threads of OpenMP that wait must not spin, or
    two processes on two cores take ten times as long."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in its background deaf to Ctrl-C, and processes inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is `once` runs in test-core, the environment without a framework; what is `reference`, in that of
    the reference backend; what computes in bfloat16, where the framework does on this processor."""
    installed = [card for card in backends.known().values() if backends.installed(card)]
    reference = backends.resolve(REFERENCE_BACKEND) in installed
    for item in items:
        if not reference and item.get_closest_marker("reference"):
            why = f"alike for all backends: tried on {REFERENCE_BACKEND}'s, which is not installed here"
            item.add_marker(pytest.mark.skip(reason=why))
        if installed and item.get_closest_marker("once"):
            item.add_marker(pytest.mark.skip(reason="the same in every environment: test-core runs it"))
        if "bfloat16" in item.name or item.get_closest_marker("bfloat16"):
            for card in installed:
                lacking = card.name in item.name and _lacks_bfloat16(card.name)
                if lacking:
                    item.add_marker(pytest.mark.skip(reason=lacking))


@cache
def _lacks_bfloat16(backend: str) -> str:
    """Why a framework does not compute in it here; empty where it does."""
    framework = backends.load(backends.known()[backend])
    try:
        framework(Session(precision="bfloat16", variant="tuned", threads=2))
    except DeviceError as error:
        return str(error)
    finally:
        framework(Session(threads=2))  # mixed precision is a process's
    return ""


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """Networks hang in reference cycles, and Python's collector, who does not see how much memory they hold,
    would let them pile up."""
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    if process.memory_info().rss - before > ENOUGH_TO_COLLECT:
        gc.collect()
        if not gc.get_freeze_count():
            gc.freeze()  # a framework's own objects, which each collection would look through again


@pytest.fixture(autouse=True)
def no_worker(monkeypatch) -> None:
    """A `pytest benchmarks` that a test starts is no worker of these tests; it would time nothing if it took
    itself for one."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache folder that no other test has touched."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BENCHMARKS_CACHE", str(folder))
    return folder


@pytest.fixture
def photographs() -> Path:
    """The zip of real photographs."""
    path = SHARED / "data" / "hotdog.zip"
    if not path.exists():
        pytest.skip(f"no photographs at {path}; BENCHMARKS_SHARED names the folder that has data/hotdog.zip")
    return path


@pytest.fixture
def data_folder(tmp_path) -> Path:
    """Two classes, 10 training and 5 test images each; the classes differ in colour, the images in size."""
    for split, count in (("train", 10), ("test", 5)):
        for name, color in (("blue", (20, 40, 200)), ("red", (210, 30, 20))):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                shade = tuple(min(255, value + 3 * index) for value in color)
                Image.new("RGB", (48 + index, 40 + 2 * index), shade).save(folder / f"{index}.jpg")
    return tmp_path / "set"


@pytest.fixture
def ok_record() -> Record:
    """A finished cell with round numbers: 150 of 200 test images right."""
    return Record(
        cell=CellDescription(
            id="pytorch-native-resnet18-finetune-s0",
            backend="pytorch",
            framework_version="2.9.0",
            track="native",
            architecture="resnet18",
            recipe="native-resnet18-finetune",
            protocol="finetune",
            variant="default",
            seed=0,
            profile="smoke",
            device="cpu",
            precision="float32",
            data=Data(name="sketch", sha256="d" * 64, train=400, test=200, classes=("hotdog", "not-hotdog")),
            weights=Weights(name="source", sha256="e" * 64),
        ),
        status="ok",
        curve=tuple(
            Epoch(
                epoch=epoch,
                train_loss=1 / epoch,
                train_accuracy=0.7,
                test_accuracy=0.75,
                train_seconds=8.0 if epoch == 1 else 4.0,
                input_wait_seconds=0.5,
                eval_seconds=1.0,
                images=400,
            )
            for epoch in (1, 2, 3)
        ),
        accuracy=Accuracy(test=0.75, correct=(1, 1, 1, 0) * 50, images=200),
        throughput=Throughput(
            batch_size=32,
            image_size=64,
            steady=True,
            steps=10,
            train_images_per_second=128.0,
            inference_images_per_second=512.0,
            end_to_end_images_per_second=100.0,
            step_seconds=(0.25,) * 10,
            inference_seconds=(0.0625,) * 10,
            parts=Parts(wait=0.125),
            first_step_seconds=0.5,
        ),
        memory=Memory(peak_rss_bytes=2**30, peak_device_bytes=None),
        settings={"threads": 2, "compiled": "no (eager)"},
        environment=Environment(
            cpu="A processor",
            cores=2,
            threads=2,
            ram_bytes=24 * 2**30,
            os="Linux",
            python="3.11.7",
            packages={"torch": "2.9.0"},
            gpu=None,
            thread_pools=("openmp 5: 2 threads",),
            load_average=0.5,
            git_commit="0123456789abcdef",
            git_dirty=False,
            code_sha256="c" * 64,
        ),
        started="2026-01-01T00:00:00+00:00",
        seconds=30.0,
    )


@pytest.fixture
def matched_record(ok_record) -> Record:
    """The same in the matched track, its gate passed."""
    recipe = "matched-resnet18-finetune"
    return msgspec.structs.replace(
        ok_record,
        cell=msgspec.structs.replace(
            ok_record.cell,
            id=f"pytorch-{recipe}-s0",
            track="matched",
            recipe=recipe,
            weights=Weights(name="source", sha256="e" * 64, initial_sha256="f" * 64),
        ),
        gate=Gate(
            passed=True,
            mode="all",
            logit_error=5e-7,
            block_error=8e-7,
            first_loss_error=4e-7,
            gradient_error=2e-13,
            loss_error=1e-14,
            step_error=3e-12,
            tolerances={"gradient": 1e-9},
            worst={"gradient": "conv1.weight"},
            reference_sha256="a" * 64,
            seconds=3.0,
        ),
        batches_sha256=("b" * 64,) * 3,
    )


@pytest.fixture
def measured_record(matched_record) -> Record:
    """The same with every figure of its speed; its epoch is 90 % explained."""
    throughput = msgspec.structs.replace(
        matched_record.throughput,
        steady_by="medians of two windows",
        counted=10,
        inference_counted=10,
        parts=Parts(
            wait=0.05,
            decode=0.002,
            augment=0.001,
            transfer=0.0005,
            forward=0.002,
            backward=0.0045,
            update=0.00025,
            beside=0.00125,
            epoch=0.01,
            explained=0.9,
        ),
        latency=Latency(p50=0.004, p95=0.0045, p99=0.006, seconds=(0.004,) * 50),
        inference_by_batch=(
            BatchRate(batch_size=1, images_per_second=250.0, steady=True),
            BatchRate(batch_size=32, images_per_second=512.0, steady=False),
        ),
        compile_seconds=0.25,
        flops_per_image=1e9,
        inference_flops_per_image=3e8,
        achieved_flops=1.28e11,
        gemm_peak_flops=1.6e11,
        utilization=0.8,
        conditions=Conditions(
            seconds=2.5,
            load_average=0.5,
            others=0.01,
            stolen=0.0,
            throttled=None,
            megahertz=2600.0,
            page_faults=12_800.0,
        ),
    )
    return msgspec.structs.replace(matched_record, throughput=throughput)


@pytest.fixture
def failed_record(ok_record) -> Record:
    """A cell whose weights did not fit."""
    return Record(
        cell=msgspec.structs.replace(
            ok_record.cell,
            id="keras-native-vgg16-frozen-s0",
            backend="keras",
            architecture="vgg16",
            recipe="native-vgg16-frozen",
            protocol="frozen",
        ),
        status="failed",
        error=Failure(type="WeightsError", message="no tensor 'block1_conv1.weight'"),
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )
