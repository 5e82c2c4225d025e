"""Cells of several backends, protocols and seeds, with chosen predictions and rates."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import pytest

pytest.importorskip("scipy")

from benchmarks.harness.record import Record, Turn
from benchmarks.report.document import Section, Table

IMAGES = 200


@pytest.fixture
def cell(measured_record) -> Callable[..., Record]:
    """Makes a matched cell on 200 test images."""

    def make(
        backend: str = "pytorch",
        protocol: str = "finetune",
        seed: int = 0,
        *,
        wrong: Collection[int] = (),
        rate: float = 100.0,
        sitting: str | None = "one",
        variant: str = "default",
        seconds: float = 10.0,
        track: str = "matched",
        device: str = "cpu",
        **throughput: object,
    ) -> Record:
        """Args:
        wrong: places of the images that it has wrong.
        rate: of training; inference is four times as fast.
        sitting: None: not run in alternation.
        seconds: of each of three epochs; after the second it is as accurate as at the end.
        """
        correct = tuple(int(place not in wrong) for place in range(IMAGES))
        accuracy = sum(correct) / IMAGES
        recipe = f"{track}-resnet18-{protocol}"
        special = "".join(f"-{what}" for what in (variant, device) if what not in ("default", "cpu"))
        record = measured_record
        return msgspec.structs.replace(
            record,
            cell=msgspec.structs.replace(
                record.cell,
                id=f"{backend}-{recipe}{special}-s{seed}",
                backend=backend,
                track=track,
                recipe=recipe,
                protocol=protocol,
                variant=variant,
                device=device,
                seed=seed,
            ),
            accuracy=msgspec.structs.replace(record.accuracy, test=accuracy, correct=correct, images=IMAGES),
            curve=tuple(
                msgspec.structs.replace(
                    row, train_seconds=seconds, test_accuracy=accuracy - (0.2 if row.epoch == 1 else 0)
                )
                for row in record.curve
            ),
            throughput=msgspec.structs.replace(
                record.throughput,
                train_images_per_second=rate,
                end_to_end_images_per_second=0.9 * rate,
                inference_images_per_second=4 * rate,
                **throughput,
            ),
            turn=None if sitting is None else Turn(sitting=sitting, place=0),
        )

    return make


@pytest.fixture
def three_frameworks(cell) -> list[Record]:
    """Three seeds of fine-tuning and of training from scratch in three backends. Fine-tuned networks have the
    same 10 to 12 images wrong; from scratch PyTorch and Keras have 80 wrong, Gluon others in each seed. Keras
    is twice as fast as Gluon, PyTorch three times, but for a per cent or so."""
    records = []
    for seed, drift in enumerate((1.0, 1.01, 0.99)):
        for backend, speed in (("gluon", 50.0), ("keras", 100.0), ("pytorch", 150.0)):
            rate = speed * drift * (1 + 0.002 * seed * (backend == "keras"))
            records.append(cell(backend, seed=seed, wrong=range(10 + seed), rate=rate))
            far = range(100 + 5 * seed, 180 + 2 * seed) if backend == "gluon" else range(80)
            records.append(cell(backend, "scratch", seed, wrong=far, rate=rate))
    return records


def table(section: Section) -> Table:
    """The first of a section or of those beneath it."""
    found = [block for block in section.blocks if isinstance(block, Table)]
    return found[0] if found else next(filter(None, (table(part) for part in section.sections)))


def column(found: Table, heading: str) -> list[str]:
    """Texts of a table's column."""
    place = found.headings.index(heading)
    return [row[place].text for row in found.rows]
