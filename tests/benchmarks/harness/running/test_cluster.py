"""Jobs on a real Slurm, and on this machine: they run, fail, are cancelled, and go on when interrupted."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest

from backends.base import UsageError
from benchmarks.harness.environment import available_cores
from benchmarks.harness.running import cluster
from benchmarks.harness.running.cluster import ClusterError, ClusterSettings, Job, Submitted, Work

pytestmark = pytest.mark.once

pytest_plugins = ("tests.slurm",)

SECONDS = 90
"""For anything to happen, on a machine that has other things to do."""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"nothing after {SECONDS} s"
        time.sleep(0.1)


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


@pytest.fixture(params=["slurm", "local"])
def settings(request, tmp_path) -> ClusterSettings:
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return ClusterSettings(cluster=request.param, folder=str(tmp_path / "jobs"), minutes=5)


@pytest.fixture
def on_slurm(slurm, tmp_path) -> ClusterSettings:
    return ClusterSettings(cluster="slurm", folder=str(tmp_path / "jobs"), minutes=5)


def submit(settings: ClusterSettings, *scripts: str, **changes: object) -> list[Submitted]:
    jobs = [Job(f"cell-{place}", shell(script)) for place, script in enumerate(scripts)]
    return cluster.submit(jobs, msgspec.structs.replace(settings, **changes))


def finish(submitted: Sequence[Submitted]) -> str:
    """Wait until the jobs are gone; what they printed."""
    until(lambda: not cluster.alive(submitted))
    logs = [Path(job.log) for job in submitted]
    return "".join(log.read_text() for log in logs if log.exists())


# --- What runs -------------------------------------------------------------------------------------


def test_commands_run_where_they_were_submitted(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    submitted = submit(settings, "echo $BENCHMARKS_CACHE > a", "echo b > b; exit 3", "echo c > c", parallel=2)
    assert sorted(cell for job in submitted for cell in job.cells) == ["cell-0", "cell-1", "cell-2"]
    printed = finish(submitted)
    assert (tmp_path / "a").read_text().strip() == os.environ["BENCHMARKS_CACHE"]
    assert (tmp_path / "b").exists() and (tmp_path / "c").exists()
    assert "ClusterError: exit code 3: sh -c 'echo b > b; exit 3'" in printed


def test_as_many_jobs_at_a_time_as_asked_for(settings, tmp_path):
    script = f"echo start >> {tmp_path}/log; sleep 1; echo end >> {tmp_path}/log"
    finish(submit(settings, script, script, script, parallel=1))
    assert (tmp_path / "log").read_text().split() == ["start", "end"] * 3


def test_jobs_share_a_node_unless_it_is_theirs_alone(on_slurm, tmp_path):
    def overlaps(name: str, *, exclusive: bool) -> bool:
        log = tmp_path / name
        script = f"echo start >> {log}; sleep 3; echo end >> {log}"
        finish(submit(on_slurm, script, script, parallel=2, exclusive=exclusive))
        return log.read_text().split()[:2] == ["start", "start"]

    if psutil.cpu_count() > 1:
        assert overlaps("shared", exclusive=False)
    assert not overlaps("exclusive", exclusive=True)


@pytest.mark.parametrize(
    ("changes", "cores"),
    [({}, 1), ({"cpus": psutil.cpu_count()}, psutil.cpu_count()), ({"exclusive": True}, psutil.cpu_count())],
)
def test_a_job_may_use_the_cores_it_was_given(on_slurm, tmp_path, monkeypatch, changes, cores):
    monkeypatch.setenv("SLURM_EXACT", "1")  # as some sites do: a step gets what it asks for and no more
    count = "import os; print(len(os.sched_getaffinity(0)))"
    finish(submit(on_slurm, f"{sys.executable} -c '{count}' > {tmp_path}/cores", **changes))
    assert int((tmp_path / "cores").read_text()) == cores


def test_a_site_s_own_options_reach_sbatch(on_slurm):
    submitted = submit(on_slurm, "true", name="named", sbatch={"comment": "for the site"}, partition="urgent")
    shown = subprocess.run(
        ["scontrol", "show", "job", submitted[0].id], capture_output=True, text=True, check=True
    )
    for words in ("JobName=named", "Comment=for the site", "Partition=urgent"):
        assert words in shown.stdout
    finish(submitted)


# --- What goes wrong -------------------------------------------------------------------------------


def test_sbatch_s_refusal_in_its_words(on_slurm):
    with pytest.raises(ClusterError, match=r"sbatch refuses the jobs: .*invalid partition specified: none"):
        submit(on_slurm, "true", partition="none")


def test_a_controller_that_is_gone(on_slurm, slurm, tmp_path, monkeypatch):
    submitted = submit(on_slurm, "true")
    finish(submitted)
    nobody = tmp_path / "slurm.conf"
    nobody.write_text((slurm / "slurm.conf").read_text().replace("SlurmctldPort=", "SlurmctldPort=1 #"))
    monkeypatch.setenv("SLURM_CONF", str(nobody))
    with pytest.raises(ClusterError, match=r"squeue does not answer: .*Unable to contact slurm controller"):
        cluster.alive(submitted)


def test_no_slurm_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no sbatch on this machine.*--cluster local"):
        cluster.require("slurm")
    cluster.require("local")


def test_no_submitit_in_this_environment(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[cluster\]'"):
        cluster.require("local")


def test_cancelled_jobs_leave_nothing_running(settings, tmp_path):
    submitted = submit(settings, f"echo $$ > {tmp_path}/process; sleep 600", "sleep 600")
    until((tmp_path / "process").exists)
    process = int((tmp_path / "process").read_text())
    assert len(cluster.alive(submitted)) == len(submitted)
    subprocess.run(cluster.cancelling(submitted).split(), check=True)
    finish(submitted)
    assert not psutil.pid_exists(process)


# --- What goes on ----------------------------------------------------------------------------------


def interruptible(folder: Path) -> str:
    """A command that never ends when it runs for the first time, and ends at once when it runs again."""
    code = f"""
import pathlib, signal, time
signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path("{folder}/signalled").touch())
with open("{folder}/runs", "a+") as runs:
    runs.write("run ")
    first = runs.tell() == 4
time.sleep(600 * first)
"""
    return f"exec {sys.executable} -c {shlex.quote(code)}"


def runs(folder: Path) -> int:
    path = folder / "runs"
    return len(path.read_text().split()) if path.exists() else 0


def send(number: signal.Signals, job: Submitted) -> None:
    """A signal to all of a job, as Slurm sends it."""
    if job.cluster == "slurm":
        subprocess.run(["scancel", f"--signal={number}", job.id], check=True)
    else:
        (task,) = psutil.Process(int(job.id)).children()
        task.send_signal(number)


def test_an_interrupted_command_is_queued_again(settings, tmp_path):
    submitted = submit(settings, f"echo first >> {tmp_path}/order", interruptible(tmp_path), "exit 7")
    until(lambda: runs(tmp_path) == 1)
    send(signal.SIGUSR2, submitted[min(1, len(submitted) - 1)])
    printed = finish(submitted)
    assert runs(tmp_path) == 2
    assert (tmp_path / "order").read_text().split() == ["first"]  # what had ended is not run again
    assert "exit code 7" in printed
    assert not (
        tmp_path / "signalled"
    ).exists()  # Slurm sends it to every process; it was submitit's to answer


def test_a_command_is_queued_again_so_often_and_no_more(settings, tmp_path):
    submitted = submit(settings, interruptible(tmp_path), continuations=0)
    until(lambda: runs(tmp_path) == 1)
    send(signal.SIGUSR2, submitted[0])
    assert "Job not requeued because: timed-out too many times" in finish(submitted)
    assert runs(tmp_path) == 1


def test_a_command_goes_on_after_its_time_limit(on_slurm, tmp_path):
    submitted = submit(on_slurm, interruptible(tmp_path), minutes=1)
    printed = finish(submitted)
    assert runs(tmp_path) == 2
    assert f"Requeued job {submitted[0].id}" in printed


def test_a_preempted_command_is_queued_again(settings, tmp_path):
    submitted = submit(settings, interruptible(tmp_path))
    until(lambda: runs(tmp_path) == 1)
    send(signal.SIGTERM, submitted[0])
    time.sleep(1)  # the command has ended; the job waits for what follows
    send(signal.SIGUSR2, submitted[0])
    finish(submitted)
    assert runs(tmp_path) == 2


def test_a_command_goes_on_after_a_more_urgent_job(on_slurm, slurm, tmp_path):
    submitted = submit(on_slurm, interruptible(tmp_path))
    until(lambda: runs(tmp_path) == 1)
    subprocess.run(
        ["sbatch", "-p", "urgent", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"], check=True
    )
    assert "DUE TO PREEMPTION" in finish(submitted)
    assert runs(tmp_path) == 2


def test_a_local_job_outlives_the_one_who_submitted_it(tmp_path):
    script = f"""
import os, signal, time
from benchmarks.harness.running.cluster import ClusterSettings, Job, submit
submit([Job("cell", ("sh", "-c", "sleep 3; echo done > {tmp_path}/done"))],
       ClusterSettings(cluster="local", folder="{tmp_path}/jobs"))
time.sleep(1)
os.killpg(os.getpgrp(), signal.SIGINT)  # Ctrl-C goes to all of a terminal's
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, start_new_session=True
    )
    assert "KeyboardInterrupt" in ended.stderr
    assert not (tmp_path / "done").exists()  # and nobody had to wait for the job's own output to end
    until((tmp_path / "done").exists)


@pytest.mark.skipif(available_cores() < 2, reason="one core cannot be shared")
def test_local_queues_share_the_cores(tmp_path):
    settings = ClusterSettings(cluster="local", folder=str(tmp_path))
    asking = shlex.join([sys.executable, "-c", "import os; print('on', *os.sched_getaffinity(0))"])
    half = available_cores() // 2
    placed = [
        line for line in finish(submit(settings, asking, asking, parallel=2)).splitlines() if "on " in line
    ]
    first, second = (set(line.split()[1:]) for line in placed)
    assert len(first) == len(second) == half
    assert not first & second
    with pytest.raises(UsageError, match=r"2 cells at a time of \d+ cores want \d+; here are \d+"):
        submit(settings, asking, asking, parallel=2, cpus=available_cores())


def test_plain_values_travel():
    work = Work([("true",), ("false",)], "/", {"BENCHMARKS_CACHE": "/cache"})
    again = pickle.loads(pickle.dumps(work)).checkpoint().function
    assert vars(again) == {
        "commands": [("true",), ("false",)],
        "folder": "/",
        "environment": {"BENCHMARKS_CACHE": "/cache"},
        "processors": (),
    }
    with pytest.raises(ClusterError, match="exit code 1: false"):
        again()
    assert again.commands == []
