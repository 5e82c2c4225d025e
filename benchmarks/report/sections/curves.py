"""Images/s against batch size, image size and threads: what is drawn of a run's curves, and what is said of
them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks.harness import record
from benchmarks.harness.figures import CurvePoint
from benchmarks.harness.record import Curves
from benchmarks.report import document
from benchmarks.report.document import Section
from benchmarks.report.labels import backend_title, in_words, variant_place
from benchmarks.report.markdown_table import escape

READING = """\
- **Curves** are steady training and inference steps on one batch of noise that is already in host memory, the
  other settings held at what the plot's title says. A hollow mark is a point whose steps had not become
  steady, or which shared the machine with other work."""


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """What images/s are set against."""

    field: str
    """Of `CurvePoint`."""
    title: str
    unit: str
    """In which a value is told: `{}` stands for it."""
    doubling: bool = False
    """Whether its values double from one to the next."""
    wide: bool = False
    """Whether rates along it span more than one order of magnitude, so that both scales are logarithmic."""


AXES = (
    Axis(field="batch_size", title="batch size", unit="batch {}", doubling=True),
    Axis(field="image_size", title="image size", unit="{} px", wide=True),
    Axis(field="threads", title="threads", unit="{} threads"),
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of one backend."""

    backend: str
    variant: str
    """In words, with its precision."""
    points: tuple[CurvePoint, ...]
    """By rising value of the axis."""

    @property
    def label(self) -> str:
        """As a legend calls it."""
        return f"{backend_title(self.backend)}, {self.variant}"


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """Training and inference against one axis."""

    path: str
    """Relative to the run's folder."""
    axis: Axis
    title: str
    lines: tuple[Line, ...]


def sound(point: CurvePoint) -> bool:
    """Whether a point was steady, and taken while the machine had nothing else to do."""
    return point.steady and not point.noisy


def read_all(folder: Path) -> list[Curves]:
    """Every backend's curves that a run's folder has, in order of name.

    Raises:
        RecordError: one of them cannot be read.
    """
    return [record.read_curves(path) for path in sorted((folder / "curves").glob("*.json"))]


def plots(curves: Iterable[Curves]) -> list[Plot]:
    """For each network a plot for each axis along which at least two points of one line were measured."""
    return [
        plot for _, group in _by_network(curves) for axis in AXES if (plot := _plot(axis, group)) is not None
    ]


def sections(curves: Sequence[Curves]) -> tuple[Section, ...]:
    """The plots of each network, and what they leave out."""
    made = []
    for title, group in _by_network(curves):
        drawn = [plot for axis in AXES if (plot := _plot(axis, group)) is not None]
        shown = [document.Plot(path=plot.path, text=_alt(plot)) for plot in drawn]
        said = filter(None, (_left_out(group), _doubtful(group), _lone(group, drawn)))
        made.append(Section(title, (*shown, *said)))
    return tuple(made)


# --- How ------------------------------------------------------------------------------------------


def _by_network(curves: Iterable[Curves]) -> list[tuple[str, list[Curves]]]:
    """Those that are compared with each other: the same network, trained to the same depth, on one device."""
    ordered = sorted(
        curves, key=lambda one: (_title(one), one.backend, variant_place(one.variant, one.precision))
    )
    return [(title, list(group)) for title, group in groupby(ordered, key=_title)]


def _title(one: Curves) -> str:
    """Says what is special about it."""
    depth = {"all": "", "head": ", head trained"}.get(
        one.first_trained, f", trained from {one.first_trained}"
    )
    device = "" if one.device == "cpu" else f", {one.device}"
    return f"{one.track} {one.architecture}{depth}{device}"


def _plot(axis: Axis, group: Sequence[Curves]) -> Plot | None:
    """The axis with the others held at what most points were measured at; None where no line has two."""
    held = _held(axis, group)
    lines = []
    for one in group:
        points = [point for point in one.points if _others(axis, point) == held]
        if points:
            lines.append(
                Line(
                    backend=one.backend,
                    variant=in_words(one.variant, one.precision),
                    points=tuple(sorted(points, key=lambda point: int(getattr(point, axis.field)))),
                )
            )
    if not any(len(line.points) > 1 for line in lines):
        return None
    network = _title(group[0])
    others = [other for other in AXES if other is not axis]
    conditions = ", ".join(other.unit.format(value) for other, value in zip(others, held, strict=True))
    return Plot(
        path=f"plots/curves-{_file_name(network)}-{axis.title.replace(' ', '-')}.svg",
        axis=axis,
        title=f"{network}: {conditions}",
        lines=tuple(lines),
    )


def _held(axis: Axis, group: Sequence[Curves]) -> tuple[int, ...]:
    """The values of the other axes at which most points lie; of several the largest, which are the most
    threads where those differ alone."""
    counts = Counter(_others(axis, point) for one in group for point in one.points)
    return max(counts, key=lambda values: (counts[values], values), default=())


def _others(axis: Axis, point: CurvePoint) -> tuple[int, ...]:
    return tuple(int(getattr(point, other.field)) for other in AXES if other is not axis)


def _file_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def _alt(plot: Plot) -> str:
    return (
        f"Training and inference images per second against {plot.axis.title}, a line for each variant of each"
        " backend"
    )


def _left_out(group: Sequence[Curves]) -> str:
    return _bullets("Left out:", ((one, text) for one in group for text in one.left_out))


def _doubtful(group: Sequence[Curves]) -> str:
    found = []
    for one in group:
        for point in one.points:
            reasons = [*(["not steady"] if not point.steady else []), *point.noisy]
            if reasons:
                where = ", ".join(axis.unit.format(getattr(point, axis.field)) for axis in AXES)
                found.append((one, f"{where}: {'; '.join(reasons)}"))
    return _bullets("Not steady, or noisy:", found)


def _lone(group: Sequence[Curves], drawn: Sequence[Plot]) -> str:
    """Points that no plot shows, since its other settings are not theirs."""
    found = []
    shown = {id(point) for plot in drawn for line in plot.lines for point in line.points}
    for one in group:
        hidden = [point for point in one.points if id(point) not in shown]
        found += [
            (
                one,
                ", ".join(axis.unit.format(getattr(point, axis.field)) for axis in AXES)
                + f": training {point.train_images_per_second:.1f}, inference"
                f" {point.inference_images_per_second:.1f} images/s",
            )
            for point in hidden
        ]
    return _bullets("In no plot:", found)


def _bullets(title: str, said: Iterable[tuple[Curves, str]]) -> str:
    lines = [
        f"- {escape(backend_title(one.backend))}, {escape(in_words(one.variant, one.precision))}:"
        f" {escape(text)}"
        for one, text in said
    ]
    return "\n".join((title, "", *lines)) if lines else ""
