from __future__ import annotations

import pytest

import backends
from backends.architectures import ARCHITECTURES
from backends.base import (
    UsageError,
)
from backends.optimizers import InverseTime
from benchmarks.harness.recipe import (
    PROFILES,
    RECIPES,
    all_recipes,
    pretraining_of,
    profile_of,
    read_recipes,
    recipe_of,
)


def test_every_backend_has_the_three_protocols_and_a_way_to_source_weights():
    found = {(recipe.backend, recipe.protocol) for recipe in all_recipes()}
    for backend in ("pytorch", "gluon", "keras"):
        for protocol in ("finetune", "frozen", "scratch", "pretrain"):
            assert (backend, protocol) in found


@pytest.mark.parametrize(
    ("recipe", "rate", "multiplier", "decay"),
    [
        ("native-resnet18-finetune", 0.01, 10, 0.001),
        ("native-resnet18-frozen", 0.01, 1, 0.001),
        ("native-resnet18-scratch", 0.1, 1, 0.001),
        ("native-resnet18_v2-finetune", 0.01, 1, 0.001),
        ("native-resnet18_v2-frozen", 0.01, 1, 0.001),
        ("native-resnet18_v2-scratch", 0.1, 1, 0.001),
        ("native-vgg16-finetune", 0.001, 1, 0),
        ("native-vgg16-last-block", 0.001, 1, 0),
    ],
)
def test_hyper_parameters_are_those_of_the_seeds(recipe, rate, multiplier, decay):
    found = recipe_of(recipe)
    optimizer = found.optimizer
    assert (optimizer.learning_rate, optimizer.head_multiplier, optimizer.weight_decay) == (
        rate,
        multiplier,
        decay,
    )
    assert (found.batch_size, found.epochs) == (128, 5)


def test_vgg16_trains_as_its_seed_does():
    optimizer = recipe_of("native-vgg16-finetune").optimizer
    assert (optimizer.momentum, optimizer.nesterov, optimizer.schedule) == (
        0.9,
        True,
        InverseTime(decay=1e-6),
    )
    assert recipe_of("native-vgg16-last-block").trainable.first == "block5"


def test_frozen_means_stored_statistics():
    for recipe in all_recipes():
        if recipe.protocol == "frozen":
            assert (recipe.trainable.first, recipe.trainable.batch_norm) == ("head", "stored")


def test_pretraining_fixes_its_own_image_size():
    for recipe in all_recipes():
        assert (recipe.image_size is not None) == (recipe.protocol == "pretrain")
        if recipe.pretrained:
            assert pretraining_of(recipe).architecture == recipe.architecture


def test_matched_recipes_name_no_backend_and_are_the_same_for_all():
    matched = [recipe for recipe in all_recipes() if recipe.track == "matched"]
    assert {recipe.architecture for recipe in matched} == set(ARCHITECTURES)
    for recipe in matched:
        assert (recipe.backend is None) == (recipe.protocol != "pretrain")
        assert recipe.initializer != "default"  # which another framework does not have
        assert not recipe.pretrained or recipe.published_by in backends.known()
        assert recipe.input.normalization == ARCHITECTURES[recipe.architecture].normalization


def test_a_matched_recipe_may_not_name_a_backend_nor_a_native_one_leave_it_out(tmp_path):
    path = tmp_path / "x.toml"
    native = (RECIPES / "native-resnet18-finetune.toml").read_text()
    for text in (native.replace('"native"', '"matched"'), native.replace('backend = "pytorch"', "")):
        path.write_text(text)
        with pytest.raises(UsageError, match="`backend` belongs into native and pretraining recipes"):
            read_recipes(path)


def test_the_test_transform_keeps_torchvision_s_proportion():
    transform = recipe_of("native-resnet18-finetune").transform(224)
    assert (transform.size, transform.resize) == (224, 256)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (("epochs = 5", 'epochs = "five"'), "epochs"),
        (("epochs = 5", "epoch = 5"), "epoch"),
        (('name = "sgd"', 'name = "adamw"'), "optimizer"),
        (('summary = "', "summary = "), "native"),
    ],
)
def test_a_bad_recipe_is_one_line_that_names_file_and_field(tmp_path, damage, complaint):
    text = (RECIPES / "native-resnet18-finetune.toml").read_text()
    assert damage[0] in text
    path = tmp_path / "native-bad.toml"
    path.write_text(text.replace(*damage))
    with pytest.raises(UsageError, match=complaint) as caught:
        read_recipes(path)
    assert "native-bad.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(UsageError, match=r"there are: .*native-resnet18-finetune"):
        recipe_of("nothing")
    with pytest.raises(UsageError, match=", ".join(PROFILES)):
        profile_of("huge")
