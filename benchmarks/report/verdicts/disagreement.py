"""Test images that some backends have right and others wrong, though they trained the same network alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from benchmarks.report.document import Block, Column, Section, Table, table_of
from benchmarks.report.groups import Group
from benchmarks.report.verdicts.comparisons import scenes
from benchmarks.report.verdicts.words import count_of

MOST = 20
"""Images listed of one comparison: those that the backends disagree on most."""

Files = Mapping[str, tuple[str, ...]]
"""Test images in file order, by the SHA-256 of the data set."""


class Disputed(msgspec.Struct, frozen=True, kw_only=True):
    """An image, and in how many seeds each backend has it right."""

    image: str
    right: dict[str, int]
    """By backend."""
    seeds: int

    @property
    def apart(self) -> int:
        """Seeds between who has it right most often and who least."""
        return max(self.right.values()) - min(self.right.values())


def section(groups: Sequence[Group], files: Files) -> Section:
    """For each network and protocol of the matched track the images in dispute."""
    parts = []
    for scene in scenes("backends", [group for group in groups if group.cell.track == "matched"]):
        members = scene.groups
        seeds = sorted(set.intersection(*(set(group.seeds) for group in members)))
        if seeds:
            title = f"{scene.place}, {members[0].protocol} {members[0].variant}".strip()
            parts.append(Section(title, _blocks(members, seeds, files)))
    return Section("Images that the backends disagree on", (), tuple(parts))


def disputed(members: Sequence[Group], seeds: Sequence[int], files: Files) -> list[Disputed]:
    """The images on which a seed's networks do not agree, those most in dispute first."""
    correct = np.stack([group.correct(seeds) for group in members])  # (backends, S, N)
    names = files.get(members[0].cell.data.sha256, ())
    found = [
        Disputed(
            image=names[image] if image < len(names) else f"image {image + 1}",
            right={
                group.backend: int(rights)
                for group, rights in zip(members, correct[:, :, image].sum(1), strict=True)
            },
            seeds=len(seeds),
        )
        for image in np.flatnonzero((correct != correct[0]).any((0, 1)))
    ]
    return sorted(found, key=lambda one: -one.apart)


# --- How ------------------------------------------------------------------------------------------


def _blocks(members: Sequence[Group], seeds: Sequence[int], files: Files) -> tuple[Block, ...]:
    found = disputed(members, seeds, files)
    images = members[0].cell.data.test
    if not found:
        text = f"None: all {images} test images are right or wrong alike in {count_of(len(seeds), 'seed')}."
        return (text,)
    text = (
        f"{count_of(len(found), 'image')} of {images}, in {count_of(len(seeds), 'seed')}."
        f"{f' The {MOST} most in dispute:' if len(found) > MOST else ''}"
    )
    return text, _table(members, found[:MOST])


def _table(members: Sequence[Group], found: Sequence[Disputed]) -> Table:
    columns: list[Column[Disputed]] = [
        Column("image", lambda row: row.image),
        *(
            Column(f"right in {group.backend}", partial(_right, group.backend), number=True)
            for group in members
        ),
    ]
    return table_of(f"Images in dispute, {members[0].protocol}", found, columns)


def _right(backend: str, row: Disputed) -> str:
    return f"{row.right[backend]} of {row.seeds}"
