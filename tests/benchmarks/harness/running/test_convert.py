"""Checkpoints from format to format, through the real frameworks where their environments are there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import backends
from backends import weights
from backends.architectures import ARCHITECTURES
from backends.base import ModelSpec, UsageError, WeightsError
from benchmarks.harness import initial
from benchmarks.harness.gate import scenarios
from benchmarks.harness.running import convert, runner

MISSING = [card.title for card in backends.known().values() if runner.interpreter_of(card) is None]
needs_all = pytest.mark.skipif(bool(MISSING), reason=f"no environment has {', '.join(MISSING)}")


def neutral(path, architecture: str = "resnet18", classes: int = 3) -> weights.Checkpoint:
    """A whole network with none of its statistics at rest."""
    network = scenarios.Network(architecture)
    assert classes in (3, scenarios.CLASSES)
    tensors = scenarios.test_weights(network)
    if classes == 3:
        tensors |= {name: tensor[:3] for name, tensor in tensors.items() if name.startswith("head.")}
    normalization = ARCHITECTURES[architecture].normalization
    weights.write(path, tensors, weights.Origin(architecture=architecture, preprocess=normalization))
    return weights.read(path)


@pytest.mark.once
@needs_all
class TestRoundTrip:
    """Out of each framework into the next, and back where it began."""

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_gluon_to_torch_to_keras_to_gluon_is_bit_exact(self, tmp_path, architecture):
        start = neutral(tmp_path / "start.safetensors", architecture)
        names = ("start.safetensors", "a.params", "b.pth", "c.h5", "d.params", "end.safetensors")
        for source, target in pairwise(names):
            done = convert.convert(
                tmp_path / source,
                tmp_path / target,
                architecture=architecture,
                verify=(source, target) == ("a.params", "b.pth"),
            )
            assert done.spec.classes == 3
        end = weights.read(tmp_path / "end.safetensors")
        assert sorted(end.tensors) == sorted(start.tensors)
        for name, tensor in start.tensors.items():
            assert np.array_equal(end.tensors[name], tensor), name

    def test_verifying_runs_both_sides(self, tmp_path):
        neutral(tmp_path / "start.safetensors", "resnet18_v2")
        convert.convert(tmp_path / "start.safetensors", tmp_path / "a.params", verify=False)
        done = convert.convert(tmp_path / "a.params", tmp_path / "b.keras", architecture="resnet18_v2")
        assert done.verified and done.logit_error is not None
        assert 0 < done.logit_error < convert.LOGIT_TOLERANCE

    def test_a_file_of_another_architecture_names_the_first_wrong_tensor(self, tmp_path):
        neutral(tmp_path / "start.safetensors", "resnet18")
        convert.convert(tmp_path / "start.safetensors", tmp_path / "a.pth", verify=False)
        for target in ("b.params", "b.h5"):
            with pytest.raises(runner.JobFailed, match=r"a\.pth.*tensor '") as caught:
                convert.convert(tmp_path / "a.pth", tmp_path / target, architecture="resnet18_v2")
            assert "\n" not in str(caught.value)
            assert not (tmp_path / target).exists()


class TestNeutral:
    def test_a_copy_is_verified_too(self, tmp_path):
        start = neutral(tmp_path / "a.safetensors")
        done = convert.convert(tmp_path / "a.safetensors", tmp_path / "new" / "b.safetensors")
        assert done.verified and done.tensors == len(start.tensors) and done.sha256 == start.sha256
        assert done.spec.architecture == "resnet18" and done.spec.classes == 3
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["b.safetensors"]

    def test_a_target_that_is_there_is_kept_unless_forced(self, tmp_path):
        neutral(tmp_path / "a.safetensors")
        (tmp_path / "b.safetensors").write_text("precious")
        with pytest.raises(UsageError, match="is there already; --force"):
            convert.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
        assert (tmp_path / "b.safetensors").read_text() == "precious"
        convert.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", force=True)
        assert weights.read(tmp_path / "b.safetensors").tensors

    def test_an_unknown_suffix_is_answered_with_those_there_are(self, tmp_path):
        neutral(tmp_path / "a.safetensors")
        with pytest.raises(UsageError, match=r"'\.onnx'.*gluon \.params.*pytorch \.pth"):
            convert.convert(tmp_path / "a.safetensors", tmp_path / "b.onnx")

    @pytest.mark.parametrize("name", ["none.safetensors", "none.pth"])
    def test_a_missing_file_is_one_line(self, tmp_path, name):
        with pytest.raises(WeightsError, match=rf"{name}: .*[Nn]o such file"):
            convert.convert(tmp_path / name, tmp_path / "b.safetensors")

    def test_values_that_came_back_otherwise_are_named(self, tmp_path):
        tensors = initial.draw(
            ModelSpec(architecture="resnet18", classes=2, image_size=32, initializer="he"), seed=0
        )
        changed = {**tensors, "bn1.bias": tensors["bn1.bias"] + 1}
        with pytest.raises(
            convert.VerificationError, match=r"tensor 'bn1\.bias' came back with other values"
        ):
            convert.require_same(tensors, changed, tmp_path)
        with pytest.raises(convert.VerificationError, match=r"'more' is in one of the two files only"):
            convert.require_same(tensors, {**tensors, "more": tensors["bn1.bias"]}, tmp_path)

    def test_logits_that_differ_fail_the_verification(self, tmp_path):
        with pytest.raises(convert.VerificationError, match="differ by 1"):
            convert._logit_error(((1.0, 0.5),), ((1.0, 0.51),), tmp_path)


class TestRecognising:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_an_architecture_is_known_by_its_tensors(self, tmp_path, architecture):
        neutral(tmp_path / "a.safetensors", architecture)
        checkpoint = weights.read(tmp_path / "a.safetensors")
        bare = weights.Checkpoint(name="a", sha256="", origin=weights.Origin(), tensors=checkpoint.tensors)
        spec = weights.spec_of(bare)
        assert (spec.architecture, spec.classes, spec.head) == (architecture, 3, "linear")

    def test_another_architecture_names_the_first_wrong_tensor(self, tmp_path):
        checkpoint = neutral(tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match=r"no tensor 'bn0\.weight'"):
            weights.spec_of(checkpoint, "resnet18_v2")

    def test_a_network_without_its_head_is_said(self, tmp_path):
        checkpoint = neutral(tmp_path / "a.safetensors")
        del checkpoint.tensors["head.weight"]
        with pytest.raises(WeightsError, match=r"no tensor 'head\.weight'"):
            weights.spec_of(checkpoint)
