"""The gate: every backend passes it with every architecture, and no sabotage does."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

import backends
from backends import architectures
from backends.base import Backend, Session, Trainable
from backends.optimizers import Constant, OneCycle
from benchmarks.harness.gate import parity, reference, scenarios
from benchmarks.harness.recipe import all_recipes, recipe_of
from tests.backends import sabotage

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
SESSION = Session(track="matched", threads=2)


def named(value) -> str:
    return value.name if hasattr(value, "name") else str(value)


EVERY_WAY = ("resnet18", "vgg16")
"""With batch norm and without."""
ASKED = sorted(
    {
        *(
            (network, mode)
            for recipe in all_recipes()
            if recipe.track == "matched" and recipe.protocol != "pretrain"
            for network in [scenarios.network_of(recipe.model(classes=recipe.classes or 2, image_size=64))]
            for mode in scenarios.coverage_of(recipe)[0]
            if network.architecture in EVERY_WAY
        ),
        *(
            (scenarios.Network(name), mode)
            for name in architectures.ARCHITECTURES
            for mode in ("all", "frozen")
        ),
    },
    key=lambda pair: (pair[0].name, pair[1]),
)
"""What recipes ask for of these two, and of the others that everything trains, or the head. What else recipes
ask for is compared, as everything is, before it is timed."""


RULES = [
    rule
    for rule in scenarios.RULES
    if rule.schedule == "constant"
    or rule.optimizer == "sgd"
    or any(rule in scenarios.coverage_of(recipe)[1] for recipe in all_recipes() if recipe.track == "matched")
]
"""Every optimiser at a constant rate, every schedule under momentum, and what recipes ask for. The others are
compared, as every rule is, before anything is timed under them."""


def changed(**fields):
    return lambda optimizer: msgspec.structs.replace(optimizer, **fields)


RULE_FAULTS = {
    "no Nesterov": (scenarios.Rule("nesterov", "constant"), changed(nesterov=False)),
    "RMSprop's epsilon within the root": (
        scenarios.Rule("rmsprop", "constant"),
        changed(epsilon=2**-14),  # the square: what is within the root counts as its root
    ),
    "Adam's epsilon on the uncorrected root": (
        scenarios.Rule("adam", "constant"),
        changed(epsilon=2**-7 / math.sqrt(1 - (1 - 2**-6) ** 1)),  # what it amounts to in the first step
    ),
    "one-cycle a step late": (
        scenarios.Rule("sgd", "one-cycle"),
        changed(schedule=OneCycle(steps=scenarios.STEPS + 1)),
    ),
    "inverse time by the epoch": (scenarios.Rule("sgd", "inverse-time"), changed(schedule=Constant())),
}


NETWORK = scenarios.Network("resnet18")
FAST = msgspec.structs.replace(SESSION, variant="tuned")
MIXED = msgspec.structs.replace(FAST, precision="bfloat16")


@pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")
@pytest.mark.parametrize("card", INSTALLED, ids=named)
class TestVariants:
    @pytest.mark.parametrize("session", [FAST, MIXED], ids=["float32", "bfloat16"])
    def test_tuned_passes(self, card, session):
        sessions: list[Session] = []

        def make(asked: Session) -> Backend:
            sessions.append(asked)
            return backends.load(card)(asked)

        gate = parity.gate(make, NETWORK, ("frozen",), session)
        print({kind: getattr(gate, f"{kind}_error") for kind in parity.TOLERANCES})
        assert gate.passed and gate.failures == ()
        own = parity.TOLERANCES["logit"].error
        low = parity.LOW_PRECISION["bfloat16"]
        for kind, tolerance in parity.TOLERANCES.items():
            mixed = session is MIXED and tolerance.precision == "float32"
            assert gate.tolerances[kind] == (low if mixed else tolerance.error)
        assert (gate.logit_error > own) == (session is MIXED)
        # What is tuned is what is compared in float64, too.
        assert [(asked.variant, asked.precision) for asked in sessions] == [
            ("tuned", session.precision),
            ("tuned", "float64"),
        ]

    @pytest.mark.bfloat16
    def test_a_low_precision_hides_no_fault(self, card):
        """One larger than its tolerance, and in nothing but that precision."""

        class Sabotaged(backends.load(card)):
            def load_weights(self, tensors, *, head):
                changed = dict(tensors)
                if self.session.precision == "bfloat16":
                    changed["head.weight"] = tensors["head.weight"] * np.float32(1.5)
                super().load_weights(changed, head=head)

        gate = parity.gate(Sabotaged, NETWORK, ("frozen",), MIXED)
        assert not gate.passed
        assert any("logits in inference mode (float32) is off" in failure for failure in gate.failures)
        assert gate.logit_error > 2 * parity.LOW_PRECISION["bfloat16"]
        assert not any("(float64)" in failure for failure in gate.failures)

    @pytest.mark.bfloat16
    def test_nor_does_it_one_that_float64_shows(self, card):
        """A fault within the low precision's tolerance, wherever it is put in."""
        sabotaged = sabotage.optimizing(changed(head_multiplier=1.0))(backends.load(card))
        gate = parity.gate(sabotaged, NETWORK, ("frozen",), MIXED)
        assert not gate.passed
        assert gate.failures and all(
            "float64" in failure or "setting" in failure for failure in gate.failures
        )
        assert gate.step_error > 1000 * parity.TOLERANCES["step"].error


@pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")
class TestGate:
    @pytest.mark.parametrize(("network", "mode"), ASKED, ids=named)
    @pytest.mark.parametrize("card", INSTALLED, ids=named)
    def test_every_architecture_passes(self, card, network, mode):
        gate = parity.gate(backends.load(card), network, (mode,), SESSION)
        print({kind: getattr(gate, f"{kind}_error") for kind in parity.TOLERANCES})
        assert gate.passed and gate.failures == ()
        assert gate.reference_sha256 == reference.read_golden(network.name).sha256

    @pytest.mark.parametrize(
        ("card", "fault"),
        [(card, fault) for card in INSTALLED for fault in sabotage.sabotages_of(card.name)],
        ids=named,
    )
    def test_every_sabotage_fails(self, card, fault):
        sabotaged = sabotage.sabotages_of(card.name)[fault](backends.load(card))
        gate = parity.gate(sabotaged, sabotage.NETWORK, ("all",), SESSION)
        margins = {
            kind: (getattr(gate, f"{kind}_error") or 0.0) / tolerance.error
            for kind, tolerance in parity.TOLERANCES.items()
        }
        kind = max(margins, key=lambda kind: margins[kind])
        print(
            f"{card.name}, {fault}: {kind} is {margins[kind]:.1e} times what is allowed ({gate.worst[kind]})"
        )
        assert not gate.passed
        assert gate.failures
        assert margins[kind] > 1000

    @pytest.mark.parametrize("rule", RULES, ids=named)
    @pytest.mark.parametrize("card", INSTALLED, ids=named)
    def test_every_optimiser_and_every_schedule_passes(self, card, rule):
        gate = parity.gate(backends.load(card), scenarios.RULES_NETWORK, (), SESSION, [rule])
        print(rule.name, gate.loss_error, gate.step_error)
        assert gate.passed and gate.failures == ()
        assert gate.mode == rule.name
        assert gate.step_error is not None and gate.worst["step"].startswith(rule.name)

    @pytest.mark.reference
    @pytest.mark.parametrize("fault", RULE_FAULTS)
    @pytest.mark.parametrize("card", INSTALLED, ids=named)
    def test_another_definition_fails(self, card, fault):
        rule, change = RULE_FAULTS[fault]
        sabotaged = sabotage.optimizing(change)(backends.load(card))
        gate = parity.gate(sabotaged, scenarios.RULES_NETWORK, (), SESSION, [rule])
        assert not gate.passed
        assert (gate.step_error or math.inf) > 1000 * parity.TOLERANCES["step"].error


class TestGolden:
    @pytest.mark.parametrize("network", scenarios.NETWORKS, ids=named)
    def test_the_golden_files_hold_every_tensor_of_their_network(self, network):
        golden = reference.read_golden(network.name)
        shapes = architectures.shapes(network.spec)
        parameters = {name for name in shapes if architectures.is_parameter(name)}
        assert set(golden.of_kind("all", "gradient")) == parameters
        head = {name for name in parameters if architectures.is_head(name)}
        assert (
            set(golden.of_kind("frozen", "gradient")) == set(golden.of_kind("features", "gradient")) == head
        )
        stepped = golden.of_kind("all", "step")
        assert set(stepped) == set(shapes) | {f"velocity of {name}" for name in parameters}
        assert set(golden.of_kind("all", "block")) == set(architectures.blocks_of(network.spec))
        for mode in network.modes:
            losses = golden.of_kind(mode, "loss")["losses"][-scenarios.STEPS :]
            assert (losses > 0.1).all() and (losses < 1000).all()  # neither learnt already nor lost

    def test_every_architecture_has_one(self):
        assert {network.architecture for network in scenarios.NETWORKS} == set(architectures.ARCHITECTURES)

    @pytest.mark.parametrize("network", scenarios.NETWORKS, ids=named)
    def test_training_moved_everything_that_trains(self, network):
        """Or a step that does nothing would pass."""
        golden, start = reference.read_golden(network.name), scenarios.test_weights(network)
        for name, before in start.items():
            if architectures.is_parameter(name):
                after = golden.of_kind("all", "step")[name]
                assert reference.error_of(before, after, least=1e-6) > 1e-6, name


class TestSummary:
    def test_a_tensor_is_equal_to_its_own_summary(self):
        tensor = np.random.RandomState(0).standard_normal((3, 5, 7))
        assert reference.error_of(tensor, reference.summary(tensor), least=0) == 0

    @pytest.mark.parametrize("size", [1, 5, 1000, 100_003])
    def test_no_value_changes_unseen(self, size):
        tensor = np.random.RandomState(0).standard_normal(size)
        expected = reference.summary(tensor)
        for place in (0, size // 2, size - 1):
            changed = tensor.copy()
            changed[place] += 1
            assert reference.error_of(changed, expected, least=0) > 1e-4

    def test_errors_are_relative(self):
        tensor = np.array([4.0, -8.0])
        off = tensor + np.array([0.0, 0.008])
        assert reference.error_of(off, reference.summary(tensor), least=0) == pytest.approx(1e-3, rel=0.2)
        scaled = reference.error_of(off * 1e-12, reference.summary(tensor * 1e-12), least=0)
        assert scaled == pytest.approx(1e-3, rel=0.2)

    def test_what_should_be_nothing_is_compared_on_its_kind_s_scale(self):
        noise, other = np.array([1e-17, -1e-17]), np.array([1e-17, 1e-17])
        assert reference.error_of(other, reference.summary(noise), least=1.0) < 1e-16
        assert reference.error_of(other, reference.summary(noise), least=0) > 0.1

    @pytest.mark.parametrize("tensor", [np.zeros(3), np.array([1.0, math.nan]), np.array([math.inf, 0.0])])
    def test_another_size_or_no_number_is_infinitely_wrong(self, tensor):
        assert reference.error_of(tensor, reference.summary(np.zeros(2)), least=1.0) == math.inf

    def test_missing_and_unexpected_tensors_fail(self):
        tensors, metadata = reference.summarize(
            {
                mode: reference.Observation(tensors={"logit": {"logits": np.ones(3)}}, settings=SETTINGS)
                for mode in ("all",)
            }
        )
        assert "settings" in metadata
        golden = reference.Golden(summaries=tensors, settings={}, sha256="")
        for found in ({}, {"logits": np.ones(3), "more": np.ones(1)}):
            observed = reference.Observation(tensors={"logit": found}, settings={})
            error, name = golden.worst(observed, "all", "logit")
            assert error == math.inf
            assert "missing" in name or "not expected" in name

    def test_settings_that_differ_are_named(self):
        golden = reference.Golden(
            summaries={}, settings={"all": dict.fromkeys(reference.COMPARED_SETTINGS, 1)}, sha256=""
        )
        different = msgspec.convert({**SETTINGS, "loss": 2}, dict)
        assert golden.differences(different, "all") == ["loss is 2 instead of 1"]


SETTINGS = {
    "batch_norm": dict.fromkeys(
        ("layers", "on_stored_statistics", "epsilon", "running_keeps", "running_variance"), 1
    ),
    "optimizer": dict.fromkeys(
        (
            "learning_rates",
            "momentum",
            "nesterov",
            "alpha",
            "betas",
            "epsilon",
            "weight_decay",
            "decay_form",
            "schedule",
        ),
        1,
    ),
    "loss": 1,
    "dropout": 1,
    "trained_parameters": 1,
    "parameters": 1,
}


def test_a_recipe_s_gate_is_that_of_what_it_trains():
    with_batch_norm, without = scenarios.Network("resnet18"), scenarios.Network("vgg16")
    for network in (with_batch_norm, without):
        assert scenarios.mode_of(Trainable(first="head", batch_norm="stored"), network) == "frozen"
        assert scenarios.mode_of(Trainable(), network) == "all"
        assert scenarios.mode_of(Trainable(first="layer3"), network) == "last-block"
    stored = Trainable(batch_norm="stored")
    assert scenarios.mode_of(stored, with_batch_norm) == "stored"
    assert scenarios.mode_of(stored, without) == "all"
    assert "stored" in with_batch_norm.modes and "stored" not in without.modes


def test_a_recipe_is_covered_by_what_its_phases_do():
    def coverage(recipe: str) -> str:
        return scenarios.coverage_name(*scenarios.coverage_of(recipe_of(recipe)))

    assert coverage("matched-resnet18-finetune") == "all+plain+constant"
    assert coverage("matched-resnet18-head-then-finetune") == "stored+frozen+plain+constant"
    assert coverage("002-bottleneck") == "frozen+features+rmsprop+constant"
    assert coverage("002-bottleneck-then-last-block") == "last-block+frozen+features+rmsprop+constant"
    assert coverage("matched-vgg16-last-block") == "last-block"
    assert coverage("003-vgg16-one-cycle") == "frozen+plain+one-cycle"
    assert coverage("003-svm") == "frozen"


def test_inputs_are_the_same_everywhere():
    """Under NumPy 1 and 2: figures that were written down once."""
    batches = scenarios.test_batches(scenarios.Network("resnet18"))
    images, labels = (np.stack(parts) for parts in zip(*batches, strict=True))
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    assert (int(images.sum()), labels[0].tolist()) == (62706774, [3, 3, 1, 1, 0, 0, 0, 1])
    weights = scenarios.test_weights(scenarios.Network("resnet18"))
    assert float(weights["conv1.weight"][0, 0, 0, 0]) == -0.03546108305454254
