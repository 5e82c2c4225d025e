"""`python -m benchmarks submit`: the matrix as jobs of a cluster, one for each cell."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import typer

from backends.base import UsageError
from benchmarks.commands.shared import display, out, takes_flags
from benchmarks.harness import plan
from benchmarks.harness.plan import Cell, Options
from benchmarks.harness.running import cluster, runner
from benchmarks.harness.running.cluster import ClusterError, ClusterSettings, Submitted
from benchmarks.harness.running.submission import Submission

POLL_SECONDS = 5.0
"""Between two questions to squeue, which all users of a cluster share."""


@takes_flags
def submit(
    options: Options,
    cluster_: Annotated[
        Literal["slurm", "local"],
        typer.Option("--cluster", help="slurm; or local: this machine, detached from the terminal"),
    ] = "slurm",
    partition: Annotated[str | None, typer.Option(help="Slurm's partition. Default: the site's.")] = None,
    minutes: Annotated[
        int, typer.Option(min=1, help="Time limit of a cell; one that reaches it is queued again.")
    ] = 240,
    continuations: Annotated[int, typer.Option(min=0, help="How often it is queued again.")] = 3,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time. Default: all on Slurm, one locally.")
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cores of a cell. Default: the node's if it is exclusive, else one; locally an equal share.",
        ),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GB of a cell. Default: the node's, or the site's.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a cell. Default: one if --device is a GPU.")
    ] = None,
    exclusive: Annotated[
        bool | None,
        typer.Option("--exclusive/--share", help="A node for each cell. Default: for those that are timed."),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="What else sbatch is to be told, as NAME=VALUE; may be given several times."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until all jobs are gone; exit 1 if a cell failed.")
    ] = False,
) -> None:
    """Submit every cell asked for as a job of its own: `python -m benchmarks run ... --cell ID`.

    Data and weights are prepared here, before. A job that reaches its time limit, or is preempted, is queued
    again and goes on after its last epoch. The run's folder and the cache (`$BENCHMARKS_CACHE`) must be on a
    file system that every node sees. --resume submits the cells that have no record, or lack their curves,
    and have no job.

    Examples:

    `python -m benchmarks submit --data hotdog.zip --profile full --device cuda --seeds 5 --run photographs
    --partition gpu --sbatch account=vision`

    `python -m benchmarks submit --protocol finetune --seeds 20 --no-timing --cpus 4 --run seeds --wait`

    `python -m benchmarks submit --cluster local --run overnight`
    """
    settings = ClusterSettings(
        cluster=cluster_,
        folder="",
        minutes=minutes,
        continuations=continuations,
        parallel=parallel,
        partition=partition,
        cpus=cpus,
        memory_gb=memory,
        gpus=int(options.device != "cpu") if gpus is None else gpus,
        sbatch=_pairs(sbatch or []),
    )
    cluster.require(cluster_)
    submission = Submission(options, plan.plan(options, runner.available()), display)
    with submission.run.held(cell="submit"):
        jobs = _submit(submission, settings, exclusive)
    _print_ways_on(submission, jobs)
    if wait:
        _wait(submission, jobs)


def _submit(submission: Submission, settings: ClusterSettings, exclusive: bool | None) -> list[Submitted]:
    """Submit what is left to do; returns all jobs that are at work, those of earlier submissions too."""
    jobs, resume = submission.at_work(), submission.options.resume
    if jobs and not resume:
        raise UsageError(
            f"run {submission.run.name} has {len(jobs)} jobs that wait or run; --resume leaves them alone and"
            f" submits what else there is, `{cluster.cancelling(jobs)}` cancels them"
        )
    answered = submission.answered(resume=resume)
    taken = {cell for job in jobs for cell in job.cells} - answered
    left = [cell for cell in submission.cells if cell.id not in answered | taken]
    if not resume:
        submission.start_over(left)
    submission.prepare(left)
    settings = msgspec.structs.replace(
        settings, folder=str(submission.folder), name=f"benchmarks-{submission.run.folder.name}"
    )
    for alone, cells in batches(left, settings, exclusive):
        its_own = msgspec.structs.replace(settings, exclusive=alone)
        jobs += cluster.submit([submission.job(cell) for cell in cells], its_own)
        submission.remember(jobs)
    counts = {"have their records": len(answered), "have a job": len(taken), "submitted now": len(left)}
    shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    _say(f"{len(submission.cells)} cells: {shown}")
    return jobs


def batches(
    cells: Sequence[Cell], settings: ClusterSettings, exclusive: bool | None
) -> list[tuple[bool, list[Cell]]]:
    """The cells that get a node of their own (True) and the others, in arrays that Slurm takes; locally all
    in one batch.

    Args:
        exclusive: what the user wants; None: a node for each timed cell.
    """
    if settings.cluster == "local":
        return [(False, list(cells))] if cells else []
    groups: dict[bool, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.timed if exclusive is None else exclusive, []).append(cell)
    size = cluster.LARGEST_ARRAY
    return [
        (alone, group[start : start + size])
        for alone, group in groups.items()
        for start in range(0, len(group), size)
    ]


def _print_ways_on(submission: Submission, jobs: Sequence[Submitted]) -> None:
    """What to type next."""
    if jobs:
        numbers = ",".join(dict.fromkeys(job.number for job in jobs))
        watch = f"squeue --me --jobs {numbers}" if jobs[0].cluster == "slurm" else f"tail -f {jobs[0].log}"
        _say(f"jobs    {numbers}")
        _say(f"watch   {watch}")
        _say(f"cancel  {cluster.cancelling(jobs)}")
        _say(f"resume  {_again('--resume')}")
    _say(f"report  {shlex.join(['python', '-m', 'benchmarks', 'report', submission.options.run])}")


def _wait(submission: Submission, jobs: Sequence[Submitted]) -> None:
    """Until the jobs are gone; ends the process with 1 if a cell has no valid record then."""
    try:
        _watch(submission, jobs)
    except KeyboardInterrupt:
        _say(f"the jobs go on; to wait for them again: {_again('--resume', '--wait')}")
        _say(f"to cancel them: {cluster.cancelling(jobs)}")
        sys.exit(130)
    answered = submission.answered()
    missing = [cell for cell in submission.cells if cell.id not in answered]
    logs = {cell: job.log for job in jobs for cell in job.cells}
    for cell in missing:
        log = f"; the log is {logs[cell.id]}" if cell.id in logs else ""
        _say(f"failed: {cell.id}: {submission.complaint(cell)}{log}")
    _say(f"{len(submission.cells) - len(missing)} of {len(submission.cells)} cells ok")
    if missing:
        sys.exit(1)


def _watch(submission: Submission, jobs: Sequence[Submitted]) -> None:
    """Show how many cells have their records, until the jobs are gone."""
    total, shown, trouble = len(submission.cells), "", ""
    with display.live() as live:
        task = live.add_task("", total=total, title="all cells") if live else None
        while jobs:
            try:
                jobs, trouble = cluster.alive(jobs), ""
            except ClusterError as error:  # controllers are busy at times; the jobs are not the worse for it
                trouble = f" ({error}; asking again)"
            done = len(submission.answered())
            text = f"{done} of {total} cells have their records; jobs that wait or run: {len(jobs)}{trouble}"
            if live is not None and task is not None:
                live.update(task, completed=done, description=text)
            elif text != shown:
                display.print(text)
                shown = text
            if jobs:
                time.sleep(POLL_SECONDS)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for words in given:
        name, equals, value = words.lstrip("-").partition("=")
        if not (name and equals):
            raise UsageError(f"--sbatch {words}: an option of sbatch and its value, such as account=vision")
        pairs[name] = value
    return pairs


def _again(*words: str) -> str:
    """The same command, with other switches."""
    given = [word for word in sys.argv[1:] if word not in ("--resume", "--wait")]
    return shlex.join(["python", "-m", "benchmarks", *given, *words])


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
