"""TensorFlow's own input pipeline: tf.data over file names, decoding and augmenting in its threads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from backends.base import (
    CAFFE_MEAN_BGR,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Batch,
    DataError,
    ImageList,
    Session,
    Transform,
    one_line,
)


def pipeline(
    images: ImageList, transform: Transform, *, batch_size: int, training: bool, session: Session
) -> Pipeline:
    """Batches of images (N, H, W, 3) float32 and labels (N,) int64 in host memory; see `Backend.input_pipeline`."""
    paths = [f"{images.root}/{file}" for file in images.files]
    dataset = tf.data.Dataset.from_tensor_slices((paths, np.array(images.labels, dtype=np.int64)))
    if training:
        dataset = dataset.shuffle(len(paths), seed=session.seed, reshuffle_each_iteration=True)
        # Each image brings its own seeds (two for the crop, two for the flip), so threads and timing decide nothing.
        seeds = tf.data.Dataset.random(seed=session.seed, rerandomize_each_iteration=True).batch(4)
        dataset = tf.data.Dataset.zip((dataset, seeds))

        def prepare(example: Any, seed: Any) -> Any:
            return _training_image(example[0], seed, transform), example[1]
    else:

        def prepare(path: Any, label: Any) -> Any:
            return _testing_image(path, transform), label

    dataset = dataset.map(prepare, num_parallel_calls=parallel_calls(session), deterministic=True)
    return Pipeline(dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE), paths)


def parallel_calls(session: Session) -> int:
    """Images read at once; no number asked for leaves it to tf.data, as TensorFlow's guides do."""
    return session.input_workers or tf.data.AUTOTUNE


class Pipeline:
    """A tf.data.Dataset whose errors name the file."""

    def __init__(self, dataset: Any, paths: Sequence[str]) -> None:
        self._dataset = dataset
        self._paths = paths

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Batch]:
        """Raises DataError at the first batch that holds an image which cannot be read."""
        try:
            yield from self._dataset
        except tf.errors.OpError as error:
            # TensorFlow's error does not say which file it was about.
            for path in self._paths:
                _require_readable(path)
            raise


def _require_readable(path: str) -> None:
    try:
        _decode(path)
    except tf.errors.OpError as error:
        reason = re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\].*", "", one_line(error))  # names of TensorFlow's internals
        raise DataError(f"image {path} cannot be read ({reason}); replace or remove it") from error


def _decode(path: Any) -> Any:
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _training_image(path: Any, seeds: Any, transform: Transform) -> Any:
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
    return _normalize(tf.image.stateless_random_flip_left_right(image, seed=seeds[2:]), transform)


def _testing_image(path: Any, transform: Transform) -> Any:
    image = _decode(path)
    if transform.resize_mode == "squash":
        size = (transform.resize, transform.resize)
    else:
        size = tf.shape(image)[:2]
        size = transform.resize * size // tf.reduce_min(size)
    image = tf.image.resize(image, size)
    return _normalize(tf.image.resize_with_crop_or_pad(image, transform.size, transform.size), transform)


def _normalize(image: Any, transform: Transform) -> Any:
    if transform.normalization == "imagenet":
        return (image / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    return image[..., ::-1] - CAFFE_MEAN_BGR
