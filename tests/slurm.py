"""A real Slurm on this machine alone, for tests: in a folder, on ports and with a key of its own, so that an
installed one is left alone.

A pytest plugin: it brings the fixture `slurm`. By hand, `python tests/slurm.py start FOLDER` starts one and
prints what to export, and `stop FOLDER` ends it. Root, and Debian's `slurm-wlm` and `munge`, are needed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DAEMONS = ("slurmd", "slurmctld", "munged")
"""In the order in which they are stopped."""
START_SECONDS, STOP_SECONDS = 60, 20

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until the credentials of its first start are out of date.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
ReturnToService=2
KillWait=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
# The only place that keeps a job's end, where there is no accounting.
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={megabytes}
PartitionName=main Nodes=localhost Default=YES PriorityTier=1
PartitionName=urgent Nodes=localhost PriorityTier=2
"""


@pytest.fixture(scope="session")
def slurm() -> Iterator[Path]:
    """A Slurm that `SLURM_CONF` names; its folder. Two partitions, `main` and `urgent`, of which the second
    preempts the first."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with running() as folder:
        yield folder


def missing() -> str | None:
    """Why there can be no Slurm here; None where there can."""
    programs = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=_path()) is None]
    if programs:
        return f"no {', '.join(programs)} here; Debian's slurm-wlm and munge have them"
    return "only root can start a Slurm of its own" if os.geteuid() else None


@contextlib.contextmanager
def running() -> Iterator[Path]:
    """A Slurm for the length of the block, which `SLURM_CONF` of this process names; yields its folder."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path must be short
    before = os.environ.get("SLURM_CONF")
    try:
        os.environ["SLURM_CONF"] = str(start(folder))
        yield folder
    finally:
        stop(folder)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path) -> Path:
    """Start the three daemons and wait until the node takes jobs; returns the path of slurm.conf."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    configuration = folder / "slurm.conf"
    slurmctld_port, slurmd_port = _free_ports(2)
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            slurmctld_port=slurmctld_port,
            slurmd_port=slurmd_port,
            cpus=os.cpu_count(),
            megabytes=_megabytes(),
        )
    )
    own = [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "seed", "log")]
    _run("munged", f"--socket={folder}/munge.socket", f"--key-file={key}", *own)
    environment = {"SLURM_CONF": str(configuration)}
    _run("slurmctld", "-c", **environment)
    _run("slurmd", "-N", "localhost", **environment)
    deadline = time.monotonic() + START_SECONDS
    while _ask("sinfo", "-h", "-p", "main", "-o", "%T", **environment) != "idle":
        if time.monotonic() > deadline:
            stop(folder)
            raise RuntimeError(f"no Slurm after {START_SECONDS} s; see {folder}/slurmctld.log")
        time.sleep(0.2)
    return configuration


def stop(folder: Path) -> None:
    """Cancel all jobs and end the daemons, those that hang too."""
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    for partition in ("main", "urgent"):
        _ask("scancel", "-p", partition, **environment)
    _wait(lambda: not _ask("squeue", "-h", **environment))
    for name in DAEMONS:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            process = int((folder / f"{name}.pid").read_text())
            os.kill(process, signal.SIGTERM)
            if not _wait(lambda process=process: not Path(f"/proc/{process}").exists()):
                os.kill(process, signal.SIGKILL)


def _wait(condition: Callable[[], bool]) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + STOP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _ask(*words: str, **environment: str) -> str:
    """The answer of a client; empty where it gets none."""
    answer = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return answer.stdout.strip()


def _run(name: str, *words: str, **environment: str) -> None:
    """Start a daemon, which goes to the background by itself; on all cores, however few the tests have."""
    program = shutil.which(name, path=_path())
    subprocess.run(
        [str(program), *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, range(os.cpu_count() or 1)),
        check=True,
        timeout=60,
    )


def _megabytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start", folder]:
            print(f"export SLURM_CONF={start(Path(folder).resolve())}")
        case ["stop", folder]:
            stop(Path(folder).resolve())
        case _:
            sys.exit(__doc__)
