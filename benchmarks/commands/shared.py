"""What several commands share: consoles, options, and the work around a command."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from backends.architectures import ARCHITECTURES
from backends.base import UsageError
from benchmarks.harness import plan
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.running import runner
from benchmarks.harness.running.progress import Display
from benchmarks.harness.running.run import Run
from benchmarks.harness.running.supplies import Supplies

out, err = Console(), Console(stderr=True)
display = Display(err)

DATA_HELP = "sketch, sketch-five, hotdog, or the path of a folder or zip."
START_HELP = "source, imagenet, or a .safetensors file. Default: the recipe's own."
ProfileOption = Annotated[
    str, typer.Option(help=f"{', '.join(PROFILES)}: decides how much of the data is used.")
]


ArchitectureOption = Annotated[
    str | None, typer.Option("--arch", help=f"{', '.join(ARCHITECTURES)}. Default: what fits.")
]


def takes_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter takes `Options`, an option for each flag of `plan.FLAGS`."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    flags = [
        inspect.Parameter(
            flag.key,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if flag.switch else None,
            annotation=Annotated[_TYPES[flag.many, flag.switch], typer.Option(flag.name, help=flag.help)],
        )
        for flag in plan.FLAGS
    ]

    @functools.wraps(command)
    def with_flags(**values: Any) -> None:
        rest = {parameter.name: values.pop(parameter.name) for parameter in own}
        command(plan.parse(values), **rest)

    parameters = [*flags, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)]
    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {p.name: p.annotation for p in parameters}
    del with_flags.__wrapped__
    return with_flags


_TYPES: dict[tuple[bool, bool], Any] = {
    (True, False): list[str] | None,
    (False, True): bool,
    (False, False): str | None,
}
"""Of an option that may be given several times, or is a switch."""


def one_cell(
    recipe: str,
    backend: str,
    data_: str,
    start: str | None,
    profile: str,
    *,
    image_size: int | None,
    run: str,
) -> tuple[Supplies, plan.Cell]:
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
    return Supplies(options, cells, Run(run), display), cells[0]


def require_report_libraries() -> None:
    """Raise UsageError where the report's libraries are missing, as in the frameworks' environments."""
    # A framework brings some of them along; and none of them both of these.
    if any(importlib.util.find_spec(name) is None for name in ("itables", "matplotlib")):
        raise UsageError(
            "the report's libraries are not installed here; `pip install '.[report]'` installs them"
        )
