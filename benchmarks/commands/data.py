"""`python -m benchmarks data`: look at a data set, or check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.shared import DATA_HELP, ProfileOption, display, out
from benchmarks.harness.images import data
from benchmarks.harness.profile import profile_of
from benchmarks.harness.running.progress import JobProgress

app = typer.Typer(help="Look at a data set, or check it.", no_args_is_help=True)

DataArgument = Annotated[str, typer.Argument(help=DATA_HELP)]


@app.command("show")
def data_show(
    spec: DataArgument = "sketch",
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("data.png"),
    profile: ProfileOption = "smoke",
) -> None:
    """Draw the first eight and the last eight training images as one picture, and print the counts.

    Examples: `python -m benchmarks data show`, `python -m benchmarks data show hotdog.zip -o hotdog.png`
    """
    images = _open(spec, profile)
    data.contact_sheet(images.train).save(output)
    _print_data(images)
    out.print(f"{output}: the first eight {images.classes[0]} and the last eight {images.classes[-1]}")


@app.command("check")
def data_check(
    spec: DataArgument = "sketch",
    profile: ProfileOption = "full",
) -> None:
    """Decode every image, and print the counts, the order of the classes and the hash."""
    _print_data(_open(spec, profile))


def _open(spec: str, profile: str) -> data.DataSet:
    with JobProgress("data", display) as shown:
        return data.open_data(spec, profile_of(profile), shown.images)


def _print_data(images: data.DataSet) -> None:
    out.print(f"{images.name}  sha256 {images.sha256}", soft_wrap=True, highlight=False)
    for name, split in (("train", images.train), ("test", images.test)):
        counts = ", ".join(
            f"{split.labels.count(label)} {cls} ({label})" for label, cls in enumerate(split.classes)
        )
        out.print(f"{name:5}  {len(split.files)} images: {counts}", highlight=False)
