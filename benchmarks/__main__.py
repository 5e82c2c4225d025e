"""`python -m benchmarks COMMAND`: everything that is no benchmark itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.padding import Padding
from rich.text import Text

import backends
from backends.base import BackendInfo, BenchmarkError, UsageError
from benchmarks.commands import data, studies, weights
from benchmarks.commands.check import check
from benchmarks.commands.compare import compare
from benchmarks.commands.doctor import doctor
from benchmarks.commands.report import report
from benchmarks.commands.results import results
from benchmarks.commands.run import run
from benchmarks.commands.shared import display, err, out, require_report_libraries
from benchmarks.commands.submit import submit
from benchmarks.harness import record
from benchmarks.harness.cache import write_whole
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.recipe import all_recipes, recipes_of
from benchmarks.harness.running import runner, source

app = typer.Typer(
    name="python -m benchmarks",
    help="The same transfer-learning protocol in PyTorch, MXNet Gluon and Keras: same accuracy?"
    " And at what cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

BackendOption = Annotated[
    list[str] | None, typer.Option("--backend", help="One backend; may be given again. Default: all.")
]


@app.command("list")
def list_recipes(
    pattern: Annotated[str, typer.Argument(help="An id, or a pattern such as '003-*'.")] = "*",
    as_json: Annotated[
        bool, typer.Option("--json", help="For a machine: everything about every recipe.")
    ] = False,
) -> None:
    """Every recipe: its id, the document it comes from, the backends it is for, and what it does.

    Examples: `python -m benchmarks list`, `python -m benchmarks list '003-*'`
    """
    recipes = recipes_of(pattern)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(recipes)).decode() + "\n")
        return
    width = max(len(recipe.id) for recipe in recipes)
    for recipe in recipes:
        out.print(
            f"{recipe.id:{width}}  {recipe.seed_document}  {recipe.backend or 'all backends'}",
            style="bold", markup=False, highlight=False,
        )  # fmt: skip
        out.print(Padding(Text(recipe.summary), (0, 0, 0, 4)))


@app.command()
def pretrain(
    backend: BackendOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1")] = "cpu",
) -> None:
    """Train network A on the drawn source set, for `--weights source`; what the cache has is not trained
    again."""
    cards = _cards(backend)
    for recipe in all_recipes():
        if recipe.protocol == "pretrain" and recipe.backend in {card.name for card in cards}:
            start = source.network_a(recipe, device=device, display=display)
            out.print(
                f"{recipe.backend} {recipe.architecture}: {start.path} (sha256 {start.sha256})",
                soft_wrap=True,
            )


@app.command()
def readme(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Markdown files. Default: README.md and docs/*.md.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if stale.")] = False,
) -> None:
    """Regenerate the tables of hand-written pages from the committed records that they came from."""
    require_report_libraries()
    from benchmarks.report.readme import pages, regenerate

    stale = False
    for path in paths or pages():
        before = path.read_text()
        after = regenerate(before, PROJECT)
        if check and after != before:
            err.print(f"{path}: a table is stale; run `python -m benchmarks readme {path}`", soft_wrap=True)
            stale = True
        if not check and after != before:
            write_whole(path, after.encode())
    if stale:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a record."""
    sys.stdout.write(record.json_schema().decode())


app.command()(run)
app.command()(submit)
app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(report)
app.command()(check)
app.command()(results)
app.command()(compare)
app.command()(doctor)
app.command()(studies.advise)
app.command("range-test")(studies.range_test)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


# --- How ------------------------------------------------------------------------------------------


def _cards(names: list[str] | None) -> tuple[BackendInfo, ...]:
    if names:
        return tuple(backends.resolve(name) for name in names)
    cards = runner.available()
    if not cards:
        raise UsageError(
            "no backend is installed; `tox run -e bench-pytorch --notest` makes an environment for one"
        )
    return cards


def main() -> None:
    """Run a command; an error of ours or of a disk is one line and exit code 2, Ctrl-C is exit code 130."""
    try:
        app()
    except (BenchmarkError, OSError) as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped; finished records are kept")
        sys.exit(130)


if __name__ == "__main__":
    main()
