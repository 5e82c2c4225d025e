from __future__ import annotations

import msgspec
import pytest

from backends.optimizers import SGD
from benchmarks.harness.record import Record, Training
from benchmarks.report.groups import groups
from benchmarks.report.verdicts.comparisons import gathered, pairs, scenes

pytestmark = pytest.mark.once


def test_cells_that_differ_in_their_seed_are_a_group(cell):
    (found,) = groups([cell(seed=2), cell(seed=0), cell(seed=1)])
    assert found.seeds == (0, 1, 2)
    assert found.correct([2, 0]).shape == (2, 200)


def test_a_failed_cell_belongs_to_its_group(cell):
    failed = msgspec.structs.replace(cell(seed=1), status="failed", accuracy=None, training=None)
    (found,) = groups([cell(seed=0), failed])
    assert found.seeds == (0,) and found.failed == (failed,)
    assert groups([failed]) == []


class TestPairs:
    def test_backends(self, three_frameworks):
        found = pairs("backends", groups(three_frameworks))
        assert [(*pair.names, pair.first.protocol) for pair in found] == [
            (first, second, protocol)
            for protocol in ("finetune", "scratch")
            for first, second in (
                ("MXNet Gluon", "Keras (TensorFlow)"),
                ("MXNet Gluon", "PyTorch"),
                ("Keras (TensorFlow)", "PyTorch"),
            )
        ]

    def test_protocols(self, three_frameworks):
        found = pairs("protocols", groups(three_frameworks))
        assert [(*pair.names, pair.first.backend) for pair in found] == [
            ("finetune", "scratch", backend) for backend in ("MXNet Gluon", "Keras (TensorFlow)", "PyTorch")
        ]

    def test_variants_are_compared_with_the_default_alone(self, cell):
        records = [cell(variant=variant) for variant in ("default", "tuned", "reproducible")]
        found = pairs("variants", groups(records))
        assert [pair.names for pair in found] == [("default", "tuned"), ("default", "reproducible")]
        assert pairs("backends", groups(records)) == []

    def test_native_networks_are_compared_by_protocol(self, cell):
        records = [cell(track="native"), _of(cell("gluon", track="native"), "resnet18_v2")]
        (pair,) = pairs("backends", groups(records))
        assert pair.scene.place == "native resnet18, resnet18_v2 on sketch"

    def test_native_networks_are_compared_at_the_same_size(self, cell):
        def sized(record: Record, size: int) -> Record:
            training = Training(epochs=1, batch_size=8, image_size=size, optimizer=SGD(learning_rate=0.1))
            own = msgspec.structs.replace(record.cell, id=f"{record.cell.id}-{size}px")
            return msgspec.structs.replace(record, cell=own, training=training)

        small, large = ([sized(cell(name, track="native"), size) for name in ("pytorch", "gluon")]
                        for size in (48, 96))  # fmt: skip
        found = pairs("backends", groups([*small, *large]))
        assert [(pair.first.image_size, pair.second.image_size) for pair in found] == [(48, 48), (96, 96)]
        assert pairs("backends", groups([small[0], large[1]])) == []

    def test_a_backends_own_recipe_has_no_counterpart(self, cell):
        record = _of(cell("gluon", track="native"), "resnet18_v2")
        own = msgspec.structs.replace(record.cell, recipe="001-converge", id="gluon-001-converge-s0")
        records = [cell(track="native"), msgspec.structs.replace(record, cell=own)]
        assert pairs("backends", groups(records)) == []
        assert pairs("protocols", groups(records)) == []

    @pytest.mark.parametrize("field", ["device", "profile"])
    def test_other_conditions_are_not_compared(self, cell, field):
        other = cell("gluon")
        other = msgspec.structs.replace(other, cell=msgspec.structs.replace(other.cell, **{field: "other"}))
        assert pairs("backends", groups([cell(), other])) == []

    def test_other_images_are_not_compared(self, cell):
        other = cell("gluon")
        data = msgspec.structs.replace(other.cell.data, sha256="1" * 64)
        other = msgspec.structs.replace(other, cell=msgspec.structs.replace(other.cell, data=data))
        assert scenes("backends", groups([cell(), other])) == []

    def test_what_can_be_compared_with_nothing_is_not_lost(self, cell, three_frameworks):
        assert scenes("backends", groups([cell()])) == []
        (alone,) = gathered("backends", groups([cell()]))
        assert [group.backend for group in alone.groups] == ["PyTorch"] and alone.pairs == []
        everything = groups(three_frameworks)
        assert sum(len(scene.groups) for scene in gathered("protocols", everything)) == len(everything)

    def test_other_weights_of_the_same_name_are_not_compared(self, cell):
        assert pairs("backends", groups([cell(), _from(cell("gluon"), sha256="1" * 64)])) == []
        tuned = _from(cell(variant="tuned"), sha256="1" * 64)
        assert pairs("variants", groups([cell(), tuned])) == []

    def test_protocols_start_from_the_same_weights_or_one_of_them_from_none(self, cell):
        other = _from(cell(protocol="frozen"), name="imagenet", sha256="1" * 64)
        scratch = _from(cell(protocol="scratch"), name="none", sha256=None)
        found = pairs("protocols", groups([cell(), other, scratch]))
        assert [pair.names for pair in found] == [("finetune", "scratch"), ("frozen", "scratch")]

    @pytest.mark.parametrize("track", ["matched", "native"])
    def test_resampled_cells_are_compared_with_their_like(self, cell, track):
        records = [_resampled(cell(track=track)), cell("gluon", track=track)]
        assert pairs("backends", groups(records)) == []
        records = [_resampled(cell(variant="tuned", track=track)), cell(track=track)]
        assert pairs("variants", groups(records)) == []
        (pair,) = pairs("backends", groups([_resampled(cell()), _resampled(cell("gluon"))]))
        assert pair.scene.place == "matched resnet18 on sketch, resampled"

    def test_of_several_runs_each_is_compared_with_itself(self, cell):
        found = pairs(
            "backends", groups([_in(run, cell(name)) for run in "ab" for name in ("gluon", "keras")])
        )
        assert [pair.scene.place for pair in found] == [
            "matched resnet18 on sketch, a",
            "matched resnet18 on sketch, b",
        ]


@pytest.mark.parametrize("correct", [(), (1,) * 199])
def test_a_cell_whose_images_are_not_all_scored_did_not_end_well(cell, correct):
    record = cell(seed=1)
    short = msgspec.structs.replace(
        record, accuracy=msgspec.structs.replace(record.accuracy, correct=correct)
    )
    (found,) = groups([cell(seed=0), short])
    assert found.seeds == (0,) and found.failed == (short,)


def _from(record, **weights):
    return _described(record, weights=msgspec.structs.replace(record.cell.weights, **weights))


def _resampled(record):
    return _described(record, resampled=True, id=record.cell.id.replace("-s0", "-resampled-s0"))


def _in(run, record):
    return _described(record, id=f"{run}/{record.cell.id}")


def _described(record, **fields):
    return msgspec.structs.replace(record, cell=msgspec.structs.replace(record.cell, **fields))


def _of(record, architecture):
    recipe = f"native-{architecture}-{record.cell.protocol}"
    described = msgspec.structs.replace(
        record.cell, architecture=architecture, recipe=recipe, id=f"{record.cell.backend}-{recipe}-s0"
    )
    return msgspec.structs.replace(record, cell=described)
