"""Bottleneck features: extracted once by a backend, kept on disk, and trained from as often as one likes.

`<cache>/features/<key>/` holds `values.npy`, one row of float32 per image of a split in file order, and
`progress.json`, how many of them are there. An extraction that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import time
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

import backends
from backends.architectures import is_head
from backends.base import Backend, Batch, DataError, ModelSpec, NumericalError, Pipeline, Transform, one_line
from benchmarks.harness import environment
from benchmarks.harness.cache import cache_folder, held, intact, seal, write_whole
from benchmarks.harness.images.augment import dropout_mask, order
from benchmarks.harness.images.decoded import Split
from benchmarks.harness.initial import sha256_of
from benchmarks.harness.record import Extraction

VERSION = 1
VALUES, PROGRESS = "values.npy", "progress.json"
NO_ARRAY = (ValueError, EOFError, SyntaxError, tokenize.TokenError)
"""What NumPy makes of a file that is cut off or whose header is damaged."""
SECONDS_BETWEEN_NOTES = 1.0
"""At most this much work is lost by an interruption."""

OnProgress = Callable[[int, int], None]
"""Called with the images done, and how many there are."""


class Progress(msgspec.Struct, frozen=True):
    """How far an extraction is."""

    done: int
    seconds: float = 0.0
    """What it has taken so far."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A split's features."""

    values: np.ndarray
    """(N, F) float32, in file order, mapped into memory, read-only."""
    extraction: Extraction


# --- The store ------------------------------------------------------------------------------------


def key_for(backend: Backend, spec: ModelSpec, transform: Transform, data_key: str, block: str | None) -> str:
    """What decides a split's features, and what they took: the images, the weights below the head, the
    preprocessing, the layer they are taken from, who computes them in which precision, by which code, and on
    how many threads of which processor."""
    body = {name: tensor for name, tensor in backend.export_weights().items() if not is_head(name)}
    session = backend.session
    parts = (
        f"{VERSION} {data_key} {block or 'head'} {backend.info.name} {backends.version(backend.info)}",
        f"{session.track} {session.precision} {session.device} {session.variant}",
        f"{environment.code_sha256()} {session.threads} {environment.cpu_name()}",
        f"{spec.architecture} {spec.head if block is None else ''} {spec.image_size} {spec.normalization}",
        sha256_of(body),
    )
    digest = hashlib.sha256("\n".join(parts).encode() + msgspec.json.encode(transform))
    return digest.hexdigest()[:32]


def open_store(
    backend: Backend,
    spec: ModelSpec,
    transform: Transform,
    *,
    split: Split,
    data_sha256: str,
    count: int,
    pipeline_from: Callable[[int], Pipeline],
    block: str | None = None,
    on_progress: OnProgress = lambda _done, _total: None,
) -> Stored:
    """The features of a split's images: from the store, or extracted now by the network built.

    Args:
        count: images in the split.
        pipeline_from: batches of the split in file order, without augmentation, from this image on.
        block: see `Backend.features`.

    Raises:
        DataError: the store cannot be written or read.
        NumericalError: a feature is not finite.
    """
    key = key_for(backend, spec, transform, f"{data_sha256}-{split}", block)
    folder = cache_folder() / "features" / key
    with _on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        found = _progress(folder, count)
        with _on_disk(folder):
            if found.done == count and not intact(folder):
                found = Progress(0)
        if found.done < count:
            _extract(backend, folder, found, count, pipeline_from(found.done), block, on_progress)
        with _on_disk(folder):
            values = _mapped(folder, "r")
            seconds = _progress(folder, count).seconds
    extraction = Extraction(
        split=split,
        key=key,
        images=count,
        width=values.shape[1],
        bytes=values.nbytes,
        extracted=count - found.done,
        seconds=seconds,
    )
    return Stored(values=values, extraction=extraction)


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    """What the disk refuses, in one line."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"feature store {folder}: {one_line(error)}; make room or remove it,"
            " or let BENCHMARKS_CACHE name another folder"
        ) from error


def _progress(folder: Path, count: int) -> Progress:
    """How much is in the store already; nothing if it is damaged or of another size."""
    with _on_disk(folder):
        try:
            found = msgspec.json.decode((folder / PROGRESS).read_bytes(), type=Progress)
            values = _mapped(folder, "r")
        except (FileNotFoundError, msgspec.DecodeError, *NO_ARRAY):
            return Progress(0)
        fits = values.ndim == 2 and len(values) == count and values.dtype == np.float32
        fits = fits and values.offset + values.nbytes == (folder / VALUES).stat().st_size
    return found if fits and 0 <= found.done <= count else Progress(0)


def _extract(
    backend: Backend,
    folder: Path,
    found: Progress,
    count: int,
    pipeline: Pipeline,
    block: str | None,
    on_progress: OnProgress,
) -> None:
    values: np.ndarray | None = None
    done, begin, noted = found.done, time.monotonic(), time.monotonic()

    def note() -> None:
        assert values is not None
        with _on_disk(folder):
            _note(folder, values, Progress(done, found.seconds + time.monotonic() - begin))

    for rows in _computed(backend, pipeline, block):
        if not np.isfinite(rows).all():
            raise NumericalError("a feature is not finite; the weights do not fit these images")
        if values is None:
            with _on_disk(folder):
                values = _opened(folder, count, rows.shape[1], resume=done > 0)
        values[done : done + len(rows)] = rows
        done += len(rows)
        on_progress(done, count)
        if time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
            note()
            noted = time.monotonic()
    if done != count or values is None:
        raise NumericalError(f"{done} of {count} images gave features: the pipeline drops some")
    note()
    with _on_disk(folder):
        seal(folder)


def _computed(backend: Backend, pipeline: Pipeline, block: str | None) -> Iterator[np.ndarray]:
    """Features of each batch; the next batch is under way while one is handed out."""
    waiting = None
    for batch in pipeline:
        coming = backend.features(batch, block)
        if waiting is not None:
            yield backend.to_numpy(waiting)
        waiting = coming
    if waiting is not None:
        yield backend.to_numpy(waiting)


def _mapped(folder: Path, mode: Literal["r", "r+"]) -> np.memmap[Any, np.dtype[np.float32]]:
    return np.lib.format.open_memmap(folder / VALUES, mode=mode)


def _opened(folder: Path, count: int, width: int, *, resume: bool) -> np.ndarray:
    if resume:
        return _mapped(folder, "r+")
    (folder / PROGRESS).unlink(missing_ok=True)  # before the values it speaks of are written over
    path = folder / VALUES
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, width))
    if hasattr(os, "posix_fallocate"):  # else a disk that fills up kills the process that writes to the map
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return values


def _note(folder: Path, values: np.ndarray, progress: Progress) -> None:
    values.flush()  # type: ignore[attr-defined]
    write_whole(folder / PROGRESS, msgspec.json.encode(progress))


# --- Training from it -----------------------------------------------------------------------------


class FeatureBatches:
    """A `Pipeline` over rows of a store. Each iteration is one epoch, the last and smaller batch included."""

    def __init__(
        self,
        values: np.ndarray,
        labels: Sequence[int],
        *,
        places: Sequence[int],
        batch_size: int,
        training: bool,
        wrap: Callable[..., Batch],
        dropout: tuple[float, int] | None = None,
        seed: int = 0,
        epoch: int = 1,
    ) -> None:
        """Training permutes, testing keeps the order of `places`.

        Args:
            values: (N, F) float32.
            labels: of all N.
            places: the rows that belong to it.
            wrap: `Backend.to_host_batch`.
            dropout: rate, and width of the values that masks are for; None: no masks.
            seed, epoch: as in `Batches`.
        """
        self._values = values
        self._labels = np.array(labels, np.int64)
        self._places = np.array(places)
        self._batch_size = batch_size
        self._training = training
        self._wrap = wrap
        self._dropout = dropout
        self._seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._places) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        places = self._places
        if self._training:
            places = places[order(len(places), seed=self._seed, epoch=epoch)]
        for start in range(0, len(places), self._batch_size):
            rows = places[start : start + self._batch_size]
            arrays = [self._values[rows], self._labels[rows]]
            if self._training and self._dropout is not None:
                rate, width = self._dropout
                masks = (dropout_mask(width, rate, seed=self._seed, epoch=epoch, index=row) for row in rows)
                arrays.append(np.stack(list(masks)))
            yield self._wrap(*arrays)
