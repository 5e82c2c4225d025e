from __future__ import annotations

import msgspec
import pytest

import backends
from backends.architectures import ARCHITECTURES
from backends.base import UsageError
from benchmarks.harness import plan
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.recipe import (
    all_recipes,
    recipe_of,
)

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


def test_a_protocol_means_its_canonical_recipes_and_no_others():
    made = plan.plan(plan.parse({"protocol": ["frozen"], "arch": ["vgg16", "resnet18"]}), EVERYTHING)
    assert {cell.recipe.id for cell in made} == {
        "native-vgg16-frozen",
        "native-resnet18-frozen",
        "matched-vgg16-frozen",
        "matched-resnet18-frozen",
    }
    for protocol in plan.PROTOCOLS:
        if protocol != "classifier":  # which has no canonical recipe
            asked = plan.Options(protocol=(protocol,), arch=tuple(ARCHITECTURES))
            found = plan.plan(asked, EVERYTHING)
            assert {(cell.recipe.protocol, cell.recipe.canonical) for cell in found} == {(protocol, True)}


def test_a_pattern_takes_every_recipe_it_matches():
    made = plan.plan(plan.parse({"recipe": ["003-*"]}), EVERYTHING)
    expected = {recipe.id for recipe in all_recipes() if recipe.seed_document == "003"}
    expected = {name for name in expected if name.startswith("003-")}
    assert {cell.recipe.id for cell in made} == expected
    assert {"003-fc7", "003-vgg16-adam", "003-svm-efficientnet_lite0-earlier"} < expected
    assert len(made) == len(expected) * len(EVERYTHING)


def test_a_pattern_and_the_other_options_select_together():
    made = cells(recipe=["001-*,004-f*"], arch=["resnet18"], backend=["keras"])
    assert made == ["keras-004-finetune-s0", "keras-004-frozen-s0"]
    assert cells(recipe=["003-*"], track=["matched"], arch=["efficientnet_lite0"], backend=["gluon"]) == [
        "gluon-003-logistic-efficientnet_lite0-s0",
        "gluon-003-logistic-efficientnet_lite0-earlier-s0",
        "gluon-003-svm-efficientnet_lite0-s0",
        "gluon-003-svm-efficientnet_lite0-earlier-s0",
    ]


def test_a_recipe_matched_twice_is_one_cell():
    made = cells(recipe=["004-frozen", "004-froz*"], backend=["keras"])
    assert made == ["keras-004-frozen-s0", "keras-004-frozen-efficientnet_lite0-s0"]


def test_pretraining_is_no_cell_of_its_own():
    assert not any("pretrain" in name for name in cells(recipe=["*"]))


def test_an_image_size_replaces_the_profile_s_and_is_in_the_name():
    values = {"backend": ["pytorch"], "track": ["native"], "protocol": ["scratch"]}
    (cell,) = plan.plan(plan.parse({**values, "image_size": "96"}), EVERYTHING)
    assert cell.id == "pytorch-native-resnet18-scratch-96px-s0"
    assert cell.profile == msgspec.structs.replace(PROFILES["smoke"], image_size=96)
    assert cells(**values, image_size="48") == cells(**values)  # the profile's own
    assert cells(**values, image_size="48", profile="full") == ["pytorch-native-resnet18-scratch-48px-s0"]


def test_a_resampled_cell_says_so_in_its_name():
    values = {"backend": ["pytorch"], "track": ["native"], "protocol": ["scratch"], "variant": ["tuned"]}
    (cell,) = plan.plan(plan.parse({**values, "resample": True}), EVERYTHING)
    assert cell.resampled
    assert cell.id == "pytorch-native-resnet18-scratch-tuned-resampled-s0"
    (usual,) = plan.plan(plan.parse(values), EVERYTHING)
    assert not usual.resampled


def test_seeds_multiply():
    assert len(cells(seeds="3")) == 54
    assert len(set(cells(seeds="3"))) == 54


def test_conditions_other_than_the_usual_are_in_the_name():
    assert cells(backend=["keras"], track=["native"], protocol=["scratch"], device="cuda:1") == [
        "keras-native-vgg16-scratch-cuda1-s0"
    ]


def test_precisions_and_variants_multiply_as_far_as_they_exist():
    """bfloat16 is what an expert switches on: the default has none."""
    asked = {"track": ["native"], "protocol": ["scratch"], "seeds": "2"}
    made = cells(**asked, precision=["float32,bfloat16"], variant=["default,tuned"])
    recipes = {card.name: f"native-{card.architectures[0]}-scratch" for card in EVERYTHING}
    assert sorted(made) == sorted(
        f"{backend}-{recipe}{conditions}-s{seed}"
        for backend, recipe in recipes.items()
        for conditions in ("", "-tuned", "-tuned-bfloat16")
        for seed in (0, 1)
    )
    assert cells(**asked, precision=["float32", "bfloat16"], variant=["default", "tuned"]) == made
    alone = cells(**asked, precision=["bfloat16"], variant=["tuned"])
    assert alone == [name for name in made if "bfloat16" in name] and len(alone) == 2 * len(EVERYTHING)


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
        ({"recipe": ["x"]}, "no recipe 'x'; the nearest of "),
        ({"profile": "huge"}, "no profile 'huge'; there are: smoke, cpu, speed, full"),
        ({"variant": ["fast"]}, "--variant fast"),
        ({"precision": ["int4"]}, "--precision int4: no such thing; there are: float32, bfloat16"),
        ({"precision": ["bfloat16"]}, "--precision bfloat16: that is for --variant tuned"),
        (
            {"precision": ["bfloat16"], "variant": ["default,reproducible"]},
            "--precision bfloat16: that is for --variant tuned",
        ),
        ({"seeds": "many"}, "seeds"),
        ({"seeds": "0"}, "at least one seed"),
        ({"recipe": ["004-*", "005-*"]}, r"no recipe '005-\*'; the nearest of"),
        ({"image_size": "31"}, "--image-size 31: from 32 to 1024 pixels"),
        ({"image_size": "1025"}, "--image-size 1025: from 32 to 1024 pixels"),
        ({"image_size": "-64"}, "--image-size -64: from 32"),
        ({"image_size": "large"}, "image_size"),
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
