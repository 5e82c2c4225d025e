"""What a backend's process does with weights: train network A, fetch what is published, and go between the
framework's own files and neutral ones."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

import backends
from backends import architectures, weights
from backends.base import Backend, BenchmarkError, ModelSpec, Session, WeightsError
from benchmarks.harness import initial
from benchmarks.harness.images import pipelines
from benchmarks.harness.messages import (
    Emit,
    EpochEnd,
    PretrainDone,
    PretrainJob,
    PublishedJob,
    ReadCheckpointJob,
    Stage,
    WeightsDone,
    WriteCheckpointJob,
)
from benchmarks.harness.record import Training
from benchmarks.harness.training import loop, phases

IMAGENET_CLASSES, IMAGENET_SIZE = 1000, 224
VERIFIED_IMAGES = 4


def pretrain(job: PretrainJob, emit: Emit) -> PretrainDone:
    """Train network A on the source set and keep all of it, its own head included, as neutral weights."""
    begin = time.perf_counter()
    card = backends.resolve(str(job.recipe.backend))
    emit(Stage(text=f"importing {card.title}"))
    backend = backends.load(card)(
        Session(
            device=job.device, track=job.recipe.track, threads=job.threads, input_workers=job.input_workers
        )
    )
    image_size = job.recipe.image_size
    if image_size is None:
        raise BenchmarkError(f"recipe {job.recipe.id}: pretraining needs its image_size written down")
    spec = job.recipe.model(classes=len(job.data.classes), image_size=image_size)
    backend.build(spec)
    backend.set_trainable(job.recipe.trainable)
    backend.configure_optimizer(job.recipe.optimizer)
    settings = Training(
        epochs=job.recipe.epochs,
        batch_size=job.recipe.batch_size,
        image_size=image_size,
        optimizer=job.recipe.optimizer,
    )
    parts = pipelines.parts_of(job.data, None)
    train, test = (
        pipelines.native(backend, job.recipe, job.data, part, settings, training=part is parts.train)
        for part in (parts.train, parts.test)
    )
    accuracy = 0.0
    for result in loop.epochs(
        backend,
        train,
        pipelines.Scored(test, parts.test.labels),
        train_images=len(parts.train.places),
        last=settings.epochs,
        on_step=phases.step_events(emit, settings.epochs),
    ):
        emit(EpochEnd(row=result.row, epochs=settings.epochs))
        accuracy = result.row.test_accuracy
    sha256 = weights.write(
        Path(job.target),
        backend.export_weights(),
        weights.Origin(
            architecture=job.recipe.architecture,
            origin=f"{card.title} {backends.version(card)}, {job.recipe.id}, {job.data.name}"
            f" {job.data.sha256[:12]}",
            preprocess=job.recipe.input.normalization,
            key=job.key,
        ),
    )
    return PretrainDone(sha256=sha256, accuracy=accuracy, seconds=time.perf_counter() - begin)


def fetch_published(job: PublishedJob) -> WeightsDone:
    """Write a published checkpoint, its 1000-way head included, as neutral weights."""
    spec = ModelSpec(
        architecture=job.architecture,
        classes=IMAGENET_CLASSES,
        image_size=IMAGENET_SIZE,
        head="fc6-fc7" if job.architecture == "vgg16" else "linear",
        normalization=job.normalization,
    )
    backend = _backend(job.backend)
    backend.build(spec)
    name = backend.load_official(head=True)
    _export(backend, spec, name, Path(job.target))
    return WeightsDone(name=name, spec=spec)


def read_checkpoint(job: ReadCheckpointJob) -> WeightsDone:
    """Read a framework's own file."""
    path = Path(job.path)
    backend = _backend(job.backend)
    spec = _inspected(backend, path, job.architecture)
    normalization = job.normalization or architectures.architecture_of(spec.architecture).normalization
    spec = msgspec.structs.replace(spec, normalization=normalization)
    backend.build(spec)
    backend.load_checkpoint(path)
    _export(backend, spec, path.name, Path(job.target))
    return WeightsDone(name=path.name, spec=spec, logits=_logits(backend, spec) if job.infer else ())


def write_checkpoint(job: WriteCheckpointJob) -> WeightsDone:
    """Write a framework's own file. The network never ran before: what a forward overwrites is as it was
    loaded."""
    backend = _backend(job.backend)
    backend.build(job.spec)
    backend.load_weights(weights.read(Path(job.source)).tensors, head=True)
    backend.save_checkpoint(Path(job.path))
    logits = _logits(backend, job.spec) if job.infer else ()
    return WeightsDone(name=Path(job.path).name, spec=job.spec, logits=logits)


# --- How ------------------------------------------------------------------------------------------


def _backend(name: str) -> Backend:
    return backends.load(backends.resolve(name))(Session(track="matched"))


def _inspected(backend: Backend, path: Path, architecture: str | None) -> ModelSpec:
    if architecture is not None:
        return backend.inspect_checkpoint(path, architecture)
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    complaints = []
    for name in backend.info.architectures:
        try:
            return backend.inspect_checkpoint(path, name)
        except WeightsError as error:
            complaints.append(f"not {name}: {error}")
    raise WeightsError(f"weights {path}: {complaints[0]}; name its architecture with --arch")


def _export(backend: Backend, spec: ModelSpec, name: str, target: Path) -> None:
    origin = weights.Origin(
        architecture=spec.architecture,
        origin=f"{backend.info.title}: {name}",
        preprocess=spec.normalization,
    )
    weights.write(target, backend.export_weights(), origin)


def _logits(backend: Backend, spec: ModelSpec) -> tuple[tuple[float, ...], ...]:
    shape = (VERIFIED_IMAGES, spec.image_size, spec.image_size, 3)
    images = initial.generator("verify").randint(0, 256, shape).astype("uint8")
    labels = initial.generator("verify").randint(0, spec.classes, VERIFIED_IMAGES).astype("int64")
    logits = backend.to_numpy(backend.logits(backend.to_host_batch(images, labels)))
    return tuple(tuple(map(float, row)) for row in logits)
