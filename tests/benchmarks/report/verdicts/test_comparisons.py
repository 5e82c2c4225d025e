from __future__ import annotations

import msgspec
import pytest

from benchmarks.report.groups import groups
from benchmarks.report.verdicts.comparisons import comparable, pairs

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
        assert [(*pair.names, pair.what[1]) for pair in found] == [
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
        assert [(*pair.names, pair.what[1]) for pair in found] == [
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
        assert pair.what == ("each its own", "finetune", "default")

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
        assert comparable("backends", groups([cell(), other])) == []


def _of(record, architecture):
    recipe = f"native-{architecture}-{record.cell.protocol}"
    described = msgspec.structs.replace(
        record.cell, architecture=architecture, recipe=recipe, id=f"{record.cell.backend}-{recipe}-s0"
    )
    return msgspec.structs.replace(record, cell=described)
