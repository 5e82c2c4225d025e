"""Where pretrained weights come from: network A, which this suite trains itself where no published ones are
to be had (step 1 of the hotdog chapter), and the published checkpoint that the whole matched track starts
from.

Both are kept in the cache: network A under a key made from the recipe and the images, so that the same
network is trained once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from backends import weights
from backends.base import UsageError, WeightsError
from benchmarks.harness.cache import cache_folder
from benchmarks.harness.images import data
from benchmarks.harness.messages import PretrainJob, PublishedJob, StartingWeights
from benchmarks.harness.recipe import Recipe
from benchmarks.harness.running import runner
from benchmarks.harness.running.progress import Display, JobProgress


def source_key(recipe: Recipe, images: data.DataSet) -> str:
    """What decides the weights: every hyper-parameter, and every byte of the images."""
    return hashlib.sha256(msgspec.json.encode(recipe) + images.sha256.encode()).hexdigest()


def source_path(recipe: Recipe, images: data.DataSet) -> Path:
    """Where the weights of a pretraining recipe are kept."""
    key = source_key(recipe, images)[:16]
    return cache_folder() / "weights" / f"source-{recipe.backend}-{recipe.architecture}-{key}.safetensors"


def network_a(recipe: Recipe, *, device: str, display: Display) -> StartingWeights:
    """Network A of a `pretrain` recipe: from the cache, or trained now and kept.

    Raises:
        JobFailed: the training failed; says why.
    """
    with JobProgress("source data", display) as shown:
        images = data.open_source(shown.images)
    path = source_path(recipe, images)
    if not _whole(path):
        threads = runner.threads()
        job = PretrainJob(
            recipe=recipe,
            data=images,
            key=source_key(recipe, images),
            target=str(path),
            device=device,
            threads=threads,
            input_workers=runner.input_workers(device, threads),
        )
        with JobProgress(recipe.id, display) as shown:
            runner.pretrain(job, log=path.with_suffix(".log"), on_event=shown.on_event)
    return StartingWeights(name="source", path=str(path), sha256=weights.sha256_of(path.read_bytes()))


def published(recipe: Recipe, *, display: Display) -> StartingWeights:
    """The ImageNet checkpoint that every backend starts from in the matched track: from the cache, or
    fetched and converted once by the backend that publishes it.

    Raises:
        JobFailed: it could not be fetched or verified; says why.
        UsageError: the recipe names nobody who publishes one.
    """
    if recipe.published_by is None:
        raise UsageError(f"--weights imagenet: recipe {recipe.id} does not say whose")
    name = f"imagenet-{recipe.published_by}-{recipe.architecture}"
    path = cache_folder() / "weights" / f"{name}.safetensors"
    if not _whole(path):
        job = PublishedJob(
            backend=recipe.published_by,
            architecture=recipe.architecture,
            normalization=recipe.input.normalization,
            target=str(path),
        )
        with JobProgress(name, display):
            runner.weights(job, log=path.with_suffix(".log"))
    return StartingWeights(name="imagenet", path=str(path), sha256=weights.sha256_of(path.read_bytes()))


def _whole(path: Path) -> bool:
    """Whether a checkpoint is there as it was written. One that is damaged is made anew."""
    try:
        weights.read(path)
    except WeightsError:
        return False
    return True
