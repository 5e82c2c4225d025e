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
from benchmarks.harness.augment import order, testing_image, training_crop, training_image
from benchmarks.harness.decoded import Decoded

THREADS = 2
"""That make batches. Two hide each other's waiting; beside training on every core they take what little a
batch needs, a few per cent of a step."""
AHEAD = 2
"""Finished batches that may wait while a step runs, beside one per thread in the making: then they rest."""

Wrap = Callable[[np.ndarray, np.ndarray], Batch]
"""Takes images (N, S, S, 3) uint8 RGB and labels (N,) int64, both C-contiguous and nobody else's, so that it
may keep them: `Backend.to_host_batch`."""


class Made(msgspec.Struct, frozen=True):
    """A batch, and the SHA-256 of it."""

    images: np.ndarray
    labels: np.ndarray
    digest: bytes


class Batches:
    """A `Pipeline` over a decoded split. Each iteration is one epoch, the last and smaller batch included."""

    def __init__(
        self,
        decoded: Decoded,
        labels: Sequence[int],
        transform: Transform,
        *,
        batch_size: int,
        training: bool,
        wrap: Wrap,
        seed: int = 0,
        epoch: int = 1,
        threads: int = THREADS,
    ) -> None:
        """Training permutes and augments, testing keeps the file order.

        Args:
            labels: of the split's images, in file order.
            wrap: makes what is handed out, in the thread that asks for it.
            seed, epoch: with the image's index all that chance depends on; each iteration counts `epoch` up.
            threads: that make batches; changes nothing but the speed.
        """
        self._decoded = decoded
        self._labels = np.array(labels, np.int64)
        self._transform = transform
        self._batch_size = batch_size
        self._training = training
        self._wrap = wrap
        self._seed = seed
        self._threads = threads
        self.epoch = epoch
        """Of the next iteration."""
        self.sha256: str | None = None
        """Of the latest epoch's batches, in hex; None until it has been consumed to its end. SHA-256 over the
        SHA-256 of each batch in order; a batch's is over the images' shape (four little-endian int64), the
        images' bytes and the labels' (little-endian int64)."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._decoded) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch. Its threads end when it has been consumed or closed; what one raises is raised here."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        self.sha256 = None
        return self._epoch(epoch)

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        count = len(self._decoded)
        places = order(count, seed=self._seed, epoch=epoch) if self._training else range(count)
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
        return self._wrap(made.images, made.labels)

    def _make(self, epoch: int, places: Sequence[int]) -> Made:
        size = self._transform.size
        images = np.empty((len(places), size, size, 3), np.uint8)  # a fresh one, as a framework may keep it
        for row, index in enumerate(places):
            images[row] = self._image(epoch, index)
        self._decoded.release()
        labels = self._labels[places]
        return Made(images, labels, _sha256(images, labels))

    def _image(self, epoch: int, index: int) -> np.ndarray:
        pixels = self._decoded[index]
        if not self._training:
            return testing_image(pixels, self._transform)
        height, width = pixels.shape[:2]
        crop = training_crop(width, height, self._transform, seed=self._seed, epoch=epoch, index=index)
        return training_image(pixels, self._transform, crop)


def _sha256(images: np.ndarray, labels: np.ndarray) -> bytes:
    digest = hashlib.sha256(np.array(images.shape, "<i8").data)
    digest.update(images.data)
    digest.update(labels.astype("<i8", copy=False).data)
    return digest.digest()
