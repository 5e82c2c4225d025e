from __future__ import annotations

import msgspec
import pytest

import backends
from backends.architectures import ARCHITECTURES
from backends.base import UsageError
from benchmarks.harness import plan
from benchmarks.harness.recipe import recipe_of

EVERYTHING = tuple(backends.known().values())


def cells(**values):
    return [cell.id for cell in plan.plan(plan.parse(values), EVERYTHING)]


def test_the_default_job_is_both_tracks_in_three_protocols():
    assert len(cells()) == 18
    assert "pytorch-native-resnet18-finetune-s0" in cells()
    assert "gluon-matched-efficientnet_lite0-scratch-s0" in cells()


def test_aliases_and_commas_select():
    assert set(cells(backend=["torch,mxnet"], protocol=["frozen"], track=["native"])) == {
        "pytorch-native-resnet18-frozen-s0",
        "gluon-native-resnet18_v2-frozen-s0",
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_matched_recipe_is_a_cell_in_every_backend_that_has_the_architecture(architecture):
    made = cells(track=["matched"], arch=[architecture], protocol=["finetune"])
    assert sorted(made) == sorted(f"{card.name}-matched-{architecture}-finetune-s0" for card in EVERYTHING)


def test_a_backend_without_the_architecture_gets_no_cell():
    cards = [
        msgspec.structs.replace(card, architectures=("vgg16",)) if card.name == "keras" else card
        for card in EVERYTHING
    ]
    recipe = recipe_of("matched-resnet18-finetune")
    names = tuple(card.name for card in cards)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "known", lambda: {card.name: card for card in cards})
        assert plan.backends_of(recipe, names) == ("gluon", "pytorch")


def test_an_architecture_selects_in_both_tracks():
    assert set(cells(arch=["resnet18"], protocol=["frozen"])) == {
        "pytorch-native-resnet18-frozen-s0",
        *(f"{card.name}-matched-resnet18-frozen-s0" for card in EVERYTHING),
    }


def test_seeds_multiply():
    assert len(cells(seeds="3")) == 54
    assert len(set(cells(seeds="3"))) == 54


def test_conditions_other_than_the_usual_are_in_the_name():
    assert cells(backend=["keras"], track=["native"], protocol=["scratch"], device="cuda:1") == [
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
            {"backend": ["keras"], "arch": ["resnet18"], "track": ["native"]},
            "resnet18 on keras does not exist; there are: .*keras: native vgg16",
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
