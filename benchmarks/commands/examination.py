"""What `doctor` looks at: environments, the machine, the cache and the network. Facts; no advice."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
import psutil
from safetensors import SafetensorError, safe_open

import backends
from backends.base import BackendInfo, BenchmarkError, one_line
from backends.sources import Source
from benchmarks.commands import leftovers, reachability
from benchmarks.commands.leftovers import Leftover
from benchmarks.commands.reachability import Answer
from benchmarks.harness import environment
from benchmarks.harness.cache import cache_folder, intact
from benchmarks.harness.images import data
from benchmarks.harness.images.sketch import SKETCH_VERSION
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import all_recipes
from benchmarks.harness.running import runner, source
from benchmarks.harness.running.run import RUNS

DEFAULT_JOB_CACHE = 512 * 2**20
"""Twice what the drawn images, their pixels, and the weights of a first default job have taken."""
DEFAULT_JOB_RESULTS = 32 * 2**20
"""Ten times what records, logs and a report have taken."""


HOTDOG = "hotdog photographs"
OTHER = "another file"
"""A checkpoint that no recipe of this version starts from, or that cannot be told from such a one."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backend runs, and what it is there."""

    backend: str
    title: str
    interpreter: str | None = None
    """None: no environment has the framework."""
    python: str | None = None
    version: str | None = None
    devices: tuple[str, ...] = ()
    threads: int
    """For one operation, as every run sets them."""
    problem: str | None = None
    """Why it cannot run."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to run on."""

    cores: int
    load_average: float
    memory_bytes: int
    free_memory_bytes: int
    sbatch: str | None
    """Slurm's command, where there is one."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that runs write to."""

    name: str
    path: str
    used_bytes: int
    free_bytes: int
    needed_bytes: int
    """By a first default job, at most."""
    writable: bool


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A data set or a checkpoint."""

    name: str
    state: Literal["ready", "absent", "damaged"]
    note: str = ""
    path: str | None = None
    """Where it is, or would be."""
    bytes: int = 0
    sha256: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An official source."""

    name: str
    url: str
    answer: Answer | None
    """None: it was not asked."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    backends: tuple[Environment, ...]
    machine: Machine
    places: tuple[Place, ...]
    data: tuple[Item, ...]
    weights: tuple[Item, ...]
    """Kept in the suite's own cache."""
    official: tuple[Item, ...]
    """Checkpoints in the frameworks' caches."""
    sources: tuple[Asked, ...]
    leftovers: tuple[Leftover, ...]


def examine(*, offline: bool, clean: bool) -> Examination:
    """Look at everything, as much as possible at once."""
    partial = leftovers.find(cache_folder())
    if clean:
        partial = tuple(map(leftovers.clean, partial))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(_sources, offline)
        environments = pool.map(_environment, backends.known().values())
        official = pool.submit(lambda: tuple(_official()))
        weights = pool.submit(lambda: tuple(_weights()))
        return Examination(
            machine=_machine(),
            places=tuple(_places()),
            data=tuple(_data()),
            weights=weights.result(),
            official=official.result(),
            sources=asked.result(),
            leftovers=partial,
            backends=tuple(environments),
        )


# --- Environments and the machine -----------------------------------------------------------------


def _environment(card: BackendInfo) -> Environment:
    given = os.environ.get(f"BENCHMARKS_PYTHON_{card.name.upper()}") or None
    found = Environment(backend=card.name, title=card.title, interpreter=given, threads=runner.threads())
    logs = tempfile.mkdtemp(prefix="doctor-")
    try:
        interpreter = runner.interpreter_of(card)
        if interpreter is None:
            return msgspec.structs.replace(found, problem="no environment has it")
        found = msgspec.structs.replace(
            found, interpreter=str(interpreter), python=_python_version(interpreter)
        )
        answer = runner.probe(card, log=Path(logs, f"{card.name}.log"))
        found = msgspec.structs.replace(found, version=answer.version, devices=answer.devices)
    except (BenchmarkError, OSError) as error:
        found = msgspec.structs.replace(found, problem=one_line(error))
    if logs not in (found.problem or ""):  # a log that is named stays
        shutil.rmtree(logs, ignore_errors=True)
    return found


def _python_version(interpreter: Path) -> str | None:
    try:
        said = subprocess.run([interpreter, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.removeprefix("Python ").strip() or None


def _machine() -> Machine:
    memory = psutil.virtual_memory()
    return Machine(
        cores=environment.available_cores(),
        load_average=environment.load_average(),
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        sbatch=shutil.which("sbatch"),
    )


def _places() -> Iterator[Place]:
    for name, path, needed in (
        ("cache", cache_folder(), DEFAULT_JOB_CACHE),
        ("results", RUNS, DEFAULT_JOB_RESULTS),
    ):
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        yield Place(
            name=name,
            path=str(path),
            used_bytes=_bytes_of(path),
            free_bytes=shutil.disk_usage(existing).free,
            needed_bytes=needed,
            writable=os.access(existing, os.W_OK | os.X_OK) and (path == existing or not path.exists()),
        )


def _files_of(folder: Path) -> Iterator[Path]:
    return (Path(root, file) for root, _, files in os.walk(folder) for file in files)


def _bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder; of those that vanish meanwhile, none."""
    count = 0
    for file in _files_of(path) if path.is_dir() else (path,):
        with contextlib.suppress(OSError):
            count += file.lstat().st_size
    return count


# --- Data -----------------------------------------------------------------------------------------


def _data() -> Iterator[Item]:
    yield _hotdog()
    folders = {folder for folder in _kept("data") if folder.is_dir()}
    for name in (*data.DRAWN, "source"):
        drawn = _drawn(name)
        folders -= set(drawn)
        if not drawn:
            yield Item(name=name, state="absent", note="drawn on first use, in seconds")
        for folder in drawn:
            try:
                problem = "" if intact(folder) else "; changed: drawn anew on next use"
            except OSError as error:
                problem = f"; {one_line(error)}"
            yield _folder_item(name, folder, problem)
    for folder in sorted(folders):
        yield _folder_item(folder.name, folder, "")


def _kept(place: str) -> Iterator[Path]:
    """What is whole in a folder of the cache."""
    return (cache_folder() / place).glob("[!.]*")


def _drawn(name: str) -> list[Path]:
    """Folders of a drawn set as this version draws it, of any size."""
    return sorted((cache_folder() / "data").glob(f"{name}-v{SKETCH_VERSION}-*"))


def _folder_item(name: str, folder: Path, problem: str) -> Item:
    images = sum(file.suffix.lower() in data.IMAGE_SUFFIXES for file in _files_of(folder))
    return Item(
        name=name,
        state="damaged" if problem else "ready",
        note=f"{images} images{problem}",
        path=str(folder),
        bytes=_bytes_of(folder),
    )


def _hotdog() -> Item:
    return _pinned(
        HOTDOG,
        cache_folder() / "downloads" / "hotdog.zip",
        f"sha1:{data.HOTDOG_SHA1}",
        fetched_by="--data hotdog",
    )


def _pinned(name: str, path: Path, digest: str, *, fetched_by: str) -> Item:
    """A file that is fetched, and known by its hash."""
    item = Item(name=name, state="absent", note=f"fetched by {fetched_by}", path=str(path))
    if not path.exists():
        return item
    algorithm, _, expected = digest.partition(":")
    item = msgspec.structs.replace(item, state="ready", note="verified", bytes=_bytes_of(path))
    try:
        found = _digest(path, algorithm)
        if found.startswith(expected):
            return msgspec.structs.replace(item, sha256=_digest(path, "sha256"))
        problem = f"its {algorithm} is {found}, not {expected}"
    except OSError as error:
        problem = one_line(error)
    return msgspec.structs.replace(item, state="damaged", note=problem)


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- Weights --------------------------------------------------------------------------------------


def _weights() -> Iterator[Item]:
    """Network A of every recipe that trains one, and whatever other files there are."""
    files = set(_kept("weights"))
    images = _source_images()
    certain = images is not None and intact(Path(images.train.root).parent)
    for recipe in all_recipes():
        if recipe.protocol == "pretrain":
            name = f"network A {recipe.backend} {recipe.architecture}"
            path = source.source_path(recipe, images) if images else None
            if path in files:
                files.remove(path)
                yield _checkpoint(name, path, "")
            else:
                yield Item(name=name, state="absent", note="trained on first use, ~2 min")
    for path in sorted(files):
        if path.suffix == ".safetensors":
            published = path.name.startswith("imagenet-")
            note = "unused" if certain and not published else ""
            yield _checkpoint(path.stem if published else OTHER, path, note)


def _source_images() -> data.DataSet | None:
    """The set that network A is trained on; None where it is not there, as nothing is drawn here."""
    drawn = _drawn("source")
    try:
        return data.open_data(str(drawn[-1]), profile_of("full")) if drawn else None
    except BenchmarkError:  # what is wrong with it stands among the data
        return None


def _checkpoint(name: str, path: Path, note: str) -> Item:
    item = Item(name=name, state="ready", note=note, path=str(path), bytes=_bytes_of(path))
    try:
        with safe_open(path, framework="np"):  # reads the header, and compares the file's size with it
            return msgspec.structs.replace(item, sha256=_digest(path, "sha256"))
    except (SafetensorError, OSError) as error:
        return msgspec.structs.replace(
            item, state="damaged", note=f"not a whole safetensors file ({one_line(error)})"
        )


def _official() -> Iterator[Item]:
    for card in backends.known().values():
        for published in card.sources:
            name = _name_of(card, published)
            if published.file is None:
                yield Item(name=name, state="ready", note=published.package)
            else:
                yield _pinned(name, published.file, published.digest, fetched_by="--weights imagenet")


def _name_of(card: BackendInfo, published: Source) -> str:
    return f"{card.name} {published.architecture}{'' if published.head else ' without head'}"


# --- Sources --------------------------------------------------------------------------------------


def _sources(offline: bool) -> tuple[Asked, ...]:
    named = [(HOTDOG, url) for url in data.HOTDOG_URLS]
    named += [
        (_name_of(card, published), published.url)
        for card in backends.known().values()
        for published in card.sources
        if published.url is not None
    ]
    answers = [None] * len(named) if offline else reachability.ask([url for _, url in named])
    return tuple(
        Asked(name=name, url=url, answer=answer) for (name, url), answer in zip(named, answers, strict=True)
    )
