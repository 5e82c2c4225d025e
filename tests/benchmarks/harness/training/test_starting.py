from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import architectures, weights
from backends.base import DataError, ImageList, ModelSpec, UsageError, WeightsError
from benchmarks.harness import initial
from benchmarks.harness.images.data import DataSet
from benchmarks.harness.messages import StartingWeights
from benchmarks.harness.plan import Cell
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import (
    HeadRow,
    Recipe,
    all_recipes,
    recipe_of,
)
from benchmarks.harness.training import starting
from benchmarks.harness.training.starting import head_from_row

SEED = 3


class Loaded:
    """As much of a backend as a start asks for: keeps what it is given."""

    def __init__(self) -> None:
        self.built: list[ModelSpec] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.with_head: bool | None = None

    def build(self, spec: ModelSpec) -> None:
        self.built.append(spec)

    def load_weights(self, tensors: dict[str, np.ndarray], *, head: bool) -> None:
        self.tensors, self.with_head = dict(tensors), head

    def load_official(self) -> str:
        return "official.pth"


def cell(recipe: Recipe) -> Cell:
    return Cell(
        backend="pytorch", recipe=recipe, variant="default", seed=SEED, profile=profile_of("smoke"),
        device="cpu", precision="float32",
    )  # fmt: skip


def data_of(*classes: str) -> DataSet:
    images = ImageList(root="/", files=(), labels=(), classes=classes)
    return DataSet(name="set", sha256="d" * 64, train=images, test=images)


HOTDOGS = data_of("hotdog", "not-hotdog")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """For an architecture a file of random weights under a head for 1000 classes."""
    folder = tmp_path_factory.mktemp("weights")

    def path_of(architecture: str) -> Path:
        path = folder / f"{architecture}.safetensors"
        if not path.exists():
            spec = ModelSpec(
                architecture=architecture, classes=1000, image_size=64, initializer="he",
                normalization=architectures.architecture_of(architecture).normalization,
            )  # fmt: skip
            tensors = initial.draw(spec, seed=99)
            tensors["head.bias"] = np.arange(1000, dtype=np.float32)
            origin = weights.Origin(architecture=architecture, preprocess=spec.normalization)
            weights.write(path, tensors, origin)
        return path

    return path_of


def build(recipe: Recipe, path: Path | None, data: DataSet = HOTDOGS) -> Loaded:
    backend: Any = Loaded()
    start = StartingWeights(name="test", path=str(path)) if path else StartingWeights(name="none")
    spec, found = starting.build(backend, cell(recipe), data, start)
    assert backend.built == [spec]
    if recipe.track == "matched":
        assert found.initial_sha256 == initial.sha256_of(backend.tensors)
    return backend


def drawn_for(recipe: Recipe, data: DataSet = HOTDOGS) -> dict[str, np.ndarray]:
    spec = recipe.model(classes=len(data.classes), image_size=profile_of("smoke").image_size)
    return initial.draw(spec, seed=SEED)


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> set[str]:
    """Names of the tensors that are equal in both."""
    return {name for name in found if np.array_equal(found[name], expected.get(name))}


# --- Where tensors come from ----------------------------------------------------------------------


class TestBuild:
    def test_from_scratch_everything_is_drawn(self):
        recipe = recipe_of("matched-resnet18-scratch")
        backend = build(recipe, None)
        assert same(backend.tensors, drawn_for(recipe)) == set(backend.tensors)
        assert backend.with_head

    def test_pretrained_all_but_the_head_is_the_checkpoint_s(self, checkpoint):
        recipe = recipe_of("matched-resnet18_v2-finetune")
        path = checkpoint("resnet18_v2")
        backend = build(recipe, path)
        published, drawn = weights.read(path).tensors, drawn_for(recipe)
        for name, tensor in backend.tensors.items():
            source = drawn if name.startswith("head.") else published
            np.testing.assert_array_equal(tensor, source[name], err_msg=name)
        assert list(backend.tensors) == list(drawn)

    @pytest.mark.parametrize(
        ("recipe", "anew"),
        [
            ("001-reuse", ("layer4.", "bn2.", "head.")),
            ("001-reuse-below-layer3", ("layer3.", "layer4.", "bn2.", "head.")),
            ("001-reuse-below-layer2", ("layer2.", "layer3.", "layer4.", "bn2.", "head.")),
            ("001-reuse-below-layer1", ("layer1.", "layer2.", "layer3.", "layer4.", "bn2.", "head.")),
        ],
    )
    def test_reuse_keeps_the_checkpoint_below_the_block_and_draws_the_rest(self, checkpoint, recipe, anew):
        recipe = recipe_of(recipe)
        path = checkpoint("resnet18_v2")
        backend = build(recipe, path)
        published, drawn = weights.read(path).tensors, drawn_for(recipe)
        for name, tensor in backend.tensors.items():
            source = drawn if name.startswith(anew) else published
            np.testing.assert_array_equal(tensor, source[name], err_msg=name)
        kernels = [name for name in drawn if name.endswith("conv1.weight")]
        assert not any(np.array_equal(published[name], drawn[name]) for name in kernels)  # it can be told
        assert any(name.startswith(anew) for name in kernels)

    def test_a_block_that_is_not_there_is_named_with_those_that_are(self, checkpoint):
        recipe = msgspec.structs.replace(recipe_of("001-reuse"), reuse_below="layer9")
        with pytest.raises(UsageError, match=r"resnet18_v2 has no block 'layer9'; it has: .*layer4"):
            build(recipe, checkpoint("resnet18_v2"))

    def test_a_native_network_takes_the_body_alone(self, checkpoint):
        recipe = recipe_of("native-resnet18-finetune")
        backend = build(recipe, checkpoint("resnet18"))
        assert backend.with_head is False

    def test_the_framework_s_own_checkpoint_is_left_to_the_framework(self):
        backend: Any = Loaded()
        recipe = recipe_of("native-resnet18-finetune")
        _, found = starting.build(backend, cell(recipe), HOTDOGS, StartingWeights(name="imagenet"))
        assert (found.name, found.sha256, backend.tensors) == ("official.pth", None, {})

    def test_a_start_without_a_file_is_named(self):
        recipe = recipe_of("matched-resnet18-finetune")
        with pytest.raises(WeightsError, match="weights source: no file was given"):
            starting.build(Loaded(), cell(recipe), HOTDOGS, StartingWeights(name="source"))

    @pytest.mark.parametrize("count", [1, 2, 6])
    def test_a_recipe_for_five_classes_takes_no_other_number(self, count):
        recipe = recipe_of("002-five-classes")
        backend: Any = Loaded()
        with pytest.raises(UsageError, match=rf"002-five-classes is for 5 classes.*has {count};") as caught:
            starting.build(
                backend, cell(recipe), data_of(*"abcdef"[:count]), StartingWeights(name="imagenet")
            )
        assert backend.built == [] and "\n" not in str(caught.value)

    def test_a_recipe_for_five_classes_takes_five(self):
        backend: Any = Loaded()
        recipe = recipe_of("002-five-classes")
        start = StartingWeights(name="imagenet")
        spec, _ = starting.build(backend, cell(recipe), data_of(*"abcde"), start)
        assert spec.classes == 5


# --- A head that starts from published rows -------------------------------------------------------

ROWS = np.array([[1, 10], [2, 20], [3, 30], [6, 60]], np.float32)
BIASES = np.array([5, 6, 7, 12], np.float32)


def published(rows: np.ndarray = ROWS, biases: np.ndarray = BIASES) -> weights.Checkpoint:
    tensors = {"head.weight": rows, "head.bias": biases}
    return weights.Checkpoint(name="p", sha256="", origin=weights.Origin(), tensors=tensors)


class TestHeadFromRow:
    ROW = HeadRow(row=1, name="second", for_class="b")

    def test_one_class_has_the_row_and_the_others_the_mean_of_all_other_rows(self):
        made = head_from_row(published(), self.ROW, ("a", "b", "c"))
        mean = [10 / 3, 100 / 3]  # of (1, 3, 6) and (10, 30, 60): the row itself is not in it
        np.testing.assert_allclose(made["head.weight"], [mean, [2, 20], mean], rtol=1e-6)
        np.testing.assert_allclose(made["head.bias"], [8, 6, 8])
        assert set(made) == {"head.weight", "head.bias"}
        assert {tensor.dtype for tensor in made.values()} == {np.dtype(np.float32)}

    @pytest.mark.parametrize(("row", "others"), [(0, 11 / 3), (3, 2.0)])
    def test_the_first_and_the_last_row_are_rows_too(self, row, others):
        head_row = HeadRow(row=row, name="", for_class="a")
        made = head_from_row(published(), head_row, ("a", "b"))
        np.testing.assert_allclose(made["head.weight"][:, 0], [ROWS[row, 0], others], rtol=1e-6)

    @given(st.integers(2, 9), st.data())
    def test_the_network_prefers_the_class_where_the_published_one_did_to_its_average(self, rows, draw):
        """The logit of the class is the published row's, for whatever features."""
        row = draw.draw(st.integers(0, rows - 1))
        random = np.random.RandomState(rows)
        weight, bias = random.standard_normal((rows, 4)), random.standard_normal(rows)
        made = head_from_row(
            published(weight, bias), HeadRow(row=row, name="", for_class="x"), ("w", "x", "y")
        )
        features = random.standard_normal(4)
        logits = made["head.weight"] @ features + made["head.bias"]
        all_logits = weight @ features + bias
        assert logits[1] == pytest.approx(all_logits[row], abs=1e-5)
        assert logits[0] == logits[2] == pytest.approx(np.delete(all_logits, row).mean(), abs=1e-5)

    def test_a_class_that_the_data_lack_is_named_with_those_they_have(self):
        with pytest.raises(DataError, match=r"no class 'b' \(cat, dog\)") as caught:
            head_from_row(published(), self.ROW, ("cat", "dog"))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "tensors",
        [
            {},
            {"head.weight": ROWS},
            {"head.weight": ROWS[:1], "head.bias": BIASES[:1]},  # of network A, say
            {"head.weight": ROWS, "head.bias": BIASES[:1]},
        ],
    )
    def test_a_checkpoint_without_that_row_says_which_one_has_it(self, tensors):
        checkpoint = msgspec.structs.replace(published(), tensors=tensors)
        with pytest.raises(WeightsError, match=r"no row 1 in 'head\.\w+'.*--weights imagenet"):
            head_from_row(checkpoint, self.ROW, ("a", "b"))

    @pytest.mark.parametrize("recipe", ["001-hotdog-row", "001-hotdog-row-713"])
    def test_a_cell_starts_from_it(self, checkpoint, recipe):
        recipe = recipe_of(recipe)
        path = checkpoint("efficientnet_lite0")
        backend = build(recipe, path)
        rows = weights.read(path).tensors["head.weight"]
        row = recipe.head_row.row
        np.testing.assert_array_equal(backend.tensors["head.weight"][0], rows[row])
        others = (rows.sum(axis=0, dtype=np.float64) - rows[row]) / 999
        np.testing.assert_allclose(backend.tensors["head.weight"][1], others, atol=1e-6)
        mean_of_others = (999 * 1000 / 2 - row) / 999  # the file's biases count from 0 to 999
        np.testing.assert_allclose(backend.tensors["head.bias"], [row, mean_of_others], rtol=1e-6)
        assert backend.with_head

    def test_rows_are_what_the_recipes_call_them(self):
        """ImageNet's own words for a class are several; torchvision has the first."""
        meta = pytest.importorskip("torchvision.models._meta")
        rows = [recipe.head_row for recipe in all_recipes() if recipe.head_row is not None]
        assert {row.row for row in rows} == {934, 713}
        for row in rows:
            assert row.name.split(", ")[0] == meta._IMAGENET_CATEGORIES[row.row]
        assert [row.row for row in rows if "hotdog" in row.name] == [934]
