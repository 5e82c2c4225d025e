from __future__ import annotations

import msgspec
import pytest

import backends
from backends import flops
from benchmarks.harness import plan
from benchmarks.harness.measurement import conditions, curves
from benchmarks.harness.messages import CurveJob
from benchmarks.harness.plan import Cell, Combination
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import recipe_of
from benchmarks.harness.record import read_curves, write_curves

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
QUICK = msgspec.structs.replace(profile_of("smoke"), image_size=32, timing_seconds=0.05)


def cell_of(backend: str, recipe: str = "matched-resnet18-finetune", **more) -> Cell:
    values = {"variant": "default", "seed": 0, "profile": QUICK, "device": "cpu", "precision": "float32"}
    return Cell(backend=backend, recipe=recipe_of(recipe), **(values | more))


def test_combinations_meet_at_one_batch_and_one_size():
    found = plan.combinations(128)
    assert len(found) == len(set(found)) == len(plan.CURVE_BATCH_SIZES) + len(plan.CURVE_IMAGE_SIZES) - 1
    assert Combination(plan.CURVE_BATCH, 128) in found
    assert Combination(1, 32) not in plan.combinations(32)
    sizes = [one.image_size for one in found]
    assert sizes == sorted(sizes)  # a network is built once for each


def test_a_curve_for_each_network_and_variant_by_what_trains_the_most():
    cells = [
        cell_of("pytorch", "matched-resnet18-frozen"),
        cell_of("pytorch"),
        cell_of("pytorch", seed=1),
        cell_of("pytorch", "matched-resnet18-bottleneck"),
        cell_of("pytorch", variant="tuned"),
        cell_of("keras"),
    ]
    assert [(cell.backend, cell.recipe.protocol, cell.variant, cell.seed) for cell in plan.curved(cells)] == [
        ("pytorch", "finetune", "default", 0),
        ("pytorch", "finetune", "tuned", 0),
        ("keras", "finetune", "default", 0),
    ]


def test_features_alone_have_no_curve():
    assert plan.curved([cell_of("pytorch", "matched-resnet18-bottleneck")]) == []


@pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)
def test_a_network_with_dropout_has_points_too(card, monkeypatch):
    monkeypatch.setattr(conditions, "require_threads", lambda _backend: None)
    cell = cell_of(card.name, "002-bottleneck-then-last-block")
    job = CurveJob(cell=cell, combinations=(Combination(2, 32),), threads=2)
    assert cell.recipe.dropout > 0
    (point,) = curves.run(job, lambda _event: None).result.points
    assert point.train_images_per_second > 0


@pytest.mark.reference
@pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.name)
def test_a_backends_points(card, monkeypatch, tmp_path):
    # TensorFlow keeps the threads that whichever test of this process came first has asked for.
    monkeypatch.setattr(conditions, "require_threads", lambda _backend: None)
    wanted = (Combination(2, 32), Combination(4, 32), Combination(2, 48))
    job = CurveJob(cell=cell_of(card.name), combinations=wanted, threads=2)
    found = curves.run(job, lambda _event: None).result
    assert [(p.batch_size, p.image_size, p.threads) for p in found.points] == [
        (2, 32, 2), (4, 32, 2), (2, 48, 2),
    ]  # fmt: skip
    for point in found.points:
        spec = job.cell.recipe.model(classes=2, image_size=point.image_size)
        per_image = point.train_flops / point.train_images_per_second
        assert per_image == pytest.approx(flops.training_flops(spec, "all"))
        assert point.inference_images_per_second > point.train_images_per_second
    write_curves(tmp_path / "curves" / "one.json", found)
    assert read_curves(tmp_path / "curves" / "one.json") == found

    monkeypatch.setattr(curves, "LONGEST_STEP", 0.0)
    alone = msgspec.structs.replace(job, combinations=wanted[:1])
    slow = curves.run(alone, lambda _event: None).result
    assert slow.points == () and slow.left_out[0].startswith("batch 2, 32 px, 2 threads")
