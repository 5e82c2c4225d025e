"""The machine and the software a cell ran on, as far as its numbers depend on them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import cpuinfo
import psutil
import threadpoolctl

import backends
from backends import allocator
from backends.base import UsageError
from benchmarks.harness.record import Environment

PROJECT = Path(__file__).parents[2]
CODE_FOLDERS = ("backends", "benchmarks/harness", "benchmarks/recipes")
"""What decides a record's content; the report's code is not among them."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}
"""A processor's instructions, the widest first, by the name of its flag."""
ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")
VARIABLES = re.compile(
    "(OMP|KMP|GOMP|MKL|OPENBLAS|DNNL|ONEDNN|MALLOC|TF(?!_CLI_)|XLA|KERAS|MXNET|TORCH|PYTORCH|CUDA|NVIDIA|CUBLAS)_"
    "|GLIBC_TUNABLES$|LD_PRELOAD$|THP_MEM_ALLOC_ENABLE$"
)
"""Names of environment variables that figures depend on; TF_CLI_... are Terraform's."""

PACKAGES = ("numpy", "pillow", "scikit-learn", "transfer-learning-benchmarks")
"""Beside those that the backends name."""


def available_cores() -> int:
    """Physical cores this process may run on."""
    allowed = len(_one_of_each_core()) or os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


def affinity() -> tuple[int, ...]:
    """Processors this process may run on; none where the system does not say."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def pin(threads: int) -> None:
    """Keep this process and the threads that it will start to so many processors, each on a core of its own:
    two threads on one core's two halves would be a figure of chance. Nothing where the system cannot, or has
    fewer."""
    chosen = _one_of_each_core()
    if len(chosen) >= threads:
        os.sched_setaffinity(0, chosen[:threads])


def shares(count: int, cores: int | None = None) -> list[tuple[int, ...]]:
    """Processors for `count` processes side by side, none of them in two shares: frameworks that each start a
    thread for every core wait for one another's longer than they compute. Empty shares where the system
    cannot keep a process to its processors.

    Args:
        cores: of each; None: as many as there are for each.

    Raises:
        UsageError: there are fewer cores than that.
    """
    there = available_cores()
    each = cores or max(1, there // count)
    if count * each > there:
        raise UsageError(f"{count} cells at a time of {each} cores want {count * each}; here are {there}")
    chosen = _one_of_each_core()
    return [tuple(chosen[start * each :][:each]) for start in range(count)]


def _one_of_each_core() -> list[int]:
    """A processor of each core that this process may run on; empty where the system does not say."""
    chosen: dict[str, int] = {}
    for processor in affinity():
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        chosen.setdefault(siblings.read_text() if siblings.exists() else str(processor), processor)
    return list(chosen.values())


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that fix the threads of every runtime a framework may bring; read when it is imported."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def load_average() -> float:
    """Processes that wanted a core, averaged over the last minute."""
    return round(float(psutil.getloadavg()[0]), 2)


def describe(threads: int, load: float) -> Environment:
    """This process's environment, once its framework has been imported; `load` as it was before."""
    commit, dirty = version()
    return Environment(
        cpu=cpu_name(),
        cores=available_cores(),
        threads=threads,
        ram_bytes=psutil.virtual_memory().total,
        os=platform.platform(terse=True),
        python=platform.python_version(),
        packages=packages(),
        gpu=_gpu(),
        thread_pools=tuple(
            f"{pool['internal_api']} {pool.get('version') or '?'}: {pool['num_threads']} threads"
            for pool in threadpoolctl.threadpool_info()
        ),
        affinity=affinity(),
        allocator=_allocator(),
        variables={name: value for name, value in sorted(os.environ.items()) if VARIABLES.match(name)},
        load_average=load,
        git_commit=commit,
        git_dirty=dirty,
        code_sha256=code_sha256(),
    )


@cache
def cpu_name() -> str:
    """The processor's name, and what tells apart two that a virtual machine calls the same, though one may
    compute three times as fast: `AMD EPYC (family 25, model 1, AVX2)`."""
    found = cpuinfo.get_cpu_info()
    name = str(found.get("brand_raw") or platform.processor() or platform.machine())
    told = [f"{field} {found[field]}" for field in ("family", "model") if field in found]
    told += [VECTORS[flag] for flag in VECTORS if flag in found.get("flags", ())][:1]
    return f"{name} ({', '.join(told)})" if told else name


def packages() -> dict[str, str]:
    """Versions of what the figures depend on, as installed in this environment; nothing is imported."""
    versions = {}
    cards = backends.known().values()
    for name in sorted(
        {*PACKAGES, *(name for card in cards for name in (*card.distributions, *card.packages))}
    ):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _allocator() -> str:
    """The one that is loaded over the C library's, or that one."""
    try:
        libraries = Path("/proc/self/maps").read_text()
    except OSError:
        libraries = ""
    loaded = [name for name in ALLOCATORS if f"lib{name}" in libraries]
    kept = ", keeps what is freed" if allocator.keeps_freed() else ""
    return ", ".join(loaded) or " ".join(platform.libc_ver()).strip() + kept or "unknown"


def _gpu() -> str | None:
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(answer.stdout.strip().splitlines()) or None


@cache
def version() -> tuple[str | None, bool | None]:
    """The commit, and whether anything is uncommitted, when this process first asked: an edit made while a
    cell runs is not what ran. None where git does not say."""

    def ask(*words: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(PROJECT), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return answer.stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None


@cache
def code_sha256() -> str:
    """Hash of the code and recipes that decide what a record holds, when this process first asked."""
    digest = hashlib.sha256()
    files = [
        path
        for folder in CODE_FOLDERS
        for path in (PROJECT / folder).rglob("*")
        if path.suffix in (".py", ".toml")
    ]
    for path in sorted(files):
        digest.update(path.relative_to(PROJECT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
