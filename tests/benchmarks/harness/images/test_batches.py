from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import ImageList, Transform
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.images import augment, batches
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.data import list_images
from benchmarks.harness.images.decoded import Decoded, open_decoded

TRANSFORM = Transform(size=16, resize=20)
COUNT, BATCH = 22, 4  # five whole batches and one of two

TRAINING_SHA256 = "e10eea38a016ceda5e5977dcfdb25c9ce89fff4dd10d3df2258cf573792b49ee"
TESTING_SHA256 = "46364f50c3bc689832ae3ab361ef495106cc7a1df71681918ce13b448f9cc71c"


def pixels(index: int) -> np.ndarray:
    """A picture made of arithmetic, each of another size."""
    y, x, channel = np.mgrid[0 : 20 + index, 0 : 41 - index, 0:3]
    return ((x * 7 + y * y + 50 * channel + 29 * index) % 256).astype(np.uint8)


@pytest.fixture
def images(tmp_path) -> ImageList:
    """PNG files, which every decoder reads alike."""
    for index in range(COUNT):
        path = tmp_path / "train" / "ab"[index * 2 // COUNT] / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(index)).save(path)
    return list_images(tmp_path / "train")


@pytest.fixture
def decoded(images) -> Decoded:
    return open_decoded(images, "arithmetic")


@pytest.fixture
def pipeline(decoded, images) -> Callable[..., Batches]:
    """A training pipeline, but for what is said."""

    def make(**changes: Any) -> Batches:
        given = {"batch_size": BATCH, "training": True, "wrap": lambda images, labels: (images, labels)}
        return Batches(
            changes.pop("decoded", decoded), images.labels, changes.pop("transform", TRANSFORM),
            **{**given, **changes},
        )  # fmt: skip

    return make


def sha256(epoch: Batches) -> str:
    for _ in epoch:
        pass
    assert epoch.sha256 is not None
    return epoch.sha256


def threads_of_pipelines() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


class TestContent:
    def test_training_hands_out_every_image_permuted_and_augmented(self, pipeline, images):
        found = list(pipeline(seed=5, epoch=3))
        assert [len(labels) for _, labels in found] == [4, 4, 4, 4, 4, 2]
        places = augment.order(COUNT, seed=5, epoch=3)
        got = np.concatenate([batch for batch, _ in found])
        for row, index in enumerate(places):
            height, width = pixels(index).shape[:2]
            crop = augment.training_crop(width, height, TRANSFORM, seed=5, epoch=3, index=index)
            np.testing.assert_array_equal(
                got[row], augment.training_image(pixels(index), TRANSFORM, crop), err_msg=f"image {index}"
            )
        labels = np.concatenate([labels for _, labels in found])
        assert labels.tolist() == [images.labels[index] for index in places]

    def test_testing_keeps_the_file_order_in_every_epoch(self, pipeline, images):
        test = pipeline(training=False)
        for _ in range(2):
            found = list(test)
            assert np.concatenate([labels for _, labels in found]).tolist() == list(images.labels)
            got = np.concatenate([batch for batch, _ in found])
            expected = [augment.testing_image(pixels(index), TRANSFORM) for index in range(COUNT)]
            np.testing.assert_array_equal(got, expected)

    @pytest.mark.parametrize(("batch_size", "sizes"), [(22, [22]), (100, [22]), (21, [21, 1]), (1, [1] * 22)])
    def test_no_image_is_dropped(self, pipeline, batch_size, sizes):
        for training in (True, False):
            epoch = pipeline(batch_size=batch_size, training=training)
            assert len(epoch) == len(sizes)
            assert [len(labels) for _, labels in epoch] == sizes

    @pytest.mark.parametrize("size", [1, 16, 50])
    def test_arrays_are_what_a_backend_expects_and_belong_to_it(self, pipeline, size):
        found = list(pipeline(transform=Transform(size=size, resize=size)))
        for images, labels in found:
            assert images.shape == (len(labels), size, size, 3)
            assert images.dtype == np.uint8 and labels.dtype == np.int64
            for array in (images, labels):
                assert array.flags.c_contiguous and array.flags.owndata and array.flags.writeable

    def test_the_backend_wraps_in_the_thread_that_asks(self, pipeline):
        names = []

        def wrap(images: np.ndarray, labels: np.ndarray) -> tuple[str, int]:
            names.append(threading.current_thread())
            return "wrapped", len(labels)

        assert next(iter(pipeline(wrap=wrap))) == ("wrapped", 4)
        assert set(names) == {threading.current_thread()}


class TestHash:
    def test_it_is_the_same_in_every_environment(self, pipeline):
        """Python 3.10 to 3.12, NumPy 1 and 2, Pillow 10 and later."""
        assert sha256(pipeline()) == TRAINING_SHA256
        assert sha256(pipeline(training=False)) == TESTING_SHA256

    def test_it_is_what_it_says(self, pipeline):
        epoch = pipeline()
        whole = hashlib.sha256()
        for images, labels in epoch:
            one = hashlib.sha256()
            for number in images.shape:
                one.update(number.to_bytes(8, "little"))
            one.update(images.tobytes())
            for label in labels.tolist():
                one.update(label.to_bytes(8, "little"))
            whole.update(one.digest())
        assert epoch.sha256 == whole.hexdigest()

    @pytest.mark.parametrize("training", [True, False])
    def test_threads_do_not_change_it(self, pipeline, training):
        hashes = {sha256(pipeline(training=training, threads=threads)) for threads in (1, 2, 4, 32)}
        assert len(hashes) == 1

    def test_epochs_are_counted(self, pipeline):
        three = pipeline(epoch=4)
        assert [sha256(three) for _ in range(3)] == [sha256(pipeline(epoch=epoch)) for epoch in (4, 5, 6)]
        assert three.epoch == 7

    @pytest.mark.parametrize(
        "change",
        [{"seed": 1}, {"epoch": 2}, {"batch_size": 5}, {"transform": Transform(size=17, resize=20)}],
    )
    def test_whatever_changes_the_batches_changes_it(self, pipeline, change):
        assert sha256(pipeline(**change)) != sha256(pipeline())

    def test_one_label_changes_it(self, decoded, images):
        hashes = set()
        for labels in (images.labels, (*images.labels[:-1], 0)):
            epoch = Batches(
                decoded, labels, TRANSFORM, batch_size=4, training=True, wrap=lambda *batch: batch
            )
            hashes.add(sha256(epoch))
        assert len(hashes) == 2

    def test_another_process_finds_the_same(self, pipeline, images, decoded):
        program = """
import sys
import msgspec
from backends.base import ImageList, Transform
from benchmarks.harness.images.batches import Batches
from benchmarks.harness.images.decoded import open_decoded
images = msgspec.json.decode(sys.stdin.read(), type=ImageList)
transform = Transform(size=16, resize=20)
batches = Batches(open_decoded(images, "arithmetic"), images.labels, transform,
                  batch_size=4, training=True, wrap=lambda *batch: batch)
for _ in batches: pass
print(batches.sha256)
"""
        answer = subprocess.run(
            [sys.executable, "-c", program],
            input=msgspec.json.encode(images).decode(),
            capture_output=True,
            text=True,
            cwd=PROJECT,
            timeout=60,
            check=True,
        )
        assert answer.stdout.strip() == sha256(pipeline())

    def test_there_is_none_before_the_epoch_s_end(self, pipeline):
        epoch = pipeline()
        assert epoch.sha256 is None
        rest = iter(epoch)
        for _ in range(len(epoch)):
            next(rest)
            assert epoch.sha256 is None
        assert next(rest, None) is None
        assert epoch.sha256 is not None
        next(iter(epoch))
        assert epoch.sha256 is None  # the next epoch has begun


class Broken(Exception):
    pass


class Watched:
    """Counts the batches made of a split, and fails at an image if told to."""

    def __init__(self, decoded: Decoded, failing: int | None = None) -> None:
        self.decoded = decoded
        self.failing = failing
        self.made = 0
        self.error = Broken("image 7")
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, index: int) -> np.ndarray:
        if index == self.failing:
            raise self.error
        return self.decoded[index]

    def release(self) -> None:
        with self.lock:
            self.made += 1


class TestThreads:
    @pytest.mark.parametrize("threads", [1, 3])
    def test_they_stay_a_few_batches_ahead_and_then_rest(self, pipeline, decoded, threads):
        watched = Watched(decoded)
        epoch = iter(pipeline(decoded=watched, batch_size=1, threads=threads))
        for taken in range(1, 5):
            next(epoch)
            ahead = taken + threads + batches.AHEAD
            deadline = time.monotonic() + 10
            while watched.made < ahead and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert watched.made == ahead
        epoch.close()

    def test_they_end_with_the_epoch(self, pipeline):
        epoch = iter(pipeline())
        next(epoch)
        assert threads_of_pipelines()
        for _ in epoch:
            pass
        assert not threads_of_pipelines()

    def test_they_end_where_the_consumer_stops(self, pipeline, decoded):
        watched = Watched(decoded)
        for _ in pipeline(decoded=watched, batch_size=1):
            break
        assert not threads_of_pipelines()
        assert watched.made < COUNT

    @pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
    def test_they_end_where_the_consumer_fails(self, pipeline, error):
        def consume() -> None:
            for _ in pipeline():
                raise error

        with pytest.raises(error):
            consume()
        assert not threads_of_pipelines()

    @pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
    def test_they_end_where_the_backend_fails(self, pipeline, error):
        def wrap(images: np.ndarray, labels: np.ndarray) -> Any:
            raise error

        epoch = pipeline(wrap=wrap)
        with pytest.raises(error):
            list(epoch)
        assert not threads_of_pipelines()
        assert epoch.sha256 is None

    def test_what_one_raises_is_raised_where_its_batch_was_due(self, pipeline, decoded):
        watched = Watched(decoded, failing=7)
        epoch = pipeline(decoded=watched, training=False)
        rest = iter(epoch)
        assert len(next(rest)[1]) == 4  # images 0 to 3 are well
        with pytest.raises(Broken) as caught:
            next(rest)
        assert caught.value is watched.error
        assert not threads_of_pipelines()
        assert epoch.sha256 is None

    def test_two_epochs_at_once_do_not_disturb_each_other(self, pipeline):
        epoch = pipeline()
        first, second = iter(epoch), iter(epoch)
        labels = [Counter(), Counter()]
        for one, other in zip(first, second, strict=True):
            labels[0].update(one[1].tolist())
            labels[1].update(other[1].tolist())
        assert labels[0] == labels[1] == Counter({0: 11, 1: 11})
        assert not threads_of_pipelines()


@pytest.mark.skipif(
    not any(backends.installed(card) for card in backends.known().values()),
    reason="no framework is installed in this environment",
)
def test_the_benchmark_of_the_pipeline_runs(data_folder, tmp_path):
    """`pytest benchmarks/test_input.py` on a folder, at a profile that does not skip it."""
    file = tmp_path / "benchmark.json"
    options = (
        "--data", str(data_folder), "--profile", "cpu", "--run", str(tmp_path / "run"),
        f"--benchmark-json={file}",
    )  # fmt: skip
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks/test_input.py", "-p", "no:cacheprovider", *options],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    for entry in msgspec.json.decode(file.read_bytes())["benchmarks"]:
        assert entry["extra_info"]["images_per_second"] == pytest.approx(20 / entry["stats"]["median"])
        assert entry["extra_info"]["image_size"] in (96, 224)
        assert entry["stats"]["rounds"] == 5
