"""The matched track's input pipeline: the same bytes, in the same order, for every backend.

Threads make the batches, since Pillow and hashlib let go of the interpreter while they work. They stay a few
batches ahead and then rest, so that training has the cores.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from backends.base import Batch, Transform
from benchmarks.harness.images.augment import (
    dropout_mask,
    order,
    testing_image,
    training_crop,
    training_image,
)
from benchmarks.harness.images.decoded import Decoded

THREADS = 2
"""That make batches. Two hide each other's waiting; beside training on every core they take what little a
batch needs, a few per cent of a step."""
AHEAD = 2
"""Finished batches that may wait while a step runs, beside one per thread in the making: then they rest."""

Wrap = Callable[..., Batch]
"""Takes images (N, S, S, 3) uint8 RGB, labels (N,) int64 and, where there is dropout, masks (N, W) uint8, all
C-contiguous and nobody else's, so that it may keep them: `Backend.to_host_batch`."""


class Made(msgspec.Struct, frozen=True):
    """A batch, and the SHA-256 of it."""

    arrays: tuple[np.ndarray, ...]
    """Images, labels, masks."""
    digest: bytes


class Batches:
    """A `Pipeline` over images of a decoded split. Each iteration is one epoch, the last and smaller batch
    included."""

    def __init__(
        self,
        decoded: Decoded,
        labels: Sequence[int],
        transform: Transform,
        *,
        places: Sequence[int] | None = None,
        batch_size: int,
        training: bool,
        wrap: Wrap,
        dropout: tuple[float, int] | None = None,
        seed: int = 0,
        epoch: int = 1,
        threads: int = THREADS,
    ) -> None:
        """Training permutes and augments, testing keeps the order of `places`.

        Args:
            labels: of the split's images, in file order.
            places: of the images that belong to it; None: all.
            dropout: rate, and width of the values that masks are for; None: no masks.
            wrap: makes what is handed out, in the thread that asks for it.
            seed, epoch: with the image's index all that chance depends on; each iteration counts `epoch` up.
            threads: that make batches; changes nothing but the speed.
        """
        self._decoded = decoded
        self._labels = np.array(labels, np.int64)
        self._places = range(len(decoded)) if places is None else places
        self._transform = transform
        self._batch_size = batch_size
        self._training = training
        self._wrap = wrap
        self._dropout = dropout
        self._seed = seed
        self._threads = threads
        self.epoch = epoch
        """Of the next iteration."""
        self.sha256: str | None = None
        """Of the latest epoch's batches, in hex; None until it has been consumed to its end. SHA-256 over the
        SHA-256 of each batch in order; a batch's is over the images' shape (four little-endian int64), the
        images' bytes, the labels' (little-endian int64) and the masks'."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._places) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch. Its threads end when it has been consumed or closed; what one raises is raised here."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.sha256 = None
        return self._epoch(epoch)

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        count, places = len(self._places), self._places
        if self._training:
            places = [places[index] for index in order(count, seed=self._seed, epoch=epoch)]
        digest = hashlib.sha256()
        waiting: deque[Future[Made]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="batches")
        try:
            for start in range(0, count, self._batch_size):
                waiting.append(pool.submit(self._make, epoch, places[start : start + self._batch_size]))
                if len(waiting) > self._threads + AHEAD:
                    yield self._handed(waiting.popleft(), digest)
            while waiting:
                yield self._handed(waiting.popleft(), digest)
            self.sha256 = digest.hexdigest()
        finally:
            pool.shutdown(cancel_futures=True)

    def _handed(self, future: Future[Made], digest: hashlib._Hash) -> Batch:
        made = future.result()
        digest.update(made.digest)
        return self._wrap(*made.arrays)

    def _make(self, epoch: int, places: Sequence[int]) -> Made:
        size = self._transform.size
        images = np.empty((len(places), size, size, 3), np.uint8)  # a fresh one, as a framework may keep it
        for row, index in enumerate(places):
            images[row] = self._image(epoch, index)
        self._decoded.release()
        arrays: tuple[np.ndarray, ...] = (images, self._labels[list(places)])
        if self._dropout is not None:
            arrays += (self._masks(epoch, places, *self._dropout),)
        return Made(arrays, _sha256(*arrays))

    def _masks(self, epoch: int, places: Sequence[int], rate: float, width: int) -> np.ndarray:
        return np.stack(
            [dropout_mask(width, rate, seed=self._seed, epoch=epoch, index=index) for index in places]
        )

    def _image(self, epoch: int, index: int) -> np.ndarray:
        pixels = self._decoded[index]
        if not (self._training and self._transform.augment):
            return testing_image(pixels, self._transform)
        height, width = pixels.shape[:2]
        crop = training_crop(width, height, self._transform, seed=self._seed, epoch=epoch, index=index)
        return training_image(pixels, self._transform, crop)


def _sha256(images: np.ndarray, labels: np.ndarray, masks: np.ndarray | None = None) -> bytes:
    digest = hashlib.sha256(np.array(images.shape, "<i8").data)
    digest.update(images.data)
    digest.update(labels.astype("<i8", copy=False).data)
    if masks is not None:
        digest.update(masks.data)
    return digest.digest()
