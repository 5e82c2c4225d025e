"""Which groups are compared with each other: backends, protocols and variants."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import combinations
from typing import Literal

import msgspec

from benchmarks.report.groups import Group
from benchmarks.report.labels import USUAL, canonical, in_words, is_default, run_of

Kind = Literal["backends", "protocols", "variants"]


class Scene(msgspec.Struct, frozen=True):
    """Groups that differ in one thing, or one that has no other to be compared with."""

    kind: Kind
    groups: tuple[Group, ...]

    @property
    def place(self) -> str:
        """What they share beside protocol, backend and variant, in words: track, networks and sizes, data,
        and what is special."""
        group = self.groups[0]
        networks = ", ".join(dict.fromkeys(network_of(one) for one in self.groups))
        told = [f"{group.cell.track} {networks} on {group.cell.data.name}"]
        told += ["resampled"] if group.cell.resampled else []
        told += [group.cell.device] if group.cell.device != USUAL["device"] else []
        told += [run_of(group.records[0])]
        return ", ".join(filter(None, told))

    @property
    def pairs(self) -> list[Pair]:
        """All of them; of variants each with the default alone, of protocols those that start from the same
        weights, or one of them from none."""
        return [
            Pair(self, first, second)
            for first, second in combinations(self.groups, 2)
            if self.kind == "backends"
            or (self.kind == "variants" and is_default(first.cell))
            or (self.kind == "protocols" and _same_start(first, second))
        ]


class Pair(msgspec.Struct, frozen=True):
    """Two groups of a scene."""

    scene: Scene
    first: Group
    second: Group

    @property
    def kind(self) -> Kind:
        """In what they differ."""
        return self.scene.kind

    @property
    def names(self) -> tuple[str, str]:
        """What tells them apart."""
        return name_in(self.kind, self.first), name_in(self.kind, self.second)


def name_in(kind: Kind, group: Group) -> str:
    """What a group is called among those that it is compared with."""
    return {"backends": group.backend, "protocols": group.protocol, "variants": in_full(group)}[kind]


def in_full(group: Group) -> str:
    """A variant in words, the usual one too; its device stands with the place."""
    return in_words(group.cell.variant, group.cell.precision)


def network_of(group: Group) -> str:
    """Architecture and size of its images."""
    return f"{group.cell.architecture} {group.image_size} px" if group.image_size else group.cell.architecture


def variant(group: Group) -> str:
    """What follows the place of something that was measured, if its variant is not the usual one."""
    return "" if is_default(group.cell) else f", {in_full(group)}"


def at(where: str, only: str) -> str:
    """The beginning of a sentence: where something was measured, less the one place that everything was."""
    beyond = where.removeprefix(only).removeprefix(", ") if only else where
    return f"{beyond}, " if beyond else ""


class Division(msgspec.Struct, frozen=True):
    """Groups whose comparisons of a kind are one family of tests: those of a track, the usual variant apart
    from the others, so that what is said of frameworks as they come rests on no more tests than it takes."""

    track: str
    usual: bool
    groups: tuple[Group, ...]

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.track} track" if self.usual else f"{self.track} track, other variants"


def divisions(kind: Kind, groups: Sequence[Group]) -> list[Division]:
    """Those that there are, closed results first. Variants are compared with the usual one: there a track is
    one."""
    found = []
    for track in ("matched", "native"):
        of_track = [group for group in groups if group.cell.track == track]
        for usual in (True, False):
            members = [one for one in of_track if kind == "variants" or is_default(one.cell) == usual]
            if members and (usual or kind != "variants"):
                found.append(Division(track, usual, tuple(members)))
    return found


def scenes(kind: Kind, groups: Iterable[Group]) -> list[Scene]:
    """Groups that differ in nothing but the backend, the protocol or the variant: of the same track, on the
    same images. In the native track backends differ in their network too.

    Of protocols only those are compared whose recipes are what their names mean.
    """
    return [scene for scene in gathered(kind, groups) if len(scene.groups) > 1]


def gathered(kind: Kind, groups: Iterable[Group]) -> list[Scene]:
    """All of the groups: those of `scenes`, and what can be compared with no other in a scene of its own."""
    found: dict[Hashable, dict[str, Group]] = {}
    for number, group in enumerate(groups):
        name, key = name_in(kind, group), KEYS[kind](group)
        shared = number if key is None else (key, *_shared(group))
        found.setdefault(number if name in found.get(shared, ()) else shared, {})[name] = group
    return [Scene(kind, tuple(members.values())) for members in found.values()]


def pairs(kind: Kind, groups: Iterable[Group]) -> list[Pair]:
    """Those of all scenes."""
    return [pair for scene in scenes(kind, groups) for pair in scene.pairs]


# --- How ------------------------------------------------------------------------------------------


def _shared(group: Group) -> tuple[Hashable, ...]:
    cell = group.cell
    run = run_of(group.records[0])  # known where several runs have the same cell
    return cell.track, cell.device, cell.profile, cell.data.sha256, cell.data.test, cell.resampled, run


def _of_backends(group: Group) -> Hashable | None:
    cell = group.cell
    conditions = group.image_size, cell.variant, cell.precision
    if cell.track == "matched":
        return cell.recipe, _start(group), *conditions
    if not canonical(group.records[0]):
        return None  # a backend's own, which no other has
    return cell.protocol, *conditions


def _of_protocols(group: Group) -> Hashable | None:
    cell = group.cell
    if not canonical(group.records[0]):
        return None
    return cell.backend, cell.architecture, cell.variant, cell.precision, group.image_size


def _of_variants(group: Group) -> Hashable | None:
    cell = group.cell
    return cell.backend, cell.recipe, _start(group), group.image_size


def _start(group: Group) -> tuple[str, str | None]:
    return group.cell.weights.name, group.cell.weights.sha256


def _same_start(first: Group, second: Group) -> bool:
    starts = {_start(first), _start(second)}
    return len(starts) == 1 or any(name == "none" for name, _ in starts)


KEYS: dict[Kind, Callable[[Group], Hashable | None]] = {
    "backends": _of_backends,
    "protocols": _of_protocols,
    "variants": _of_variants,
}
"""What of a group must be the same, for each kind of comparison; None: it takes no part."""
