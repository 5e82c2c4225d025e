"""Commands as jobs of a cluster, by submitit: a Slurm's, or this machine's own.

What travels is a command line and plain values. What comes back is whatever the command wrote: the state that
Slurm reports of a job is known only where it keeps accounts, so nobody here asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec
import psutil

from backends.base import BenchmarkError, UsageError, one_line
from benchmarks.harness.environment import shares

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

WARNING_SECONDS = 30
"""From submitit's signal to the end of the time limit: enough to end a process and to ask for a requeue."""
END_SECONDS = 10
"""From SIGTERM to SIGKILL, for a command. Less than Slurm's own KillWait of 30."""
PREEMPTION_SECONDS = 5
"""A preempting cluster sends SIGTERM and then submitit's signal; one that cancels a job, SIGTERM alone."""
LARGEST_ARRAY = 1000
"""Jobs; Slurm's own MaxArraySize is 1001, one more than the largest index."""
STEP_HAS_ALL_CORES = "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_ON_NODE"
"""Since Slurm 22.05 srun no longer takes the job's number; with SLURM_EXACT a step would get one core."""
LOCAL_CONTROLLER = "submitit.local._local"


class ClusterError(BenchmarkError):
    """A cluster that does not take jobs or does not answer, or a command that failed there."""


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where jobs run, and what each of them gets."""

    cluster: Literal["slurm", "local"]
    folder: str
    """For submitit's files and the jobs' logs; every node must see it."""
    name: str = "benchmarks"
    """The jobs' name, in `squeue`."""
    minutes: int = 240
    """A job's time limit."""
    continuations: int = 3
    """How often a job that reached its time limit is queued again."""
    parallel: int | None = None
    """Jobs at a time; None: all on Slurm, one locally."""
    partition: str | None = None
    cpus: int | None = None
    """Cores of a job; None: Slurm's default, or all of an exclusive node; locally an equal share."""
    memory_gb: float | None = None
    """None: Slurm's default, or all of an exclusive node."""
    gpus: int = 0
    exclusive: bool = False
    """A node of its own for each job, so that nothing else disturbs a clock."""
    sbatch: dict[str, str] = {}
    """What else a site wants from `sbatch`: {"account": "vision"}."""


class Job(msgspec.Struct, frozen=True):
    """A cell, and the command that runs it."""

    cell: str
    argv: tuple[str, ...]


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a cluster has taken."""

    cluster: Literal["slurm", "local"]
    id: str
    """Slurm's id of a job (`12`) or of an array's element (`12_3`); locally a process id."""
    cells: tuple[str, ...]
    """One on Slurm; locally all that this job runs one after the other."""
    log: str
    """What the commands print."""

    @property
    def number(self) -> str:
        """The id that it shares with the rest of its array."""
        return self.id.split("_")[0]


def require(cluster: str) -> None:
    """Raise UsageError where submitit or the cluster is not there; says what installs it."""
    if importlib.util.find_spec("submitit") is None:
        raise UsageError("submitit is not installed here; `pip install '.[cluster]'` installs it")
    if cluster == "slurm" and (shutil.which("sbatch") is None or shutil.which("srun") is None):
        raise UsageError(
            "no sbatch on this machine; submit from a login node of a Slurm cluster, or give --cluster local"
        )


def submit(jobs: Sequence[Job], settings: ClusterSettings) -> list[Submitted]:
    """Hand jobs to the cluster: to Slurm as one array; locally as `parallel` queues, since submitit would
    start all local jobs at once. Each queue has processors of its own.

    Raises:
        UsageError: see `require`; or the queues want more cores than this machine has.
        ClusterError: sbatch refuses; with its words.
    """
    require(settings.cluster)
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError

    queues: list[list[Job]] = [[job] for job in jobs]
    processors: list[tuple[int, ...]] = [()] * len(jobs)
    if settings.cluster == "local":
        count = min(settings.parallel or 1, len(jobs))
        queues = [list(jobs[start::count]) for start in range(count)]
        processors = shares(count, settings.cpus)
    limits = {f"{settings.cluster}_max_num_timeout": settings.continuations}
    executor = AutoExecutor(settings.folder, cluster=settings.cluster, **limits)
    executor.update_parameters(**_parameters(settings, len(jobs), longest=max(map(len, queues))))
    works = [
        Work([job.argv for job in queue], os.getcwd(), _environment(), its_own)
        for queue, its_own in zip(queues, processors, strict=True)
    ]
    try:
        with _detached() if settings.cluster == "local" else contextlib.nullcontext():
            taken = executor.submit_array(works)
    except FailedJobError as error:
        raise ClusterError(f"sbatch refuses the jobs: {one_line(error)}") from error
    return [
        Submitted(
            cluster=settings.cluster,
            id=job.job_id,
            cells=tuple(each.cell for each in queue),
            log=str(job.paths.stdout),
        )
        for job, queue in zip(taken, queues, strict=True)
    ]


def alive(submitted: Iterable[Submitted]) -> list[Submitted]:
    """Those of the jobs that wait, run or are being queued again.

    Raises:
        ClusterError: squeue does not answer.
    """
    submitted = list(submitted)
    queued = _queued() if any(job.cluster == "slurm" for job in submitted) else frozenset()
    return [
        job for job in submitted if (job.id in queued if job.cluster == "slurm" else _runs_here(int(job.id)))
    ]


def cancelling(submitted: Iterable[Submitted]) -> str:
    """The command that cancels jobs."""
    programs: dict[str, list[str]] = {}
    for job in submitted:
        programs.setdefault("scancel" if job.cluster == "slurm" else "kill", []).append(job.number)
    return "; ".join(shlex.join([program, *dict.fromkeys(numbers)]) for program, numbers in programs.items())


class Work:
    """Commands to be run one after the other: what submitit pickles, runs, and queues again."""

    def __init__(
        self,
        commands: Sequence[tuple[str, ...]],
        folder: str,
        environment: dict[str, str],
        processors: tuple[int, ...] = (),
    ) -> None:
        self.commands = list(commands)
        """Those that are still to be run, or to be finished."""
        self.folder = folder
        self.environment = environment
        """Beside what the node sets."""
        self.processors = processors
        """Those that the commands may run on; none: as the node has it."""

    def __call__(self) -> None:
        """Run the commands.

        Raises:
            ClusterError: some failed (the others ran nevertheless), or the job was stopped.
        """
        if self.processors:
            os.sched_setaffinity(0, self.processors)
        failed = []
        while self.commands:
            code = self._run(self.commands[0])
            if code:
                failed.append(f"exit code {code}: {shlex.join(self.commands[0])}")
            del self.commands[0]
        if failed:
            raise ClusterError("; ".join(failed))

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again when the time is up: the commands that are not finished. Each goes on
        from what it has on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run(self, argv: tuple[str, ...]) -> int:
        """The exit code of a command. It ends with the job, however the job ends."""
        # Slurm signals every process of a step, and only submitit may answer this one.
        with _blocked(signal.SIGUSR1, signal.SIGUSR2):
            process = subprocess.Popen(
                argv,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                start_new_session=True,  # locally: the terminal's signals are not the command's
            )
        stopped = []

        def stop(number: int, _: object) -> None:
            stopped.append(number)
            process.terminate()

        signal.signal(signal.SIGTERM, stop)
        try:
            code = process.wait()
            if stopped or code == -signal.SIGTERM:
                _stopped(argv)
            return code
        finally:  # submitit's signal ends this process from within `wait`
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- How ------------------------------------------------------------------------------------------


def _stopped(argv: Sequence[str]) -> NoReturn:
    time.sleep(PREEMPTION_SECONDS)
    raise ClusterError(f"cancelled while it ran: {shlex.join(argv)}")


def _parameters(settings: ClusterSettings, jobs: int, *, longest: int) -> dict[str, object]:
    """submitit's words for the settings."""
    given = {
        "name": settings.name,
        "timeout_min": settings.minutes * (longest if settings.cluster == "local" else 1),
        "gpus_per_node": settings.gpus or None,
        "cpus_per_task": settings.cpus,
        "mem_gb": 0 if settings.exclusive and settings.memory_gb is None else settings.memory_gb,
        "slurm_partition": settings.partition,
        "slurm_exclusive": settings.exclusive or None,
        "slurm_array_parallelism": settings.parallel or jobs,
        "slurm_signal_delay_s": WARNING_SECONDS,
        "slurm_setup": [STEP_HAS_ALL_CORES],
        "slurm_additional_parameters": settings.sbatch or None,
        "stderr_to_stdout": True,
    }
    return {name: value for name, value in given.items() if value is not None}


def _environment() -> dict[str, str]:
    """Our own variables, for a cluster that does not export the submitter's."""
    return {name: value for name, value in os.environ.items() if name.startswith("BENCHMARKS_")}


def _queued() -> frozenset[str]:
    answer = subprocess.run(
        ["squeue", "--me", "--array", "--noheader", "--format=%i"],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        words = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
        raise ClusterError(f"squeue does not answer: {words[-1]}")
    return frozenset(answer.stdout.split())


def _runs_here(process: int) -> bool:
    """Whether it is submitit's controller; a process id may be another's by now."""
    try:
        found = psutil.Process(process)
        return LOCAL_CONTROLLER in found.cmdline() and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextlib.contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    """Processes started within never see these signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _detached() -> Iterator[None]:
    """Processes started within outlive the terminal: Ctrl-C and its end don't reach them, and they don't hold
    our output open."""
    streams = (1, 2)
    kept = [os.dup(stream) for stream in streams]
    with _blocked(signal.SIGINT, signal.SIGHUP), open(os.devnull, "wb") as nothing:
        try:
            for stream in streams:
                os.dup2(nothing.fileno(), stream)
            yield
        finally:
            for stream, copy in zip(streams, kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)
