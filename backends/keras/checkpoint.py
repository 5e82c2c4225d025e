"""Files: the official checkpoint, and Keras' own formats.

Written as Keras' users write them: `.h5` and `.keras` hold a whole model of Keras' own layers, `.weights.h5`
its weights. Read through h5py and never by `load_model`, since a model's configuration may bring code (a
Lambda layer is marshalled bytecode). Layers are known by their names, ours or keras.applications'; a layer's
variables by their order, which is the same in all of Keras' formats.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import os
import socket
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import msgspec
import numpy as np

from backends.architectures import HEAD, architecture_of, is_head, spec_of
from backends.base import BenchmarkError, ModelSpec, UsageError, WeightsError, one_line, require_architecture
from backends.keras import INFO, hdf5, models

DOWNLOAD_SILENCE = 10.0
"""Seconds without a byte after which a download has failed; Keras itself would wait for ever."""

LARGEST_CONFIG = 2**24
"""Bytes that the JSON in a .keras archive may unpack to."""
LARGEST_GROWTH = 10
"""How many times an archive's size its weights may unpack to: Keras does not compress them, and others gain
little by it."""


class Published(msgspec.Struct, frozen=True):
    """A checkpoint that keras.applications publishes."""

    url: str
    md5: str


OFFICIAL: Mapping[str, Mapping[bool, Published]] = {
    "vgg16": {
        source.head: Published(str(source.url), source.digest.removeprefix("md5:")) for source in INFO.sources
    }
}
"""ImageNet weights by architecture, with the fully connected layers and without."""


# --- What it offers -------------------------------------------------------------------------------


def fetch_official(architecture: str, *, top: bool) -> tuple[Path, str]:
    """The checkpoint in Keras' cache, fetched into it first if it is not there, and its verified MD5. With
    `top` the one that has the fully connected layers.

    Raises:
        WeightsError: there is none, it cannot be fetched, or its hash is wrong.
    """
    if architecture not in OFFICIAL:
        raise WeightsError(
            f"keras {architecture}: keras.applications publishes no weights of it, only of"
            f" {', '.join(OFFICIAL)}; choose --weights source or --weights PATH"
        )
    published = OFFICIAL[architecture][top]
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    path = folder / published.url.rsplit("/", 1)[1]
    way_out = f"put the file into {folder}, or choose --weights source or --weights PATH"
    if not path.exists():
        try:
            # Keras downloads in place and leaves there what it could not verify: let it do so elsewhere.
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial, _download_manners():
                fetched = keras.utils.get_file(
                    path.name, published.url, cache_dir=partial, cache_subdir="", file_hash=published.md5
                )
                Path(fetched).replace(path)
        except Exception as error:  # `get_file` raises nothing more particular
            raise WeightsError(
                f"keras {architecture}: {published.url} could not be fetched and verified"
                f" ({one_line(error)}); {way_out}"
            ) from error
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != published.md5:
        raise WeightsError(
            f"keras {architecture}: {path} has the MD5 {found} instead of {published.md5};"
            f" remove it, then {way_out}"
        )
    return path, found


def inspect(path: Path, architecture: str) -> ModelSpec:
    """What to build for a file: classes and head off its tensors' shapes, and the image size where features
    were flattened; elsewhere it is that of the published networks.

    Raises:
        UsageError: no such architecture here.
        WeightsError: missing, truncated, not a Keras file, or of another architecture; names the first wrong
            tensor.
    """
    require_architecture(INFO, architecture)
    with _opened(path, architecture) as tensors:
        return _spec(path, tensors, architecture)


def load(network: models.Network, spec: ModelSpec, path: Path, *, head: bool = True) -> None:
    """Load a file into a network of this specification, the head's tensors too if `head`. Not one tensor
    changes when any is wrong.

    Raises:
        WeightsError: as `inspect`; or the network has another head or class count, or a tensor is not finite.
    """
    layouts = {name: layout for name, layout in models.layouts(spec).items() if head or not is_head(name)}
    with _opened(path, spec.architecture) as tensors:
        _require(path, tensors, layouts, spec)
        values = {name: np.asarray(tensors[name][()]) for name in layouts}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise WeightsError(f"{path}: tensor '{name}' holds NaN or infinity; the file cannot be used")
    variables = models.neutral_tensors(network, spec)
    for name, value in values.items():
        variables[name].assign(value)


def save(network: models.Network, path: Path) -> None:
    """Write the network, softmax or sigmoid included, in the format that the suffix asks for; whole or not
    at all.

    Raises:
        UsageError: the suffix is not one of Keras'.
        WeightsError: it cannot be written.
    """
    if path.suffix not in INFO.checkpoint_suffixes:
        suffixes = ", ".join(INFO.checkpoint_suffixes)
        raise UsageError(f"{path}: keras writes no '{path.suffix}' files; give one of: {suffixes}")
    # Of the same layers, but compiled by nobody: the files would hold the optimiser too.
    whole = network.probabilities
    uncompiled = keras.Model(whole.input, whole.output, name=whole.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="partial-") as folder, _without_advice():
            partial = Path(folder) / path.name
            if path.name.endswith(".weights.h5"):  # what Keras' users call a file without a configuration
                uncompiled.save_weights(partial)
            else:
                models.plain(uncompiled).save(partial)
            partial.replace(path)
    except (OSError, RuntimeError) as error:  # h5py raises the latter where HDF5 could not write
        raise WeightsError(
            f"{path}: cannot be written ({one_line(error)}); name another folder, or make room"
        ) from error


# --- Manners of Keras -----------------------------------------------------------------------------


@contextlib.contextmanager
def _download_manners() -> Iterator[None]:
    """No progress bar and no endless wait: Keras' loader takes no argument for either."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_SILENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Without Keras' warning that .h5 is considered legacy, which was asked for, and NumPy's about how Keras
    converts each of its variables."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)


# --- What a file should hold ----------------------------------------------------------------------

Tensors = Mapping[str, Any]
"""h5py's datasets, not read yet, or arrays; by neutral name, in Keras' layouts."""

_HEADS: Mapping[tuple[int, ...], tuple[str, ...]] = {
    (): (HEAD,),
    (256,): (f"{HEAD}.fc1", f"{HEAD}.fc2"),
    (1024, 128): (f"{HEAD}.fc1", f"{HEAD}.fc2", f"{HEAD}.fc3"),
    (4096, 4096): ("fc6", "fc7", HEAD),
}
"""Neutral names of the affine layers that somebody named otherwise, by the widths of all but the last."""


def _spec(path: Path, tensors: Tensors, architecture: str) -> ModelSpec:
    def shape_of(_: ModelSpec, name: str) -> tuple[int, ...] | None:
        return tuple(reversed(tensors[name].shape)) if name in tensors else None  # (in, out) in Keras

    declared = architecture_of(architecture)
    spec = msgspec.structs.replace(spec_of(architecture, shape_of), normalization=declared.normalization)
    _require(path, tensors, models.layouts(spec), spec)
    return spec


def _require(path: Path, tensors: Tensors, layouts: Mapping[str, models.Layout], spec: ModelSpec) -> None:
    """Raise WeightsError at the first tensor that is missing, of another shape or type."""
    for name, layout in layouts.items():
        if name not in tensors:
            found = ", ".join(map(repr, list(tensors)[:3])) or "nothing"
            raise WeightsError(
                f"{path}: no tensor '{name}' (the file begins with {found}); give one of {spec.architecture},"
                " saved with its head"
            )
        if tuple(tensors[name].shape) != layout.shape:
            raise WeightsError(
                f"{path}: tensor '{name}' has shape {tuple(tensors[name].shape)} where"
                f" {spec.architecture} has {layout.shape}; give a file of the same architecture, head, image"
                " size and classes"
            )
        if tensors[name].dtype.kind != "f":
            raise WeightsError(
                f"{path}: tensor '{name}' holds values of type {tensors[name].dtype}; save it as float32"
            )


# --- Reading --------------------------------------------------------------------------------------

Layers = dict[str, list[Any]]
"""A layer's variables by its name in the file, in Keras' order."""

_TENSORS = ("weight", "bias", "running_mean", "running_var")
_NAMES = {"fc1": "fc6", "fc2": "fc7", "predictions": HEAD}
"""Of keras.applications' layers, where they are not ours already."""
_CONTAINERS = {
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "Dense": "dense",
    "DepthwiseConv2D": "depthwise_conv2d",
    "Functional": "functional",
    "Sequential": "sequential",
}
"""What Keras 3 calls those in a file that hold weights: by their class, numbered from the second on."""


@contextlib.contextmanager
def _opened(path: Path, architecture: str) -> Iterator[Tensors]:
    """What a file holds, open as long as the context lasts."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give one of {' or '.join(INFO.checkpoint_suffixes)}")
    try:
        with contextlib.ExitStack() as stack:
            config: Any = None
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                config = json.loads(_member(archive, "config.json", LARGEST_CONFIG))
                largest = LARGEST_GROWTH * path.stat().st_size
                file = stack.enter_context(hdf5.opened(_member(archive, "model.weights.h5", largest)))
                layers = _layers_of_config(config, file["layers"])
            else:
                file = stack.enter_context(hdf5.opened(path))
                if "model_config" in file.attrs:
                    (text,) = hdf5.texts(file, "model_config")
                    config = json.loads(text)
                layers = _layers_of_file(file)
            for variable in itertools.chain.from_iterable(layers.values()):
                hdf5.require_own(variable, file)
            yield _neutral(layers, architecture, config)
    except BenchmarkError:
        raise
    except Exception as error:  # what parsers make of a damaged or a foreign file can be anything
        raise WeightsError(
            f"{path}: not a whole Keras file, .h5 or .keras ({one_line(error)}); fetch or save it again"
        ) from error


def _member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > largest:
        raise ValueError(f"{name} would take {size} bytes")
    return archive.read(name)


def _layers_of_config(config: Any, group: Any) -> Layers:
    """Of a .keras file, whose weights bear no names that one could rely on."""
    layers: Layers = {}
    seen: Counter[str] = Counter()
    for layer in config["config"]["layers"]:
        container = _CONTAINERS.get(layer["class_name"])
        if container is None:
            continue
        number = f"_{seen[container]}" if seen[container] else ""
        seen[container] += 1
        inside = group[container + number]
        if "layers" in layer["config"]:
            layers |= _layers_of_config(layer, inside["layers"])
        else:
            layers[layer["config"]["name"]] = _variables(inside["vars"])
    return layers


def _layers_of_file(file: Any) -> Layers:
    if "model_weights" in file:
        return _legacy_layers(file["model_weights"])
    if "layer_names" in file.attrs:
        return _legacy_layers(file)
    return dict(_named_layers(file["layers"], set()))


def _legacy_layers(group: Any) -> Layers:
    """Of a whole model or of its weights, as Keras has written them since its first version."""
    layers: Layers = {}
    for name in hdf5.texts(group, "layer_names"):
        paths = hdf5.texts(group[name], "weight_names")
        owners = [path.split("/")[-2] if "/" in path else name for path in paths]
        if len(set(owners)) == 1:  # not a model within the model, and the layer's own name is the better one
            owners = [name] * len(paths)
        for owner, path in zip(owners, paths, strict=True):
            layers.setdefault(owner, []).append(group[name][path])
    return layers


def _named_layers(group: Any, seen: set[int]) -> Iterator[tuple[str, list[Any]]]:
    """Of a .weights.h5 file."""
    for layer in group.values():
        address = h5py.h5o.get_info(layer.id).addr
        if address in seen:  # a few dozen groups that hold each other twice would take for ever
            raise ValueError(f"{layer.name} is linked twice")
        seen.add(address)
        if "layers" in layer:
            yield from _named_layers(layer["layers"], seen)
        elif len(layer["vars"]):
            if "name" not in layer["vars"].attrs:
                raise ValueError(f"{layer.name} has no name, as in Keras' first versions of this format")
            (name,) = hdf5.texts(layer["vars"], "name")
            yield name, _variables(layer["vars"])


def _variables(group: Any) -> list[Any]:
    return [group[str(index)] for index in range(len(group))]


def _neutral(layers: Layers, architecture: str, config: Any) -> dict[str, Any]:
    """The tensors under neutral names; those of a layer that the architecture does not have under its own."""
    layers = {_NAMES.get(name, name): variables for name, variables in layers.items()}
    prefixes = {name.rpartition(".")[0] for name, _ in architecture_of(architecture).body()}
    affine = [
        name
        for name, variables in layers.items()
        if name not in prefixes and variables and len(variables[0].shape) == 2
    ]
    strangers = [name for name in affine if name not in _NAMES.values() and not is_head(f"{name}.weight")]
    widths = tuple(int(layers[name][0].shape[1]) for name in strangers[:-1])
    renamed = dict(zip(strangers, _HEADS.get(widths, ()), strict=False))
    tensors = {}
    for name, variables in layers.items():
        if name == "bn0" and len(variables) == 3:  # Keras' own layer holds no scale that it does not use
            variables = [_unused_scale(config, variables[0].shape), *variables]
        for tensor, variable in zip(_TENSORS, variables, strict=False):
            tensors[f"{renamed.get(name, name)}.{tensor}"] = variable
    return tensors


def _unused_scale(config: Any, shape: tuple[int, ...]) -> np.ndarray:
    """See `models.plain`."""
    for layer in config["config"]["layers"] if config else ():
        initializer = layer["config"].get("gamma_initializer")
        if layer["config"]["name"] == "bn0" and initializer["class_name"] == "Constant":
            return np.broadcast_to(np.array(initializer["config"]["value"], np.float64), shape)
    return np.ones(shape)
