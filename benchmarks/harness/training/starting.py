"""What a cell starts from: its conditions, its network, and every weight in it before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backends import architectures, weights
from backends.architectures import HEAD, is_head
from backends.base import NORMALIZATIONS, Backend, DataError, ModelSpec, Session, UsageError, WeightsError
from benchmarks.harness import initial
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.initial import Tensors
from benchmarks.harness.messages import StartingWeights
from benchmarks.harness.plan import Cell
from benchmarks.harness.recipe import HeadRow, Recipe
from benchmarks.harness.record import Weights


def session_of(cell: Cell, *, threads: int, input_workers: int) -> Session:
    """The conditions of a cell."""
    return Session(
        device=cell.device,
        track=cell.recipe.track,
        precision=cell.precision,  # type: ignore[arg-type]
        variant=cell.variant,  # type: ignore[arg-type]
        seed=cell.seed,
        threads=threads,
        input_workers=input_workers,
    )


def build(backend: Backend, cell: Cell, data: DataSet, start: StartingWeights) -> tuple[ModelSpec, Weights]:
    """Build the network with its initial weights. In the matched track all of them come from the harness: the
    body from the checkpoint or drawn, the new head drawn.

    Raises:
        UsageError: the recipe is for another number of classes.
        WeightsError: the checkpoint is missing, damaged, or of another architecture or preprocessing.
    """
    recipe = cell.recipe
    if recipe.classes not in (None, len(data.classes)):
        raise UsageError(
            f"recipe {recipe.id} is for {recipe.classes} classes, and {data.name} has {len(data.classes)};"
            f" choose other --data"
        )
    spec = recipe.model(classes=len(data.classes), image_size=cell.profile.image_size)
    backend.build(spec)
    if recipe.track == "native" and start.name == "imagenet" and start.path is None:
        return spec, Weights(name=backend.load_official(), sha256=None)
    checkpoint = _checkpoint(start, recipe)
    sha256 = checkpoint.sha256 if checkpoint else None
    if recipe.track == "native":
        if checkpoint is not None:
            backend.load_weights(checkpoint.tensors, head=False)
        return spec, Weights(name=start.name, sha256=sha256)
    tensors = initial.draw(spec, seed=cell.seed)
    if checkpoint is not None:
        shapes = {name: tensors[name].shape for name in _reused(recipe, tensors)}
        tensors |= weights.select(checkpoint.tensors, shapes, head=False)
        if recipe.head_row is not None:
            tensors |= head_from_row(checkpoint, recipe.head_row, data.classes)
    backend.load_weights(tensors, head=True)
    return spec, Weights(name=start.name, sha256=sha256, initial_sha256=initial.sha256_of(tensors))


def _reused(recipe: Recipe, tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The tensors that come from the checkpoint."""
    if recipe.reuse_below is None:
        return list(tensors)
    anew = architectures.trained_from(recipe.architecture, recipe.reuse_below)
    return [name for name in tensors if not name.startswith(anew)]


def head_from_row(checkpoint: weights.Checkpoint, head_row: HeadRow, classes: tuple[str, ...]) -> Tensors:
    """A linear head whose one class is a row of the checkpoint's head, and whose others are the mean of all
    its other rows, biases likewise.

    Raises:
        DataError: no such class among `classes`.
        WeightsError: the checkpoint has no such row.
    """
    if head_row.for_class not in classes:
        raise DataError(
            f"no class '{head_row.for_class}' ({', '.join(classes)}): the published head's row"
            f" {head_row.row} ({head_row.name}) is for that one"
        )
    made: Tensors = {}
    for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
        rows = checkpoint.tensors.get(name)
        if rows is None or len(rows) <= head_row.row:
            raise WeightsError(
                f"weights {checkpoint.name}: no row {head_row.row} in '{name}'; this recipe needs the whole"
                " published head (--weights imagenet)"
            )
        others = np.delete(rows, head_row.row, axis=0).mean(axis=0)
        made[name] = np.stack(
            [rows[head_row.row] if name_ == head_row.for_class else others for name_ in classes]
        ).astype(np.float32)
    return made


def _checkpoint(start: StartingWeights, recipe: Recipe) -> weights.Checkpoint | None:
    if start.name == "none":
        return None
    checkpoint = weights.read(path_of(start))
    if start.sha256 is not None and checkpoint.sha256 != start.sha256:
        raise WeightsError(
            f"weights {start.path}: the file has changed since this run was planned; start it again"
        )
    expected, found = recipe.input.normalization, checkpoint.origin.preprocess
    if found in NORMALIZATIONS and found != expected:
        raise WeightsError(
            f"weights {start.path}: made for inputs normalised as '{found}', and recipe {recipe.id} gives"
            f" '{expected}'; choose other weights or another recipe"
        )
    return checkpoint


def path_of(start: StartingWeights) -> Path:
    """The file of the weights.

    Raises:
        WeightsError: there is none.
    """
    if start.path is None:
        raise WeightsError(f"weights {start.name}: no file was given")
    return Path(start.path)


def head_of(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """The head's tensors."""
    return {name: tensor for name, tensor in tensors.items() if is_head(name)}
