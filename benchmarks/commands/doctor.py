"""`python -m benchmarks doctor`: what is here, what is missing or broken, and what to type next."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

import backends
from benchmarks.commands import examination
from benchmarks.commands.examination import HOTDOG, OTHER, Environment, Examination, Item
from benchmarks.commands.leftovers import SAFE_AGE, Leftover
from benchmarks.commands.shared import err, out
from benchmarks.harness.environment import PROJECT

ENVIRONMENTS_BYTES = 12 * 2**30
"""What tox needs for all three frameworks: they take 8.5 GiB, most of it torch's CUDA libraries."""
CELL_BYTES = 2 * 2**30
"""For a cell of the default job and the process that started it: the largest cell has taken 1.2 GiB."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do next."""

    why: str
    command: str | None = None


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server whether it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For a machine: all of it.")] = False,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Remove what killed processes left in the cache, if an hour old."),
    ] = False,
) -> None:
    """What is installed, on which devices; what is cached, damaged or left over; which official sources
    answer; and what to type next.

    Exit code: 0 if at least one backend can run, else 1.

    Examples:

    `python -m benchmarks doctor`

    `python -m benchmarks doctor --offline --json`

    `python -m benchmarks doctor --clean`
    """
    with err.status("asking the frameworks, the disk and the network"):
        found = examination.examine(offline=offline, clean=clean)
    steps = tuple(_steps(found))
    if as_json:
        everything = {**msgspec.to_builtins(found), "next": msgspec.to_builtins(steps)}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(everything)).decode() + "\n")
    else:
        _print(found, steps)
    raise typer.Exit(0 if _ready(found) else 1)


# --- What to do next ------------------------------------------------------------------------------


def _ready(found: Examination) -> list[Environment]:
    return [backend for backend in found.backends if backend.problem is None]


def _steps(found: Examination) -> Iterator[Step]:
    """What is wrong first, then what can be run, then what would make it real."""
    for backend in found.backends:
        if backend.interpreter and backend.problem:
            yield Step(why=f"{backend.title} is broken (see above):", command=_mended(backend))
    for item in (*found.weights, *found.official):
        if item.state == "damaged":
            yield Step(
                why=f"{item.name} is damaged; once removed, it is made or fetched anew:",
                command=f"rm {shlex.quote(str(item.path))}",
            )
    yield from _room(found)
    if any(old.age >= SAFE_AGE and not old.removed for old in found.leftovers):
        yield Step(
            why="Killed processes left something in the cache:", command="python -m benchmarks doctor --clean"
        )
    yield from _runs(found)
    yield from _real(found)


def _mended(backend: Environment) -> str:
    variable = f"BENCHMARKS_PYTHON_{backend.backend.upper()}"
    if os.environ.get(variable):
        return f"unset {variable}"
    if ".tox" not in Path(str(backend.interpreter)).parts:
        extra = backends.resolve(backend.backend).extra
        return f"{backend.interpreter} -m pip install --force-reinstall '.[{extra}]'"
    return f"tox run -e bench-{backend.backend} --recreate --notest"


def _room(found: Examination) -> Iterator[Step]:
    for place in found.places:
        variable = "; or let BENCHMARKS_CACHE name another folder" if place.name == "cache" else ""
        if not place.writable:
            yield Step(why=f"{place.path} cannot be written to: change its owner or its mode{variable}.")
        if place.free_bytes < place.needed_bytes:
            yield Step(
                why=f"{place.path} has {_size(place.free_bytes)} free, and a first default job takes up to"
                f" {_size(place.needed_bytes)}: make room{variable}."
            )
    if any(backend.interpreter is None for backend in found.backends):
        free = found.places[-1].free_bytes  # tox's folder lies beside that of the results
        if free < ENVIRONMENTS_BYTES:
            yield Step(
                why=f"{_size(free)} are free, and the environments of all three frameworks take"
                f" {_size(ENVIRONMENTS_BYTES)}: make room before tox makes them."
            )
    if found.machine.free_memory_bytes < CELL_BYTES:
        yield Step(
            why=f"{_size(found.machine.free_memory_bytes)} of memory are free, and a cell of the default job"
            f" takes up to {_size(CELL_BYTES)}: end other programs first."
        )


def _runs(found: Examination) -> Iterator[Step]:
    missing = [backend.title for backend in found.backends if backend.interpreter is None]
    why = "The default job, on drawn photographs:"
    if missing:
        why = f"To make the missing environments ({', '.join(missing)}) and run the default job:"
    yield Step(why=why, command="tox run -m bench")
    if _ready(found):
        yield Step(
            why="The same with the backends in alternation, so that their speeds can be compared:",
            command="python -m benchmarks run",
        )


def _real(found: Examination) -> Iterator[Step]:
    """Photographs and weights that are not made here."""
    if not _ready(found):
        return
    lost = _lost(found)
    photographs, where = "Real photographs, the official ones:", "hotdog"
    if HOTDOG in lost and not any(item.name == HOTDOG and item.state == "ready" for item in found.data):
        photographs, where = "Real photographs; the official ones cannot be had, so give your own:", "PATH"
    command = f"tox run -m bench -- --data {where} --profile cpu --run"
    yield Step(why=photographs, command=f"{command} photographs")
    absent = [item for item in found.official if item.state == "absent"]
    if any(item.name not in lost for item in absent):
        yield Step(
            why="ImageNet weights in the native track too, fetched once and verified:",
            command=f"{command} imagenet --weights imagenet",
        )
    elif absent:
        folders = ", ".join(sorted({str(Path(str(item.path)).parent) for item in absent}))
        yield Step(
            why="ImageNet weights, but for EfficientNet-Lite0's, cannot be had. Fetch the files elsewhere,"
            f" put them (unpacked) into {_short(folders)}, and give --weights imagenet."
        )


def _lost(found: Examination) -> set[str]:
    """What was asked for, and cannot be reached anywhere."""
    asked = {source.name for source in found.sources if source.answer}
    return asked - {source.name for source in found.sources if source.answer and source.answer.reached}


# --- Showing --------------------------------------------------------------------------------------


Row = tuple[tuple[str, ...], str, str]
"""Cells, the style of the last one, and what stands below them."""


def _print(found: Examination, steps: Sequence[Step]) -> None:
    _table("Backends", map(_backend_row, found.backends))
    _table("Machine", _machine_rows(found))
    _table("Data", map(_item_row, found.data))
    _table("Weights", map(_item_row, found.weights))
    _table("Official photographs and weights", _official_rows(found))
    if found.leftovers:
        _table("Left over by killed processes", map(_leftover_row, found.leftovers))
    out.print("Next", style="bold")
    for step in steps:
        _indented(step.why, 2)
        if step.command:
            # whole, to be copied
            out.print(
                " " * 6 + step.command, style="bold green", markup=False, highlight=False, soft_wrap=True
            )


def _backend_row(backend: Environment) -> Row:
    python = f"Python {backend.python}" if backend.python else "-"
    facts = ", ".join((*backend.devices, f"{backend.threads} threads"))
    if backend.problem:
        facts = "broken" if backend.interpreter else "missing"
    below = "\n".join(_short(text) for text in (backend.interpreter, backend.problem) if text)
    return (backend.title, backend.version or "-", python, facts), "red" if backend.problem else "", below


def _machine_rows(found: Examination) -> Iterator[Row]:
    machine = found.machine
    busy = "" if machine.load_average < machine.cores / 2 else ": busy, which spoils timings"
    yield ("cores", f"{machine.cores} physical; load {machine.load_average:g}{busy}"), "", ""
    memory = f"{_size(machine.free_memory_bytes)} free of {_size(machine.memory_bytes)}"
    yield ("memory", memory), "", ""
    for place in found.places:
        room = f"{_size(place.used_bytes)} used, {_size(place.free_bytes)} free"
        enough = place.writable and place.free_bytes >= place.needed_bytes
        yield (place.name, room), "" if enough else "red", _short(place.path)
    yield ("Slurm", "sbatch is here" if machine.sbatch else "no sbatch here"), "", machine.sbatch or ""


def _item_row(item: Item) -> Row:
    size = _size(item.bytes) if item.bytes else ""
    hashed = f"sha256 {item.sha256[:12]}" if item.sha256 else ""
    said = "; ".join(filter(None, (hashed, "" if item.state == "damaged" else item.note)))
    if item.state == "damaged":
        return (item.name, size, "damaged"), "red", _short(f"{item.path}\n{item.note}")
    return (item.name, size, said), "", _short(str(item.path)) if item.name == OTHER else ""


def _official_rows(found: Examination) -> Iterator[Row]:
    items = {item.name: item for item in (*found.data, *found.official)}
    for source in found.sources:
        item = items[source.name]
        here = {"ready": f"here, {_size(item.bytes)}", "absent": "not here", "damaged": "damaged"}[item.state]
        answer, style = "not asked", ""
        if source.answer:
            size = f", {_size(source.answer.bytes)}" if source.answer.bytes else ""
            answer, style = f"{source.answer.text}{size}", "" if source.answer.reached else "yellow"
        damage = _short(f"{item.path}\n{item.note}\n") if item.state == "damaged" else ""
        yield (source.name, here, answer), style, f"{damage}{source.url}"
    for item in found.official:
        if item.path is None:
            yield (item.name, "with pip", ""), "", item.note


def _leftover_row(old: Leftover) -> Row:
    state = "kept: it may still be written to" if old.age < SAFE_AGE else "doctor --clean removes it"
    if old.removed or old.problem:
        state = "removed" if old.removed else f"cannot be removed: {old.problem}"
    return (_size(old.bytes), _age(old.age), state), "red" if old.problem else "", _short(old.path)


def _table(heading: str, rows: Iterable[Row]) -> None:
    """Rows with aligned cells, below each of them what would not fit beside."""
    rows = list(rows)
    out.print(heading, style="bold")
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _, _ in rows), strict=True)]
    for cells, style, below in rows:
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_column(width=0)
        for width in widths[:-1]:
            line.add_column(width=width, no_wrap=True)
        line.add_column()
        line.add_row("", *(Text(cell) for cell in cells[:-1]), Text(cells[-1], style=style))
        out.print(line)
        for text in below.splitlines():
            _indented(text, 4, style="dim")
    out.print()


def _indented(text: str, indent: int, style: str = "") -> None:
    """Broken between words, and within a path that is too long for a line after its slashes."""
    room = out.width - indent
    lines = [""]
    for word in text.split():
        parts = [word] if len(word) <= room else re.findall("[^/]*/+|[^/]+", word)
        for place, part in enumerate(parts):
            space = " " if lines[-1] and not place else ""
            if lines[-1] and len(lines[-1]) + len(space) + len(part) > room:
                lines.append(part)
            else:
                lines[-1] += space + part
    for line in lines:
        out.print(" " * indent + line, style=style, markup=False, highlight=False, soft_wrap=True)


def _short(paths: str) -> str:
    """As seen from the project's folder, or from the user's."""
    return paths.replace(f"{PROJECT}{os.sep}", "").replace(f"{Path.home()}{os.sep}", f"~{os.sep}")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _age(seconds: float) -> str:
    return f"{seconds / 60:.0f} min old" if seconds < SAFE_AGE else f"{seconds / 3600:.0f} h old"
