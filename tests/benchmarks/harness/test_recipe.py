from __future__ import annotations

import re

import msgspec
import pytest

import backends
from backends import architectures
from backends.architectures import ARCHITECTURES
from backends.base import UsageError
from backends.optimizers import SGD, InverseTime, OneCycle, RMSprop, StepDecay
from benchmarks.harness.gate import scenarios
from benchmarks.harness.profile import PROFILES, profile_of
from benchmarks.harness.recipe import (
    RECIPES,
    Classifier,
    HeadRow,
    Validation,
    _problems,
    all_recipes,
    pretraining_of,
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
        ("native-vgg16-frozen", 0.001, 1, 0),
        ("native-vgg16-finetune", 0.0001, 1, 0),  # no seed trains every layer: at 1e-3 the loss overflows
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
        torchvision_s = recipe.architecture == "vgg16" and recipe.published_by == "pytorch"
        usual = ARCHITECTURES[recipe.architecture].normalization
        assert recipe.input.normalization == ("imagenet" if torchvision_s else usual)


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
        (("weight_decay", "weigth_decay"), "weigth_decay.*optimizer"),
        (("weight_decay", "alpha"), "alpha.*optimizer"),  # RMSprop's
        (('name = "sgd"', ""), "name"),
        (("[optimizer]", "[optimizer.schedule]\ntype = 'cosine'\n[optimizer]"), "schedule"),
        (("[optimizer]", "[optimizer.schedule]\ntype = 'step'\nfaktor = 1\n[optimizer]"), "faktor"),
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
    with pytest.raises(UsageError, match=r"the nearest of \d+ are .*;.*list` shows all"):
        recipe_of("nothing")
    with pytest.raises(UsageError, match=", ".join(PROFILES)):
        profile_of("huge")


# --- Sweeps ---------------------------------------------------------------------------------------

SWEPT = """
summary = "base"
protocol = "finetune"
track = "matched"
architecture = "resnet18"
seed_document = "000"
pretrained = true
published_by = "pytorch"
epochs = 5
batch_size = 8
head = "linear"
initializer = "he"

[trainable]
first = "all"

[optimizer]
name = "sgd"
learning_rate = 0.5
momentum = 0.25
[optimizer.schedule]
type = "step"
steps = 7
factor = 0.5

[input]
normalization = "imagenet"
resize_mode = "squash"

[[published]]
accuracy = ".9"
source = "somebody"
"""


def swept(tmp_path, text: str):
    path = tmp_path / "base.toml"
    path.write_text(SWEPT + text)
    return read_recipes(path)


class TestSweep:
    def test_a_table_is_the_base_but_for_what_it_says(self, tmp_path):
        base, fast = swept(
            tmp_path,
            """
            [sweep.fast]
            summary = "faster"
            published = []
            [sweep.fast.optimizer]
            learning_rate = 2.0
            """,
        )
        assert (base.id, fast.id) == ("base", "base-fast")
        assert fast.optimizer == msgspec.structs.replace(base.optimizer, learning_rate=2.0)
        assert (
            msgspec.structs.replace(
                fast, id="base", summary="base", optimizer=base.optimizer, published=base.published
            )
            == base
        )
        assert (len(base.published), fast.published) == (1, ())

    def test_the_file_s_order_is_kept_and_no_table_touches_another(self, tmp_path):
        found = swept(
            tmp_path,
            """
            [sweep.b]
            epochs = 6
            [sweep.a.input]
            augment = false
            [sweep."1.5"]
            """,
        )
        assert [recipe.id for recipe in found] == ["base", "base-b", "base-a", "base-1.5"]
        assert [recipe.epochs for recipe in found] == [5, 6, 5, 5]
        assert [recipe.input.augment for recipe in found] == [True, True, False, True]
        assert found[2].input.resize_mode == "squash"
        assert msgspec.structs.replace(found[3], id="base") == found[0]

    def test_another_optimiser_takes_nothing_from_the_base_s(self, tmp_path):
        _, other, same = swept(
            tmp_path,
            """
            [sweep.other.optimizer]
            name = "rmsprop"
            learning_rate = 0.125
            [sweep.same.optimizer]
            name = "sgd"
            momentum = 0.5
            """,
        )
        assert other.optimizer == RMSprop(learning_rate=0.125)
        assert same.optimizer == SGD(learning_rate=0.5, momentum=0.5, schedule=StepDecay(steps=7, factor=0.5))

    def test_another_schedule_takes_nothing_from_the_base_s(self, tmp_path):
        _, other, same = swept(
            tmp_path,
            """
            [sweep.other.optimizer.schedule]
            type = "one-cycle"
            [sweep.same.optimizer.schedule]
            factor = 0.1
            """,
        )
        assert other.optimizer.schedule == OneCycle()
        assert (other.optimizer.learning_rate, other.optimizer.momentum) == (0.5, 0.25)
        assert same.optimizer.schedule == StepDecay(steps=7, factor=0.1)

    def test_a_table_the_base_has_not_is_added(self, tmp_path):
        base, added = swept(tmp_path, "[sweep.added.validation]\nshare = 0.2")
        assert (base.validation, added.validation) == (None, Validation(share=0.2))

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("[sweep.x]\nepoch = 3", "epoch"),
            ("[sweep.x.optimizer]\nlr = 3", "lr"),
            ('[sweep.x.optimizer]\nname = "adam"\nlearning_rate = 1.0\nmomentum = 0.9', "momentum"),
            ('[sweep.x.optimizer]\nname = "adam"', "learning_rate"),
            ("[sweep.x.sweep.y]\nepochs = 3", "sweep"),
            ("[sweep]\nx = 3", "base.toml"),
            ("[sweep.x]\noptimizer = 3", "optimizer"),
            ("[sweep.x]\ndropout = 0.3", r"base-x: dropout 0\.3"),
        ],
    )
    def test_what_is_wrong_in_a_table_is_one_line_that_names_it(self, tmp_path, text, complaint):
        with pytest.raises(UsageError, match=complaint) as caught:
            swept(tmp_path, text)
        assert "base.toml" in str(caught.value) and "\n" not in str(caught.value)

    def test_a_table_cannot_give_itself_another_name(self, tmp_path):
        assert swept(tmp_path, '[sweep.x]\nid = "native-resnet18-finetune"')[1].id == "base-x"


@pytest.mark.parametrize(
    ("base", "changes", "complaint"),
    [
        ("matched-resnet18-finetune", {"backend": "keras"}, "`backend` belongs into native"),
        ("native-resnet18-finetune", {"reuse_below": "layer4"}, "`reuse_below` belongs into matched"),
        (
            "native-resnet18-finetune",
            {"head_row": HeadRow(row=1, name="", for_class="a")},
            "`head_row` belongs",
        ),
        ("native-resnet18-finetune", {"input.augment": False}, r"`input\.augment` belongs into matched"),
        (
            "native-resnet18-finetune",
            {"input.resize_mode": "none"},
            r"`input\.resize_mode` belongs into matched",
        ),
        (
            "matched-vgg16-finetune",
            {"head": "mlp-256", "head_row": HeadRow(row=1, name="", for_class="a")},
            "needs a linear head",
        ),
        (
            "matched-vgg16-finetune",
            {"classifier": Classifier(kind="svm", block="block5")},
            "`classifier` belongs",
        ),
        ("003-svm", {"classifier": None, "epochs": 1}, "`classifier` belongs"),
        ("matched-vgg16-finetune", {"dropout": 0.3}, r"dropout 0\.3 is no multiple of 1/256"),
        ("matched-vgg16-finetune", {"dropout": 1.0}, "no rate from 0 to below 1"),
        ("matched-vgg16-finetune", {"dropout": -0.5}, "no rate from 0 to below 1"),
        ("004-finetune", {"validation": Validation(share=0.0)}, r"share 0\.0 is no part"),
        ("004-finetune", {"validation": Validation(share=1.0)}, r"share 1\.0 is no part"),
        ("matched-vgg16-finetune", {"epochs": 0}, "epochs 0: a phase needs one"),
        ("002-bottleneck-then-last-block", {"before.epochs": 0}, "epochs 0: a phase needs one"),
        ("matched-vgg16-bottleneck", {"trainable.first": "block5"}, "on features the head alone"),
        ("004-finetune", {"optimizer.schedule": StepDecay(factor=0.1)}, "a `step` schedule needs"),
        ("004-finetune", {"optimizer.schedule": StepDecay(factor=0.1, steps=2, epochs=2)}, "and not both"),
    ],
)
def test_what_stands_in_the_wrong_place_is_named(base, changes, complaint):
    recipe = recipe_of(base)
    assert list(_problems(recipe)) == []
    for field, value in changes.items():
        table, _, name = field.rpartition(".")
        if table:
            inner = msgspec.structs.replace(getattr(recipe, table), **{name: value})
            recipe = msgspec.structs.replace(recipe, **{table: inner})
        else:
            recipe = msgspec.structs.replace(recipe, **{name: value})
    (problem,) = _problems(recipe)
    assert re.search(complaint, problem)


# --- All of ours ----------------------------------------------------------------------------------


def test_ids_are_unique_and_every_seed_document_has_recipes():
    ids = [recipe.id for recipe in all_recipes()]
    assert len(set(ids)) == len(ids)
    documents = {recipe.seed_document for recipe in all_recipes()}
    assert documents == {"000", "001", "002", "003", "004"}


def test_there_is_one_canonical_recipe_per_track_architecture_and_protocol():
    found = [(r.track, r.architecture, r.protocol) for r in all_recipes() if r.canonical]
    assert len(set(found)) == len(found)
    for architecture in ARCHITECTURES:
        for protocol in ("finetune", "head-then-finetune", "last-block", "frozen", "bottleneck", "scratch"):
            assert ("matched", architecture, protocol) in found


def test_the_gate_covers_everything_that_matched_recipes_train():
    for recipe in all_recipes():
        if recipe.track != "matched":
            continue
        assert scenarios.network_of(recipe.model(classes=2, image_size=64)) in scenarios.NETWORKS, recipe.id
        modes, rules = scenarios.coverage_of(recipe)
        assert modes, recipe.id
        for phase in recipe.phases:
            rule = scenarios.rule_of(phase.optimizer)
            assert rule is None or rule in scenarios.RULES, recipe.id
            assert rule is None or rule in rules or recipe.classifier is not None, recipe.id


def test_blocks_and_claims_that_recipes_name_are_there():
    ids = {recipe.id for recipe in all_recipes()}
    for recipe in all_recipes():
        blocks = architectures.blocks_of(recipe.model(classes=recipe.classes or 2, image_size=64))
        for phase in recipe.phases:
            assert phase.trainable.first in ("all", "head", *blocks), recipe.id
        assert recipe.reuse_below in (None, *blocks), recipe.id
        assert recipe.classifier is None or recipe.classifier.block in blocks, recipe.id
        assert recipe.claim is None or recipe.claim.against in ids, recipe.id


def test_phases_are_the_first_and_then_the_rest():
    recipe = recipe_of("002-bottleneck-then-last-block")
    before, last = recipe.phases
    assert (before.on, before.epochs, before.trainable.first) == ("features", 50, "head")
    assert (last.on, last.epochs, last.trainable.first) == ("images", 5, "block5")
    assert len(recipe_of("002-bottleneck").phases) == 1


@pytest.mark.parametrize("recipe", all_recipes(), ids=lambda recipe: recipe.id)
def test_a_published_figure_stands_with_the_reason_why_ours_differs(recipe):
    assert recipe.difference or not recipe.published
