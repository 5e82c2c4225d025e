"""`python -m benchmarks weights`: look at a checkpoint, or take it from one framework to another."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from backends import architectures, weights
from backends.base import Normalization, WeightsError
from benchmarks.commands.shared import ArchitectureOption, err, out
from benchmarks.harness.running import convert

app = typer.Typer(
    help="Look at a checkpoint, or take it from one framework to another.", no_args_is_help=True
)


@app.command("show")
def weights_show(
    path: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .params, .h5 or .keras file.")],
    arch: ArchitectureOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
) -> None:
    """Print what a checkpoint holds: its architecture, origin, hash and tensors, under neutral names.

    Example: `python -m benchmarks weights show net.params --arch resnet18_v2`
    """
    with tempfile.TemporaryDirectory() as folder, err.status(f"reading {path}"):
        neutral = path
        if convert.backend_of(path) is not None:
            neutral = Path(folder, "neutral.safetensors")
            convert.read_any(path, neutral, architecture=arch)
        checkpoint = weights.read(neutral)
    try:
        spec = weights.spec_of(checkpoint, arch)
        network = (
            f"{spec.architecture}, {spec.classes} classes, head {spec.head}, inputs {spec.normalization}"
        )
    except WeightsError as error:  # a part of a network is worth looking at too
        network = f"no whole network: {error}"
    parameters = sum(
        tensor.size for name, tensor in checkpoint.tensors.items() if architectures.is_parameter(name)
    )
    facts = {
        "file": str(path),
        "network": network,
        "origin": checkpoint.origin.origin or "not said",
        "holds": f"{len(checkpoint.tensors)} tensors, {parameters:,} parameters",
        "sha256": weights.sha256_of(path.read_bytes()),
    }
    if as_json:
        shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
        text = msgspec.json.encode({**facts, "tensors": shapes})
        sys.stdout.write(msgspec.json.format(text).decode() + "\n")
        return
    table = Table("tensor", "shape", "smallest", "mean", "largest", box=None)
    for name, tensor in checkpoint.tensors.items():
        figures = (f"{value:.4g}" for value in (tensor.min(), tensor.mean(), tensor.max()))
        table.add_row(name, " x ".join(map(str, tensor.shape)), *figures)
    out.print(table)
    for name, fact in facts.items():
        out.print(f"{name:8} {fact}", highlight=False, markup=False, soft_wrap=True)


@app.command("convert")
def weights_convert(
    source: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .params, .h5 or .keras file.")],
    target: Annotated[Path, typer.Argument(help="The file to write; its suffix names the format.")],
    arch: ArchitectureOption = None,
    normalization: Annotated[
        Normalization | None,
        typer.Option(help="What the weights expect of their inputs. Default: what is usual for them."),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Read the target back, compare every value, and run both networks.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a target that is there.")] = False,
) -> None:
    """Take a checkpoint from one framework to another: running statistics included, verified by running both
    sides, each in its own environment.

    .pth .pt: PyTorch state dictionary. .params: Gluon's save_parameters. .h5 .keras: Keras. .safetensors:
    neutral.

    Examples: `python -m benchmarks weights convert net.params net.pth --arch resnet18_v2`,
    `python -m benchmarks weights convert net.pth net.h5`
    """
    with err.status("converting") as status:
        done = convert.convert(
            source,
            target,
            architecture=arch,
            normalization=normalization,
            verify=verify,
            force=force,
            say=status.update,
        )
    spec = done.spec
    said = f"{target}: {spec.architecture}, {spec.classes} classes, {done.tensors} tensors"
    if done.verified:
        said += "; read back, every value is the same"
    if done.logit_error is not None:
        said += f"; both networks ran, their logits agree to {done.logit_error:.0e}"
    out.print(said, highlight=False, markup=False, soft_wrap=True)
