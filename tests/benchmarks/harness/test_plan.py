from __future__ import annotations

import pytest

import backends
from backends.base import UsageError
from benchmarks.harness import plan

EVERYTHING = tuple(backends.known().values())


def cells(**values):
    return [cell.id for cell in plan.plan(plan.parse(values), EVERYTHING)]


def test_the_default_job_is_nine_cells():
    assert len(cells()) == 9
    assert "pytorch-native-resnet18-finetune-s0" in cells()


def test_aliases_and_commas_select():
    assert set(cells(backend=["torch,mxnet"], protocol=["frozen"])) == {
        "pytorch-native-resnet18-frozen-s0",
        "gluon-native-resnet18_v2-frozen-s0",
    }


def test_seeds_multiply():
    assert len(cells(seeds="3")) == 27
    assert len(set(cells(seeds="3"))) == 27


def test_conditions_other_than_the_usual_are_in_the_name():
    assert cells(backend=["keras"], protocol=["scratch"], device="cuda:1") == [
        "keras-native-vgg16-scratch-cuda1-s0"
    ]


def test_weights_none_leaves_scratch():
    assert {name.split("-")[3] for name in cells(weights="none")} == {"scratch"}
    with pytest.raises(UsageError, match="needs weights to start from"):
        cells(weights="none", protocol=["finetune"])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"backend": ["jax"]}, "no backend 'jax'; there are: .*pytorch/torch"),
        ({"protocol": ["finetun"]}, "--protocol finetun: no such thing; there are: finetune"),
        ({"arch": ["resnet50"]}, "--arch resnet50: .*resnet18"),
        ({"recipe": ["x"]}, "no recipe 'x'; there are: "),
        ({"profile": "huge"}, "no profile 'huge'; there are: smoke, cpu, full"),
        ({"variant": ["fast"]}, "--variant fast"),
        ({"precision": "int4"}, "--precision int4"),
        ({"seeds": "many"}, "seeds"),
        ({"seeds": "0"}, "at least one seed"),
        ({"weights": "/no/such/file"}, "--weights /no/such/file: no such file"),
        (
            {"backend": ["keras"], "arch": ["resnet18"]},
            "resnet18 on keras does not exist; there are: keras native vgg16",
        ),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(values, complaint):
    with pytest.raises(UsageError, match=complaint) as caught:
        cells(**values)
    assert "\n" not in str(caught.value)


def test_a_backend_that_is_not_installed_is_answered_with_how_to():
    only = (backends.resolve("pytorch"),)
    with pytest.raises(UsageError, match=r"Keras.*not installed.*tox run -e bench-keras"):
        plan.plan(plan.parse({"backend": ["keras"]}), only)
    with pytest.raises(UsageError, match="not installed"):
        plan.plan(plan.parse({}), ())
