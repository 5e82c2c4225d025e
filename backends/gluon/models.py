"""Architectures and heads in MXNet Gluon, and their neutral names."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import BadZipFile

import mxnet as mx
from gluoncv import model_zoo
from gluoncv.model_zoo import model_store
from gluoncv.utils import check_sha1
from mxnet.gluon import HybridBlock, Parameter, nn

from backends import weights
from backends.base import ModelSpec, WeightsError, one_line, require_architecture
from backends.gluon import INFO

# --- What there is --------------------------------------------------------------------------------


def _resnet18_v2(spec: ModelSpec) -> HybridBlock:
    network = model_zoo.get_model("resnet18_v2", classes=spec.classes)
    if spec.head != "linear":
        del network.output  # Gluon refuses to replace a block by one of another class
        network.output = _mlp(spec)
    return network


ARCHITECTURES: Mapping[str, Callable[[ModelSpec], HybridBlock]] = {"resnet18_v2": _resnet18_v2}
HEAD_MODULES: Mapping[str, str] = {"resnet18_v2": "output"}
"""For each architecture the attribute that holds the head."""
LAYERS: Mapping[str, tuple[str, ...]] = {
    # an empty name: activation, pooling or flattening, which hold no parameters
    "resnet18_v2": ("bn0", "conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4", "bn2", "", "", "")
}
"""For each architecture the neutral names of the layers of its `features`, in order."""


def build(spec: ModelSpec, context: Any) -> HybridBlock:
    """The network with a new head on an MXNet context, initialised from MXNet's current generator.

    Raises:
        UsageError: no such architecture here.
    """
    require_architecture(INFO, spec.architecture, ARCHITECTURES)
    network = ARCHITECTURES[spec.architecture](spec)
    network.initialize(_INITIALIZERS[spec.initializer], ctx=context)
    network.hybridize()
    network(
        mx.nd.zeros((1, 3, spec.image_size, spec.image_size), ctx=context)
    )  # draws what waited for a shape
    return network


def head_of(network: HybridBlock, architecture: str) -> HybridBlock:
    """The block whose input are the features."""
    return getattr(network, HEAD_MODULES[architecture])


def split(
    network: HybridBlock, architecture: str, trained: tuple[str, ...]
) -> tuple[HybridBlock | None, HybridBlock]:
    """The layers below the first whose neutral name begins with one of `trained` (None if there are none),
    and those from there to the logits. Both share the network's own blocks and are hybridised anew."""
    layers = LAYERS[architecture]
    first = next((i for i, name in enumerate(layers) if name and f"{name}.".startswith(trained)), len(layers))
    network.hybridize()
    if first == 0:
        return None, network
    lower, upper = nn.HybridSequential(prefix=""), nn.HybridSequential(prefix="")
    lower.add(*(network.features[index] for index in range(first)))
    upper.add(
        *(network.features[index] for index in range(first, len(layers))), head_of(network, architecture)
    )
    lower.hybridize()
    upper.hybridize()
    return lower, upper


def batch_norms(block: HybridBlock) -> list[nn.BatchNorm]:
    """Every batch norm in a block, from the input up."""
    found: list[nn.BatchNorm] = []
    block.apply(lambda child: found.append(child) if isinstance(child, nn.BatchNorm) else None)
    return found


def leading_batch_norm(network: HybridBlock, architecture: str) -> nn.BatchNorm | None:
    """The batch norm on the image itself, which learns neither scale nor shift."""
    return network.features[0] if LAYERS[architecture][0] == "bn0" else None


# --- Heads and initialisers -----------------------------------------------------------------------


def _mlp(spec: ModelSpec) -> HybridBlock:
    head = nn.HybridSequential(prefix="")
    head.add(nn.Dense(1024, activation="relu"), nn.Dense(128, activation="relu"), nn.Dense(spec.classes))
    return head


_INITIALIZERS: Mapping[str, Any] = {
    "default": mx.init.Uniform(),  # what a bare `initialize()` means
    "xavier": mx.init.Xavier(),
    "he": mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2),
}
"""Of weights; Gluon's own layers say that their biases begin at zero."""


# --- Neutral names --------------------------------------------------------------------------------

LEADING_SCALE = "bn0.weight"
"""The scale of a batch norm on the image: not learnt, and overwritten with 1 at MXNet's first forward."""

_NEUTRAL = {"gamma": "weight", "beta": "bias"}


def neutral_tensors(network: HybridBlock, architecture: str) -> dict[str, Parameter]:
    """Live parameters and running statistics by neutral name; MXNet's layouts are the neutral ones."""
    named = [(name, network.features[index]) for index, name in enumerate(LAYERS[architecture]) if name]
    head = head_of(network, architecture)
    if isinstance(head, nn.HybridSequential):
        named += [(f"{weights.HEAD}.fc{index + 1}", head[index]) for index in range(len(head))]
    else:
        named.append((weights.HEAD, head))
    tensors = {}
    for prefix, layer in named:
        for path, parameter in layer._collect_params_with_prefix(prefix).items():
            block, _, name = path.rpartition(".")
            tensors[f"{block}.{_NEUTRAL.get(name, name)}"] = parameter
    return tensors


# --- The official checkpoint ----------------------------------------------------------------------

_PATIENCE = 5.0  # seconds until a server's first word; gluoncv's loader itself would wait for ever
_LockException = model_store.portalocker.LockException
_FAILURES = (OSError, RuntimeError, ValueError, LookupError, HTTPException, BadZipFile, _LockException)


def fetch_official(architecture: str) -> Path:
    """gluoncv's own ImageNet checkpoint, from `$MXNET_HOME/models` or fetched there by gluoncv's loader,
    which verifies its SHA-1. Failure leaves nothing behind.

    Raises:
        WeightsError: it cannot be fetched, or its hash is wrong.
    """
    folder = Path(os.environ.get("MXNET_HOME", "~/.mxnet")).expanduser() / "models"
    repository = os.environ.get("MXNET_GLUON_REPO", model_store.apache_repo_url).rstrip("/")
    stem = f"{architecture}-{model_store.short_hash(architecture)}"
    url = f"{repository}/gluon/models/{stem}.zip"
    present = set(folder.glob(f"{stem}.*"))
    with contextlib.ExitStack() as undo:
        undo.callback(_remove_all_but, present, folder, stem)
        try:
            file = folder / f"{stem}.params"
            if not (file.exists() and check_sha1(file, model_store.short_hash(architecture))):
                _await_answer(url)
            # gluoncv prints the address and draws a progress bar
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                file = Path(model_store.get_model_file(architecture, root=str(folder)))
        except _FAILURES as error:
            raise WeightsError(
                f"gluon {architecture}: {url} could not be fetched and verified ({one_line(error)}); set"
                f" MXNET_GLUON_REPO to a mirror, put {stem}.params into {folder}, or choose --weights source"
                " or --weights PATH"
            ) from error
        undo.pop_all()
    return file


def _await_answer(url: str) -> None:
    with contextlib.suppress(HTTPError):  # an answer too; what it means is the loader's business
        urlopen(Request(url, method="HEAD"), timeout=_PATIENCE).close()


def _remove_all_but(present: set[Path], folder: Path, stem: str) -> None:
    for file in set(folder.glob(f"{stem}.*")) - present:
        file.unlink(missing_ok=True)
