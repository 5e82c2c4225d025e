"""`range-test` and `advise`: what to look at before a training."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from backends.architectures import ARCHITECTURES, architecture_of
from backends.base import UsageError
from benchmarks.commands.shared import (
    DATA_HELP,
    START_HELP,
    ProfileOption,
    display,
    one_cell,
    out,
    require_report_libraries,
)
from benchmarks.harness import advise as advice
from benchmarks.harness import plan, record
from benchmarks.harness.cache import write_whole
from benchmarks.harness.messages import AdviseJob, RangeTestJob
from benchmarks.harness.recipe import REFERENCE_BACKEND
from benchmarks.harness.running import runner
from benchmarks.harness.running.progress import JobProgress


def range_test(
    recipe: Annotated[str, typer.Option(help="Id of a recipe; `list` has them.")],
    backend: Annotated[str, typer.Option(help="Which backend.")] = REFERENCE_BACKEND,
    data_: Annotated[str, typer.Option("--data", help=DATA_HELP)] = "sketch",
    weights_: Annotated[str | None, typer.Option("--weights", help=START_HELP)] = None,
    profile: ProfileOption = "smoke",
    image_size: Annotated[int | None, typer.Option(help="Pixels, instead of the profile's.")] = None,
    lowest: Annotated[float, typer.Option(help="Rate of the first step.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="Rate of the last step.")] = 10.0,
    steps: Annotated[int, typer.Option(help="How many steps, unless the loss explodes before.")] = 100,
    run: Annotated[str, typer.Option(help="The run whose folder gets the plot and the figures.")] = "local",
) -> None:
    """Learning-rate range test: raise the rate step by step, plot the loss, suggest a rate.

    Example: `python -m benchmarks range-test --recipe 003-vgg16 --data hotdog.zip --weights vgg16.safetensors
    --profile cpu --image-size 64`
    """
    if not 0 < lowest < highest or steps < 3:
        raise UsageError(f"a range from {lowest:g} to {highest:g} in {steps} steps is none")
    require_report_libraries()
    from benchmarks.report import plots

    supplies, cell = one_cell(recipe, backend, data_, weights_, profile, image_size=image_size, run=run)
    threads = runner.threads()
    job = RangeTestJob(
        cell=cell,
        data=supplies.data,
        weights=supplies.weights_for(cell),
        threads=threads,
        input_workers=runner.input_workers(cell.device, threads),
        lowest=lowest,
        highest=highest,
        steps=steps,
    )
    log = supplies.run.log(f"range-test-{cell.id}")
    with JobProgress(f"range test of {cell.id}", display) as shown:
        result = runner.range_test(job, log=log, on_event=shown.on_event)
    figures = supplies.run.folder / "range-tests" / f"{cell.id}.json"
    plot = supplies.run.folder / "range-tests" / f"{cell.id}.svg"
    for path, content in ((figures, record.to_json(result)), (plot, plots.range_test(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    said = "no rate made the loss fall; give a lower --lowest, or more --steps"
    if result.suggestion is not None:
        said = f"suggested learning rate: {result.suggestion:.2g}, where the loss falls most steeply"
    out.print(
        f"{len(result.rates)} steps; smoothed loss {result.smoothed[0]:.3f}, at its lowest"
        f" {min(result.smoothed):.3f}\n{said}\n{plot}\n{figures}",
        highlight=False,
        soft_wrap=True,
    )


def advise(
    data_: Annotated[str, typer.Option("--data", help=DATA_HELP)] = "sketch",
    weights_: Annotated[str | None, typer.Option("--weights", help=START_HELP)] = None,
    arch: Annotated[str, typer.Option(help=", ".join(ARCHITECTURES))] = plan.MATCHED_ARCHITECTURE,
    backend: Annotated[str, typer.Option(help="Which backend measures.")] = REFERENCE_BACKEND,
    profile: Annotated[str, typer.Option(help="Decides the image size, and how many images.")] = "cpu",
    image_size: Annotated[int | None, typer.Option(help="Pixels, instead of the profile's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine.")] = False,
) -> None:
    """Which protocol to try first on a data set, and the evidence: how much data there is, and how far it is
    from what the weights were trained on.

    Examples: `python -m benchmarks advise --data hotdog.zip`, `python -m benchmarks advise --data sketch`
    """
    architecture_of(arch)  # raises for one that does not exist
    supplies, cell = one_cell(
        f"matched-{arch}-frozen", backend, data_, weights_, profile, image_size=image_size, run="local"
    )
    threads = runner.threads()
    job = AdviseJob(
        cell=cell,
        data=supplies.data,
        weights=supplies.weights_for(cell),
        threads=threads,
        input_workers=runner.input_workers(cell.device, threads),
    )
    with tempfile.TemporaryDirectory() as logs, JobProgress("advise", display) as shown:
        evidence = runner.advise(job, log=Path(logs) / "advise.log", on_event=shown.on_event)
    found = advice.advise(evidence)
    if as_json:
        encoded = msgspec.json.encode({"advice": found, "evidence": evidence})
        sys.stdout.write(msgspec.json.format(encoded).decode() + "\n")
        return
    given = {"--data": data_, "--weights": weights_, "--profile": profile, "--image-size": image_size}
    words = [f"{flag} {shlex.quote(str(value))}" for flag, value in given.items() if value is not None]
    run = f"--run advised-{Path(data_).stem}"
    following = " ".join(("python -m benchmarks run", advice.selection(found, arch), *words, run))
    answer = Table.grid(padding=(0, 2))
    for heading, text in (*advice.explained(evidence, found), ("next", following)):
        answer.add_row(Text(heading, style="bold"), Text(text))
    out.print(answer)
