"""TensorFlow's own input pipeline: tf.data over file names, decoding and augmenting in its threads."""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from backends.base import (
    NORMALIZATIONS,
    Batch,
    DataError,
    ImageList,
    Normalization,
    Session,
    Transform,
    one_line,
)

_INTERNALS = re.compile(r"\{\{.*?\}\} ?| ?\[Op:.*")
"""What TensorFlow adds to a message about its own functions and operations."""


PREFETCHED_BATCHES = 2
"""One that is about to be asked for, and one in the making."""


def pipeline(
    images: ImageList, transform: Transform, *, batch_size: int, training: bool, session: Session
) -> Pipeline:
    """Batches of images (N, H, W, 3) float32 and labels (N,) int64 in host memory.

    See `Backend.input_pipeline`.
    """
    paths = [f"{images.root}/{file}" for file in images.files]
    examples = tf.data.Dataset.from_tensor_slices((paths, np.array(images.labels, dtype=np.int64)))
    example = _training_example if training else _testing_example
    # A graph of its own, so that an epoch's dataset is made without tracing it again
    prepare = tf.function(functools.partial(example, transform=transform), autograph=False)

    def epoch() -> Any:
        dataset = examples
        if training:
            # Each image brings its own seeds, two numbers for the crop and two for the flip: threads and
            # their timing have no say in what becomes of it.
            seeds = tf.data.Dataset.random(seed=_seed()).batch(4)
            dataset = tf.data.Dataset.zip((dataset.shuffle(len(paths), seed=_seed()), seeds))
        dataset = dataset.map(prepare, num_parallel_calls=parallel_calls(session), deterministic=True)
        return dataset.batch(batch_size).prefetch(PREFETCHED_BATCHES).with_options(_options())

    if not training:
        epoch = functools.cache(epoch)  # it draws nothing: one serves all
    return Pipeline(epoch, paths, batches=math.ceil(len(paths) / batch_size))


def parallel_calls(session: Session) -> int:
    """Images read at once: as many as asked for, else one for each thread that computes."""
    return session.input_workers or session.threads


def normalize(images: Any, normalization: Normalization, dtype: str = "float32") -> Any:
    """RGB values 0..255 of any number type, (..., W, 3), as a network's input of this floating type."""
    scaling = NORMALIZATIONS[normalization]
    if scaling.channels == "BGR":
        images = images[..., ::-1]
    # Constants of a whole row: three at a time TensorFlow computes three times as long.
    row = (images.shape[-2] or 1, 3)
    mean, deviation = (
        tf.constant(np.broadcast_to(np.array(values, dtype), row))
        for values in (scaling.mean, scaling.deviation)
    )
    return (tf.cast(images, dtype) / scaling.divisor - mean) / deviation


def _seed() -> int:
    """Out of Python's generator, which `Backend.reseed` seeds for each epoch."""
    return random.randrange(2**31)


def _options() -> Any:
    """Without tf.data's autotuning, which its guides recommend. It sleeps for ever longer between two
    looks (10 ms, 20 ms, ... 41 s), and an iterator that is released at the end of an epoch may have to wait
    until it wakes. Seen with TensorFlow 2.21: epochs of 43 s took 82 s, four times in five."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


class Pipeline:
    """A tf.data.Dataset for each epoch, whose errors name the file.

    One that served several epochs would draw on from its first seeds, out of anybody's reach.
    """

    def __init__(self, epoch: Callable[[], Any], paths: Sequence[str], *, batches: int) -> None:
        self._epoch = epoch
        self._paths = paths
        self._batches = batches

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """Raises DataError at the first batch that holds an image which cannot be read."""
        try:
            yield from self._epoch()
        except tf.errors.OpError:
            # TensorFlow's error does not say which file it was about.
            for path in self._paths:
                decoded(path)
            raise


def decoded(path: str) -> Any:
    """An image as the pipeline reads it: (H, W, 3) uint8 RGB.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return _decode(path)
    except tf.errors.OpError as error:
        reason = _INTERNALS.sub("", one_line(error))
        raise DataError(f"image {path} cannot be read ({reason}); replace or remove it") from error


def _decode(path: Any) -> Any:
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _training_example(example: tuple[Any, Any], seeds: Any, *, transform: Transform) -> tuple[Any, Any]:
    path, label = example
    image = _decode(path)
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seeds[:2],
        min_object_covered=0.0,
        aspect_ratio_range=transform.ratio,
        area_range=transform.scale,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.ensure_shape(tf.slice(image, begin, size), (None, None, 3))
    image = tf.image.resize(crop, (transform.size, transform.size))
    image = tf.image.stateless_random_flip_left_right(image, seed=seeds[2:])
    return normalize(image, transform.normalization), label


def _testing_example(path: Any, label: Any, *, transform: Transform) -> tuple[Any, Any]:
    image = _decode(path)
    if transform.resize_mode == "squash":
        size = (transform.resize, transform.resize)
    else:
        size = tf.shape(image)[:2]
        size = transform.resize * size // tf.reduce_min(size)
    image = tf.image.resize(image, size)
    image = tf.image.resize_with_crop_or_pad(image, transform.size, transform.size)
    return normalize(image, transform.normalization), label
