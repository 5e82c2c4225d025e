"""What several commands share: consoles, options, and the work around a command."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer
from rich.console import Console

from backends.architectures import ARCHITECTURES
from backends.base import UsageError
from benchmarks.harness import plan, runner
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.session import Session

out, err = Console(), Console(stderr=True)

DATA_HELP = "sketch, sketch-five, hotdog, or the path of a folder or zip."
START_HELP = "source, imagenet, or a .safetensors file. Default: the recipe's own."
ProfileOption = Annotated[
    str, typer.Option(help=f"{', '.join(PROFILES)}: decides how much of the data is used.")
]


ArchitectureOption = Annotated[
    str | None, typer.Option("--arch", help=f"{', '.join(ARCHITECTURES)}. Default: what fits.")
]


def one_cell(
    recipe: str,
    backend: str,
    data_: str,
    start: str | None,
    profile: str,
    *,
    image_size: int | None,
    run: str,
) -> tuple[Session, plan.Cell]:
    """A cell that is prepared to be looked at, and not run for a record."""
    options = plan.parse(
        {
            "recipe": [recipe],
            "backend": [backend],
            "data": data_,
            "weights": start,
            "profile": profile,
            "image_size": image_size,
            "run": run,
        }
    )
    cells = plan.plan(options, runner.available())
    if len(cells) != 1:
        raise UsageError(f"--recipe {recipe}: one recipe at a time")
    return Session(options, cells, err, keeps_records=False), cells[0]


def require_report_libraries() -> None:
    """Raise UsageError where the report's libraries are missing, as in the frameworks' environments."""
    if importlib.util.find_spec("scipy") is None:
        raise UsageError(
            "the report's libraries are not installed here; `pip install '.[report]'` installs them"
        )
