"""Which groups are compared with each other: backends, protocols and variants."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import combinations
from typing import Literal

import msgspec

from benchmarks.report.groups import Group
from benchmarks.report.labels import USUAL, canonical

Kind = Literal["backends", "protocols", "variants"]
KINDS: tuple[Kind, ...] = ("backends", "protocols", "variants")


class Pair(msgspec.Struct, frozen=True):
    """Two groups that differ in one thing."""

    kind: Kind
    first: Group
    second: Group

    @property
    def what(self) -> tuple[str, ...]:
        """What they share, in words: network and size, and of protocol, backend and variant those two that
        are the same."""
        group = self.first
        network = group.cell.architecture if self._same("architecture") else "each its own"
        size = f"{group.image_size} px" if group.image_size else ""
        named = {"protocols": group.protocol, "backends": group.backend, "variants": in_full(group)}
        return (f"{network} {size}".strip(), *(text for kind, text in named.items() if kind != self.kind))

    @property
    def names(self) -> tuple[str, str]:
        """What tells them apart."""
        return name_in(self.kind, self.first), name_in(self.kind, self.second)

    def _same(self, field: str) -> bool:
        return bool(getattr(self.first.cell, field) == getattr(self.second.cell, field))


def name_in(kind: Kind, group: Group) -> str:
    """What a group is called among those that it is compared with."""
    return {"backends": group.backend, "protocols": group.protocol, "variants": in_full(group)}[kind]


def in_full(group: Group) -> str:
    """A variant in words, the usual one too."""
    return group.variant or USUAL["variant"]


def tracks(groups: Iterable[Group]) -> list[str]:
    """Those that there are, the closed one first."""
    found = {group.cell.track for group in groups}
    return [track for track in ("matched", "native") if track in found]


def comparable(kind: Kind, groups: Iterable[Group]) -> list[list[Group]]:
    """Groups that differ in nothing but the backend, the protocol or the variant, two or more at a time: of
    the same track, on the same images.

    Of protocols only those are compared whose recipes are what their names mean; in the native track
    backends differ in their network too.
    """
    sets: dict[Hashable, dict[str, Group]] = {}
    for group in groups:
        key = KEYS[kind](group)
        if key is not None:
            # Of several runs the first one's.
            sets.setdefault((key, *_shared(group)), {}).setdefault(name_in(kind, group), group)
    return [list(members.values()) for members in sets.values() if len(members) > 1]


def pairs(kind: Kind, groups: Iterable[Group]) -> list[Pair]:
    """All pairs of comparable groups; of variants each with the default alone."""
    return [
        Pair(kind, first, second)
        for members in comparable(kind, groups)
        for first, second in combinations(members, 2)
        if kind != "variants" or _is_default(first)
    ]


# --- How ------------------------------------------------------------------------------------------


def _shared(group: Group) -> tuple[Hashable, ...]:
    cell = group.cell
    return cell.track, cell.device, cell.profile, cell.data.sha256, len(group.correct(group.seeds[:1])[0])


def _conditions(group: Group) -> tuple[Hashable, ...]:
    cell = group.cell
    return cell.variant, cell.precision, group.image_size, getattr(cell, "resampled", False)


def _of_backends(group: Group) -> Hashable | None:
    cell = group.cell
    if cell.track == "matched":
        return cell.recipe, cell.weights.name, *_conditions(group)
    if not canonical(group.records[0]):
        return None  # a backend's own, which no other has
    # Native networks have native image sizes, too.
    return cell.protocol, cell.variant, cell.precision


def _of_protocols(group: Group) -> Hashable | None:
    cell = group.cell
    if not canonical(group.records[0]):
        return None
    return cell.backend, cell.architecture, *_conditions(group)


def _of_variants(group: Group) -> Hashable | None:
    cell = group.cell
    return cell.backend, cell.recipe, cell.weights.name, group.image_size


def _is_default(group: Group) -> bool:
    return (group.cell.variant, group.cell.precision) == (USUAL["variant"], USUAL["precision"])


KEYS: dict[Kind, Callable[[Group], Hashable | None]] = {
    "backends": _of_backends,
    "protocols": _of_protocols,
    "variants": _of_variants,
}
"""What of a group must be the same, for each kind of comparison; None: it takes no part."""
