from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backends
from backends.base import BackendInfo, DataError, ModelSpec, NumericalError, Session, Transform
from benchmarks.harness import environment, initial
from benchmarks.harness.cache import cache_folder, held
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.images import augment
from benchmarks.harness.training import features
from benchmarks.harness.training.features import FeatureBatches, key_for, open_store

SPEC = ModelSpec(architecture="resnet18", classes=3, image_size=32, initializer="he")
TRANSFORM = Transform(size=32, resize=37)
COUNT, BATCH = 14, 4  # three whole batches and one of two
IMAGES = np.random.RandomState(0).randint(0, 256, (COUNT, 32, 32, 3)).astype(np.uint8)


class StandIn:
    """As much of a backend as the store asks for. Features: mean and largest value of each channel."""

    info = BackendInfo(
        name="stand-in", title="A stand-in", module="numpy", extra="", distributions=("numpy",),
        architectures=("resnet18",), checkpoint_suffixes=(".npy",),
    )  # fmt: skip

    def __init__(self, session: Session | None = None) -> None:
        self.session = session or Session(track="matched")
        self.weights = {"conv1.weight": np.ones((2, 2), np.float32), "head.weight": np.ones(3, np.float32)}

    def export_weights(self) -> dict[str, np.ndarray]:
        return self.weights

    def to_host_batch(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        return images, labels

    def features(self, batch: tuple[np.ndarray, ...], block: str | None = None) -> np.ndarray:
        assert block is None
        images = batch[0].astype(np.float32)
        return np.concatenate([images.mean(axis=(1, 2)), images.max(axis=(1, 2))], axis=1)

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array


@pytest.fixture(scope="module")
def pytorch():
    card = backends.resolve("pytorch")
    if not backends.installed(card):
        pytest.skip("PyTorch is not installed in this environment")
    made = backends.load(card)(Session(track="matched", threads=1))
    made.build(SPEC)
    made.load_weights(initial.draw(SPEC, seed=0), head=True)
    return made


@pytest.fixture(params=["stand-in", "pytorch"])
def backend(request) -> Any:
    return StandIn() if request.param == "stand-in" else request.getfixturevalue("pytorch")


class Broken(Exception):
    """As Ctrl-C or a power cut would, at a place known before."""


class Source:
    """Hands out the images in batches, keeps account of it, and breaks before a batch if told to."""

    def __init__(self, backend: Any, *, breaks_at: int | None = None, images: np.ndarray = IMAGES) -> None:
        self.backend, self.breaks_at, self.images = backend, breaks_at, images
        self.asked: list[int] = []
        self.seen = 0

    def __call__(self, first: int) -> Any:
        self.asked.append(first)
        return self._batches(first)

    def _batches(self, first: int) -> Any:
        for number, start in enumerate(range(first, len(self.images), BATCH)):
            if number == self.breaks_at:
                raise Broken
            batch = self.images[start : start + BATCH]
            self.seen += len(batch)
            yield self.backend.to_host_batch(batch, np.zeros(len(batch), np.int64))


def opened(backend: Any, source: Source | None = None, **changes: Any) -> features.Stored:
    given = {"split": "train", "data_sha256": "d" * 64, "count": COUNT, "block": None}
    given |= {"pipeline_from": source or Source(backend)}
    return open_store(backend, SPEC, TRANSFORM, **{**given, **changes})


def expected(backend: Any, images: np.ndarray = IMAGES) -> np.ndarray:
    """Batch for batch what the backend says."""
    rows = [
        backend.features(backend.to_host_batch(images[start : start + BATCH], np.zeros(1, np.int64)))
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate([backend.to_numpy(row) for row in rows])


def folder_of(stored: features.Stored):
    return cache_folder() / "features" / stored.extraction.key


# --- The key --------------------------------------------------------------------------------------


class TestKey:
    def key(self, **changes: Any) -> str:
        backend = StandIn(Session(**{"track": "matched", **changes.pop("session", {})}))
        backend.weights |= changes.pop("weights", {})
        backend.info = msgspec.structs.replace(backend.info, **changes.pop("info", {}))
        spec = msgspec.structs.replace(SPEC, **changes.pop("spec", {}))
        transform = msgspec.structs.replace(TRANSFORM, **changes.pop("transform", {}))
        data, block = changes.pop("data", "d-train"), changes.pop("block", None)
        assert not changes
        return key_for(backend, spec, transform, data, block)

    @pytest.mark.parametrize(
        "change",
        [
            {"data": "e-train"},
            {"data": "d-test"},
            {"weights": {"conv1.weight": np.full((2, 2), 1 + 1e-6, np.float32)}},
            {"weights": {"fc6.weight": np.ones((2, 2), np.float32)}},
            {"block": "layer4"},
            {"info": {"name": "another"}},
            {"info": {"distributions": ("pytest",)}},  # another version
            {"session": {"device": "cuda"}},
            {"session": {"track": "native"}},
            {"session": {"precision": "float64"}},
            {"session": {"threads": 7}},  # not the values, but what they took
            {"spec": {"image_size": 64}},
            {"spec": {"head": "mlp-256"}},  # which VGG16 flattens for
            {"spec": {"normalization": "caffe"}},
            {"transform": {"size": 31}},
            {"transform": {"resize": 32}},
            {"transform": {"resize_mode": "squash"}},
        ],
    )
    def test_whatever_changes_the_features_changes_it(self, change):
        assert self.key(**change) != self.key()

    @pytest.mark.parametrize(
        "change",
        [
            {"weights": {"head.weight": np.zeros(3, np.float32)}},
            {"weights": {"head.bias": np.zeros(3, np.float32)}},
            {"spec": {"classes": 7}},
            {"spec": {"dropout": 0.5}},
            {"session": {"seed": 5}},
            {"session": {"input_workers": 2}},
        ],
    )
    def test_what_does_not_does_not(self, change):
        assert self.key(**change) == self.key()

    @pytest.mark.parametrize("what", ["code_sha256", "cpu_name"])
    def test_other_code_and_another_machine_do(self, what, monkeypatch):
        before = self.key()
        monkeypatch.setattr(environment, what, lambda: "another")
        assert self.key() != before

    def test_an_earlier_block_does_not_know_the_head(self):
        assert self.key(block="layer4", spec={"head": "mlp-256"}) == self.key(block="layer4")

    def test_splits_are_kept_apart(self, backend):
        keys = {opened(backend, split=split).extraction.key for split in ("train", "test")}
        assert len(keys) == 2

    def test_a_real_network_s_head_is_not_in_it(self, pytorch):
        before = key_for(pytorch, SPEC, TRANSFORM, "d", None)
        tensors = pytorch.export_weights()
        try:
            pytorch.load_weights(tensors | {"head.weight": tensors["head.weight"] + 1}, head=True)
            assert key_for(pytorch, SPEC, TRANSFORM, "d", None) == before
            pytorch.load_weights(tensors | {"bn1.running_mean": tensors["bn1.running_mean"] + 1}, head=True)
            assert key_for(pytorch, SPEC, TRANSFORM, "d", None) != before
        finally:
            pytorch.load_weights(tensors, head=True)


# --- The store ------------------------------------------------------------------------------------


class TestStore:
    def test_it_holds_what_the_backend_computes_in_file_order(self, backend):
        told = []
        found = opened(backend, on_progress=lambda *event: told.append(event))
        np.testing.assert_array_equal(found.values, expected(backend))
        assert told == [(4, 14), (8, 14), (12, 14), (14, 14)]
        width = found.values.shape[1]
        extraction = found.extraction
        assert (extraction.split, extraction.images, extraction.extracted) == ("train", COUNT, COUNT)
        assert (extraction.width, extraction.bytes) == (width, COUNT * width * 4)
        assert extraction.seconds > 0

    def test_it_is_mapped_and_cannot_be_written_to(self, backend):
        values = opened(backend).values
        assert isinstance(values, np.memmap) and values.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            values[0, 0] = 1

    def test_the_second_opening_computes_nothing(self, backend):
        first = opened(backend)
        source = Source(backend)
        again = opened(backend, source)
        assert (again.extraction.extracted, again.extraction.key) == (0, first.extraction.key)
        assert source.seen == 0
        np.testing.assert_array_equal(again.values, first.values)

    def test_a_block_of_the_network_has_a_store_of_its_own(self, pytorch):
        source = Source(pytorch)
        found = opened(pytorch, source, block="layer2")
        assert found.values.shape == (COUNT, 128)
        batch = pytorch.to_host_batch(IMAGES[:BATCH], np.zeros(BATCH, np.int64))
        outputs = pytorch.block_outputs(batch)["layer2"].mean(axis=(2, 3))
        np.testing.assert_allclose(found.values[:BATCH], outputs, rtol=1e-5)
        assert opened(pytorch).extraction.extracted == COUNT  # the head's features are not in it

    @pytest.mark.parametrize("breaks_at", [1, 2, 3])
    def test_what_was_interrupted_goes_on_and_ends_the_same(self, backend, monkeypatch, breaks_at):
        whole = expected(backend)
        monkeypatch.setattr(features, "SECONDS_BETWEEN_NOTES", 0)
        with pytest.raises(Broken):
            opened(backend, Source(backend, breaks_at=breaks_at))
        source = Source(backend)
        found = opened(backend, source)
        done = BATCH * (breaks_at - 1)  # a batch was still under way
        assert source.asked == [done] and source.seen == COUNT - done
        assert found.extraction.extracted == COUNT - done
        np.testing.assert_array_equal(found.values, whole)

    def test_two_interruptions_are_no_worse_than_one(self, backend, monkeypatch):
        monkeypatch.setattr(features, "SECONDS_BETWEEN_NOTES", 0)
        for _ in range(2):
            with pytest.raises(Broken):
                opened(backend, Source(backend, breaks_at=2))
        found = opened(backend)
        assert found.extraction.extracted == COUNT - 2 * BATCH
        np.testing.assert_array_equal(found.values, expected(backend))

    def test_what_was_not_noted_is_computed_again(self, backend):
        """A second has not passed: nothing has been noted, and what the map holds is not trusted."""
        with pytest.raises(Broken):
            opened(backend, Source(backend, breaks_at=3))
        assert opened(backend).extraction.extracted == COUNT

    def test_a_pipeline_that_drops_images_is_an_error(self, backend):
        with pytest.raises(NumericalError, match="12 of 14 images gave features"):
            opened(backend, Source(backend, images=IMAGES[:12]))

    def test_a_feature_that_is_no_number_is_an_error(self):
        backend = StandIn()
        images = IMAGES.astype(np.float32)
        images[9, 0, 0, 0] = np.nan
        with pytest.raises(NumericalError, match="not finite") as caught:
            opened(backend, Source(backend, images=images))
        assert "\n" not in str(caught.value)
        assert opened(backend).extraction.extracted == COUNT  # and no trace of it is left in the store

    def test_a_real_network_that_overflows_is_an_error(self, pytorch):
        tensors = pytorch.export_weights()
        try:
            huge = np.full_like(tensors["bn1.weight"], 3e38)
            pytorch.load_weights(tensors | {"bn1.weight": huge}, head=True)
            with pytest.raises(NumericalError, match="not finite"):
                opened(pytorch)
        finally:
            pytorch.load_weights(tensors, head=True)


def truncated(path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def emptied(path) -> None:
    path.write_bytes(b"")


def with_a_flipped_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def with_unclosed_header(path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))


DAMAGES = {
    "values are gone": ("values.npy", lambda path: path.unlink()),
    "values are cut off": ("values.npy", truncated),
    "values are empty": ("values.npy", emptied),
    "a value is another": ("values.npy", with_a_flipped_bit),
    "values are no array": ("values.npy", lambda path: path.write_bytes(b"PK\3\4" + bytes(200))),
    "the header is damaged": ("values.npy", with_unclosed_header),
    "another precision": ("values.npy", lambda path: np.save(path, np.zeros((COUNT, 6)))),
    "fewer images": ("values.npy", lambda path: np.save(path, np.zeros((COUNT - 1, 6), np.float32))),
    "a flat array": ("values.npy", lambda path: np.save(path, np.zeros(COUNT, np.float32))),
    "progress is gone": ("progress.json", lambda path: path.unlink()),
    "progress is empty": ("progress.json", emptied),
    "progress is cut off": ("progress.json", lambda path: path.write_text('{"done": 1')),
    "progress is no number": ("progress.json", lambda path: path.write_text('{"done": "all"}')),
    "progress is no text": ("progress.json", lambda path: path.write_bytes(b'{"done\xff": 14}')),
    "progress is negative": ("progress.json", lambda path: path.write_text('{"done": -2}')),
    "more than all are done": ("progress.json", lambda path: path.write_text('{"done": 15}')),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_what_is_damaged_is_computed_anew(self, damage):
        backend = StandIn()
        whole = opened(backend)
        name, harm = DAMAGES[damage]
        harm(folder_of(whole) / name)
        found = opened(backend)
        assert found.extraction.extracted == COUNT
        np.testing.assert_array_equal(found.values, expected(backend))
        assert opened(backend).extraction.extracted == 0  # and is whole from then on

    @given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_header_is_an_error(self, changes):
        backend = StandIn()
        path = folder_of(opened(backend)) / "values.npy"
        content = bytearray(path.read_bytes())
        for place, value in changes:
            content[place] = value
        path.write_bytes(content)
        np.testing.assert_array_equal(opened(backend).values, expected(backend))

    def test_damage_is_forgotten_before_values_are_written_over(self, monkeypatch):
        """An interruption while a damaged store is made anew must not leave the old count beside new
        values."""
        backend = StandIn()
        path = folder_of(opened(backend)) / "values.npy"
        truncated(path)
        with pytest.raises(Broken):
            opened(backend, Source(backend, breaks_at=2))
        assert opened(backend).extraction.extracted == COUNT


class TestDisk:
    def complaint(self, backend: Any) -> str:
        with pytest.raises(DataError) as caught:
            opened(backend)
        text = str(caught.value)
        assert "\n" not in text and str(cache_folder()) in text
        assert "make room or remove it" in text and "BENCHMARKS_CACHE" in text
        return text

    def test_a_cache_that_is_a_file_is_one_line(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("BENCHMARKS_CACHE", str(tmp_path / "file"))
        assert "Not a directory" in self.complaint(StandIn()) or os.name != "posix"

    def test_a_note_that_cannot_be_written_is_one_line(self, monkeypatch):
        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        assert "No space left on device" in self.complaint(StandIn())
        monkeypatch.undo()

    def test_a_disk_without_room_is_one_line_and_nothing_is_believed_later(self, monkeypatch):
        """The system's own refusal to make a file that large."""
        wide = StandIn()
        monkeypatch.setattr(StandIn, "features", lambda _self, batch, _block: np.ones((len(batch[0]), 2**14)))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        quiet = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, before[1]))
            self.complaint(wide)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, quiet)
        assert opened(wide).extraction.extracted == COUNT

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room")
    def test_room_is_reserved_before_anything_is_written(self, monkeypatch):
        """In a sparse file a full disk would be met by the write to the map, which kills the process."""
        monkeypatch.setattr(
            StandIn, "features", lambda _self, batch, _block: np.zeros((len(batch[0]), 2**14), np.float32)
        )
        with pytest.raises(Broken):
            opened(StandIn(), Source(StandIn(), breaks_at=2))
        (path,) = (cache_folder() / "features").glob("*/values.npy")
        status = path.stat()
        assert status.st_size > COUNT * 2**16
        assert status.st_blocks * 512 >= status.st_size


# --- Training from it -----------------------------------------------------------------------------

VALUES = np.arange(22, dtype=np.float32)[:, None] + np.array([0, 100, 200], np.float32)
LABELS = tuple(index % 3 for index in range(22))


def batches(**changes: Any) -> FeatureBatches:
    usual = {"places": range(22), "batch_size": 4, "training": True, "wrap": lambda *arrays: arrays}
    return FeatureBatches(VALUES, changes.pop("labels", LABELS), **{**usual, **changes})


def rows_of(epoch: list[tuple[np.ndarray, ...]]) -> list[int]:
    return np.concatenate([batch[0][:, 0] for batch in epoch]).astype(int).tolist()


class TestFeatureBatches:
    @given(
        st.sets(st.integers(0, 21), min_size=1).map(sorted),
        st.integers(1, 30),
        st.booleans(),
        st.integers(0, 2**40),
        st.integers(1, 99),
    )
    @settings(deadline=None)
    def test_an_epoch_has_every_row_once_with_its_label(self, places, batch_size, training, seed, epoch):
        made = batches(places=places, batch_size=batch_size, training=training, seed=seed, epoch=epoch)
        found = list(made)
        assert Counter(rows_of(found)) == Counter(places)
        sizes = [len(batch[1]) for batch in found]
        whole, rest = divmod(len(places), batch_size)
        assert sizes == [batch_size] * whole + [rest] * (rest > 0)
        assert len(made) == len(sizes)
        labels = np.concatenate([batch[1] for batch in found])
        assert labels.tolist() == [LABELS[row] for row in rows_of(found)]
        for values, labels in found:
            assert values.shape == (len(labels), 3) and values.dtype == np.float32
            assert labels.dtype == np.int64
            np.testing.assert_array_equal(values, VALUES[values[:, 0].astype(int)])

    def test_arrays_belong_to_the_backend(self):
        read_only = VALUES.copy()
        read_only.flags.writeable = False
        made = FeatureBatches(
            read_only, LABELS, places=range(22), batch_size=4, training=False, wrap=lambda *arrays: arrays
        )
        for arrays in made:
            assert all(array.flags.c_contiguous and array.flags.writeable for array in arrays)

    def test_training_permutes_as_the_images_are_permuted(self):
        made = batches(seed=5, epoch=3)
        assert rows_of(list(made)) == augment.order(22, seed=5, epoch=3)
        assert rows_of(list(made)) == augment.order(22, seed=5, epoch=4)
        assert made.epoch == 5

    def test_the_same_seed_and_epoch_give_the_same_batches(self):
        orders = {
            (seed, epoch): rows_of(list(batches(seed=seed, epoch=epoch)))
            for seed in range(3)
            for epoch in range(1, 4)
        }
        assert len({tuple(order) for order in orders.values()}) == 9
        assert rows_of(list(batches(seed=2, epoch=1))) == orders[2, 1]

    def test_testing_keeps_the_order_in_every_epoch(self):
        made = batches(training=False, places=(7, 3, 21, 0))
        for _ in range(2):
            assert rows_of(list(made)) == [7, 3, 21, 0]

    def test_masks_belong_to_the_image_and_the_epoch(self):
        """The same ones that `Batches` gives it, wherever it comes in whatever part."""
        everything = batches(dropout=(0.5, 70), seed=3, epoch=2)
        part = batches(dropout=(0.5, 70), seed=3, epoch=2, places=(20, 4, 9, 1, 2), batch_size=2)
        for made in (everything, part):
            for values, labels, masks in made:
                assert masks.shape == (len(labels), 70) and masks.dtype == np.uint8
                for row, mask in zip(values[:, 0].astype(int).tolist(), masks, strict=True):
                    kept = augment.dropout_mask(70, 0.5, seed=3, epoch=2, index=row)
                    np.testing.assert_array_equal(mask, kept)

    def test_another_epoch_has_other_masks(self):
        made = batches(dropout=(0.5, 64))
        first, second = ({row: mask.tobytes() for row, mask in masks_by_row(made)} for _ in range(2))
        assert first.keys() == second.keys()
        assert not any(first[row] == second[row] for row in first)

    def test_testing_has_no_masks(self):
        assert {len(arrays) for arrays in batches(training=False, dropout=(0.5, 70))} == {2}
        assert {len(arrays) for arrays in batches(dropout=None)} == {2}

    def test_a_store_may_be_trained_from_as_it_is_mapped(self, pytorch):
        """The head alone, in a real backend, takes these batches."""
        stored = opened(pytorch)
        alone = backends.load(pytorch.info)(Session(track="matched", threads=1))
        alone.build(msgspec.structs.replace(SPEC, entry="features"))
        made = FeatureBatches(
            stored.values, [0, 1] * 7, places=range(COUNT), batch_size=BATCH, training=False,
            wrap=alone.to_host_batch,
        )  # fmt: skip
        logits = np.concatenate([alone.to_numpy(alone.logits(batch)) for batch in made])
        head = alone.export_weights()
        by_hand = stored.values @ head["head.weight"].T + head["head.bias"]
        np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4 * np.abs(by_hand).max())


def masks_by_row(made: FeatureBatches):
    for values, _, masks in made:
        yield from zip(values[:, 0].astype(int).tolist(), masks, strict=True)


def test_a_second_process_waits_for_the_first(tmp_path):
    """And finds what the first has made, instead of writing over it."""
    code = (
        "import pathlib, sys\n"
        "from benchmarks.harness.cache import held\n"
        "with held(pathlib.Path(sys.argv[1])): print(pathlib.Path(sys.argv[1], 'made').exists())\n"
    )
    with held(tmp_path):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
        )
        time.sleep(1.5)
        assert other.poll() is None
        (tmp_path / "made").touch()
    assert other.communicate(timeout=30)[0].strip() == "True"
