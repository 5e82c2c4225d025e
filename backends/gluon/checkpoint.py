"""Gluon's files: gluoncv's official checkpoints, and `.params` files.

`.params` files come with two kinds of names. `save_parameters` writes a tensor's place in the network
(`features.1.gamma`); `export` and the older `save_params` write the layer's own name
(`aux:resnetv20_batchnorm0_running_mean`). They are read here in Python: MXNet's own reader takes damaged
sizes at their word.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import BadZipFile

import mxnet as mx
import numpy as np
from gluoncv.model_zoo import model_store
from gluoncv.utils import check_sha1
from mxnet.gluon import HybridBlock

from backends.architectures import is_head, shapes, spec_of
from backends.base import (
    ModelSpec,
    UsageError,
    WeightsError,
    one_line,
    require_architecture,
)
from backends.gluon import INFO, models


def fetch_official(architecture: str) -> Path:
    """gluoncv's own ImageNet checkpoint, from `$MXNET_HOME/models` or fetched there by gluoncv's loader,
    which verifies its SHA-1 every time. A failure leaves nothing behind.

    Raises:
        WeightsError: there is none, it cannot be fetched, or its hash is wrong.
    """
    source = next((source for source in INFO.sources if source.architecture == architecture), None)
    if source is None:
        raise WeightsError(
            f"gluon {architecture}: nobody has published ImageNet weights of it for Gluon; choose --weights"
            " imagenet, --weights source or --weights PATH"
        )
    assert source.file is not None
    folder, stem, url = source.file.parent, source.file.stem, source.url
    name = stem.rpartition("-")[0]
    present = set(folder.glob(f"{stem}.*"))
    with contextlib.ExitStack() as undo:
        undo.callback(_remove_all_but, present, folder, stem)
        try:
            if not (source.file.exists() and check_sha1(source.file, model_store.short_hash(name))):
                _await_answer(str(url))
            # gluoncv prints the address and draws a progress bar
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                file = Path(model_store.get_model_file(name, root=str(folder)))
        except _FAILURES as error:
            raise WeightsError(
                f"gluon {architecture}: {url} could not be fetched and verified ({one_line(error)}); set"
                f" MXNET_GLUON_REPO to a mirror, put {stem}.params into {folder}, or choose --weights source"
                " or --weights PATH"
            ) from error
        undo.pop_all()
    return file


def inspect(path: Path, architecture: str) -> ModelSpec:
    """What to build for a `.params` file; see `Backend.inspect_checkpoint`. Where the head does not tell the
    image size it is that of the published networks.

    Raises:
        UsageError: no such architecture here.
        WeightsError: missing, truncated, no `.params` file, or of another architecture; names the first wrong
            tensor.
    """
    require_architecture(INFO, architecture)
    tensors = _read(path)
    spec = _spec_of(tensors, architecture)
    _select(tensors, spec, path, head=True)
    return spec


def load(network: HybridBlock, spec: ModelSpec, path: Path, *, head: bool = True) -> None:
    """Copy a `.params` file into a network of this specification, the head's tensors too if `head`. Not one
    tensor changes when any is wrong.

    Raises:
        WeightsError: as `inspect`; or the network has another head or class count, or a tensor is not finite.
    """
    tensors = _read(path)
    selected = _select(tensors, spec, path, head=head)
    for name, value in selected.items():
        if not np.isfinite(value).all():
            own = _own_names(spec, tensors)[name]
            raise WeightsError(f"{path}: tensor '{own}' holds NaN or infinity; the file cannot be used")
    live = models.neutral_tensors(network, spec)
    for name, value in selected.items():
        models.assign(live[name], value)


def save(network: HybridBlock, path: Path) -> None:
    """Write the network's parameters as `save_parameters` does, whole or not at all.

    Raises:
        UsageError: the suffix is not Gluon's.
        WeightsError: it cannot be written.
    """
    if path.suffix not in INFO.checkpoint_suffixes:
        suffixes = ", ".join(INFO.checkpoint_suffixes)
        raise UsageError(f"{path}: gluon writes no '{path.suffix}' files; give one of: {suffixes}")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        network.save_parameters(str(partial))
        _parse(partial.read_bytes())  # MXNet does not notice when it is the last bytes that find no room
        partial.replace(path)
    except (OSError, mx.MXNetError, ValueError) as error:
        arrays = [parameter.data() for parameter in network.collect_params().values()]
        size = sum(array.size * np.dtype(array.dtype).itemsize for array in arrays)
        raise WeightsError(
            f"{path}: cannot be written ({one_line(error)}); name a folder that can be written to, with"
            f" {size // 2**20 + 1} MB to spare"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


# --- Official -------------------------------------------------------------------------------------

_PATIENCE = 5.0  # seconds until a server's first word; gluoncv's loader itself would wait for ever
_LockException = model_store.portalocker.LockException
_FAILURES = (OSError, RuntimeError, ValueError, LookupError, HTTPException, BadZipFile, _LockException)


def _await_answer(url: str) -> None:
    with contextlib.suppress(HTTPError):  # an answer too; what it means is the loader's business
        urlopen(Request(url, method="HEAD"), timeout=_PATIENCE).close()


def _remove_all_but(present: set[Path], folder: Path, stem: str) -> None:
    for file in set(folder.glob(f"{stem}.*")) - present:
        file.unlink(missing_ok=True)


# --- Which tensor is which ------------------------------------------------------------------------

Tensors = Mapping[str, np.ndarray]


def _spec_of(tensors: Tensors, architecture: str) -> ModelSpec:
    def shape_of(spec: ModelSpec, name: str) -> tuple[int, ...] | None:
        own = _own_names(spec, tensors)[name]
        return tensors[own].shape if own in tensors else None

    return spec_of(architecture, shape_of)


def _select(tensors: Tensors, spec: ModelSpec, path: Path, *, head: bool) -> Tensors:
    """The tensors that a network takes from a file, by neutral name; checked."""
    what = f"{spec.architecture} with {spec.classes} classes and the head {spec.head}"
    own_names = _own_names(spec, tensors)
    wanted = {name: own for name, own in own_names.items() if head or not is_head(name)}
    for name, own in wanted.items():
        if own not in tensors:
            first = ", ".join(map(repr, list(tensors)[:3]))
            raise WeightsError(
                f"{path}: no tensor '{own}' (it begins with {first}); give a .params file of {what}"
            )
        found, shape = tensors[own].shape, shapes(spec)[name]
        if found != shape:
            raise WeightsError(
                f"{path}: tensor '{own}' is {found} where {what} has {shape}; give a .params file of this"
                " network"
            )
    known = set(wanted.values())
    for own in tensors if head else ():  # a deeper network's tensors may well begin like this one's
        if own not in known:
            raise WeightsError(f"{path}: {what} has no tensor {own!r}; give a .params file of this network")
    return {name: tensors[own] for name, own in wanted.items()}


def _own_names(spec: ModelSpec, tensors: Tensors) -> dict[str, str]:
    """What a file that names its tensors as this one does calls those of a network, by neutral name."""
    network = models.declare(spec)
    if _are_places(tensors):
        return models.own_names(network, spec)
    parameters = models.neutral_tensors(network, spec)
    return dict(zip(parameters, _bare_names(p.name for p in parameters.values()), strict=True))


def _are_places(names: Iterable[str]) -> bool:
    return any("." in name for name in names)


_NETWORK = re.compile(r"^(resnetv[12]|vgg|efficientnetlite0|headalone)\d+_")
_DENSE = re.compile(r"^dense(\d+)_")


def _bare_names(names: Iterable[str]) -> list[str]:
    """Layers' own names without what depends on the networks that the process had made before: the network's
    number, and how many affine layers it lost until it had its head."""
    bare = [_NETWORK.sub("", name) for name in names]
    numbers = sorted({int(found[1]) for name in bare if (found := _DENSE.match(name))})
    return [_DENSE.sub(lambda found: f"dense{numbers.index(int(found[1]))}_", name) for name in bare]


# --- Reading --------------------------------------------------------------------------------------
# After `NDArray::Load` in MXNet's src/ndarray/ndarray.cc; integers are little-endian.

_LIST = 0x112
_LEGACY_SHAPE, _WITH_STORAGE, _NUMPY_SHAPE = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""What an array of each version begins with; one of the first version begins with its number of axes."""
_DENSE_STORAGE = 0
_DTYPES: Mapping[int, str] = {0: "<f4", 1: "<f8", 2: "<f2"}
_MOST_AXES = 8  # more than any layer's kernel has


def _read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file: by their place in the network, or by their layer's name without the
    network's."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; give a .params file") from error
    try:
        named, arrays = _parse(data)
        names = [re.sub("^(arg|aux):", "", name) for name in named]
        if not _are_places(names):
            names = _bare_names(names)
        if len(set(names)) != len(arrays):
            raise ValueError(f"{len(set(names))} names for {len(arrays)} tensors")
    except ValueError as error:
        raise WeightsError(
            f"{path}: not a whole .params file ({one_line(error)}); fetch it again, or write it with"
            " `network.save_parameters`"
        ) from error
    return dict(zip(names, arrays, strict=True))


class _Content:
    """Bytes that are read from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def take(self, size: int) -> memoryview:
        """The next bytes.

        Raises:
            ValueError: there are not as many.
        """
        if not 0 <= size <= self.left:
            raise ValueError(f"it ends after {len(self._data)} bytes, in the midst of a tensor or a name")
        self._at += size
        return self._data[self._at - size : self._at]

    def integers(self, kinds: str) -> tuple[int, ...]:
        """The next integers, of these kinds in the language of `struct`."""
        return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}")))

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return len(self._data) - self._at


def _parse(data: bytes) -> tuple[list[str], list[np.ndarray]]:
    """Names and arrays; the latter are views of the data.

    Raises:
        ValueError: it is damaged, or of another kind.
    """
    content = _Content(data)
    kind, _, count = content.integers("QQQ")
    if kind != _LIST:
        raise ValueError("it does not begin like one")
    arrays = [_array(content) for _ in range(count)]
    names = [bytes(content.take(content.integers("Q")[0])).decode() for _ in range(content.integers("Q")[0])]
    if content.left:
        raise ValueError(f"{content.left} bytes follow its end")
    return names, arrays


def _array(content: _Content) -> np.ndarray:
    (version,) = content.integers("I")
    if version in (_WITH_STORAGE, _NUMPY_SHAPE) and content.integers("i") != (_DENSE_STORAGE,):
        raise ValueError("it holds a sparse tensor")
    if version in (_LEGACY_SHAPE, _WITH_STORAGE, _NUMPY_SHAPE):
        (axes,), extent = content.integers("i"), "q"
    else:
        axes, extent = version, "I"
    if not 0 < axes <= _MOST_AXES:
        raise ValueError(f"it holds a tensor of {axes} axes")
    shape = content.integers(f"{axes}{extent}")
    *_, kind = content.integers("iii")  # the device it was on, and the type of its values
    if min(shape) < 0 or kind not in _DTYPES:
        raise ValueError(f"it holds a tensor of shape {shape} and of MXNet's type {kind}")
    dtype = np.dtype(_DTYPES[kind])
    return np.frombuffer(content.take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
