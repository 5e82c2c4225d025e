"""A valid run breaks no rule; each of the spoilt ones breaks the rule that it is about, and no other."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import pytest

from backends.base import UsageError
from benchmarks.harness.images.manifest import Images
from benchmarks.report.check import fairness, provenance, rules
from benchmarks.report.check.evidence import comparison_of, described, gather, parted
from benchmarks.report.check.rules import RULES, Verdict, judge
from tests.benchmarks.report.check.drafts import MATCHED, Draft, sha256
from tests.benchmarks.report.check.spoilt import KERAS, NATIVE, SPOILT, frozen, quick_on_gpu, validated

pytestmark = pytest.mark.once


def judged(draft: Draft, folder: Path) -> Verdict:
    return judge(gather(draft.write(folder / "run")))


class TestRules:
    def test_a_valid_run_breaks_none(self, draft, tmp_path):
        verdict = judged(draft, tmp_path)
        assert verdict.violations == [] and verdict.notes == []
        assert (verdict.cells, verdict.failed, verdict.rules) == (18, 0, len(RULES))

    @pytest.mark.parametrize(
        "spoilt", SPOILT, ids=[f"{spoilt.rule}-{place}" for place, spoilt in enumerate(SPOILT)]
    )
    def test_a_spoilt_run_breaks_one(self, draft, tmp_path, spoilt):
        spoilt.spoil(draft)
        verdict = judged(draft, tmp_path)
        lines = [f"{found.where}: {found.what}; {found.remedy}" for _, found in verdict.violations]
        assert {name for name, _ in verdict.violations} == {spoilt.rule, *spoilt.also}, lines
        assert any(re.search(spoilt.said, line) for line in lines), lines
        assert not any("\n" in line for line in lines)
        assert all(found.where and found.what and found.remedy for _, found in verdict.violations)

    def test_seeds_that_nobody_timed_may_be_of_several_machines_but_not_the_cells_of_one(
        self, draft, tmp_path
    ):
        draft.change_all({"throughput": None})
        of_seed_1 = [cell_id for cell_id in draft.records if cell_id.endswith("-s1")]
        for cell_id in of_seed_1:
            draft.change(cell_id, {"environment.cpu": "Another"})
        assert judged(draft, tmp_path / "first").violations == []
        draft.change(of_seed_1[0], {"environment.cpu": "A third"})
        ((rule, found),) = judged(draft, tmp_path / "second").violations
        assert (rule, found.where) == ("environment", "cpu") and "A third" in found.what

    def test_every_rule_is_broken_by_something_here(self):
        assert {spoilt.rule for spoilt in SPOILT} == {rule.__name__ for rule in RULES}

    def test_every_rule_says_what_it_is(self):
        assert all(rule.__doc__ for rule in RULES)

    @pytest.mark.parametrize(
        ("name", "classes", "images", "right", "alarm"),
        [
            ("hotdog.zip", ("hotdog", "not-hotdog"), 200, 199, True),
            ("photos", ("hotdog", "not-hotdog"), 200, 199, True),
            ("photos", ("not-hotdog", "hotdog"), 800, 786, True),
            ("photos", ("hotdog", "not-hotdog"), 800, 784, False),  # .98 itself
            ("photos", ("hotdog", "not-hotdog"), 200, 197, False),  # .985: within chance of .96
            ("photos", ("hotdog", "not-hotdog"), 40, 40, False),
            ("photos", ("cat", "dog"), 200, 200, False),
            ("sketch", ("hotdog", "not-hotdog"), 200, 200, False),
        ],
    )
    def test_accuracy_that_is_too_good_raises_the_alarm_on_photographs_of_hot_dogs(
        self, draft, tmp_path, name, classes, images, right, alarm
    ):
        scores, share = (1,) * right + (0,) * (images - right), right / images
        for cell_id in draft.records:
            rows = tuple(
                msgspec.structs.replace(row, test_accuracy=share) for row in draft.records[cell_id].curve
            )
            of_data = {"name": name, "classes": classes, "test": images}
            draft.change(
                cell_id,
                {
                    "curve": rows,
                    "accuracy.correct": scores,
                    "accuracy.test": share,
                    "accuracy.images": images,
                    **{f"cell.data.{field}": value for field, value in of_data.items()},
                },
            )
        test = Images(files=tuple(map(str, range(images))), labels=(0, 1) * (images // 2))
        draft.manifest = msgspec.structs.replace(draft.manifest, name=name, classes=classes, test=test)
        violations = judged(draft, tmp_path).violations
        assert {rule for rule, _ in violations} == ({"leak"} if alarm else set())
        if alarm:
            assert {found.where for _, found in violations} == set(draft.records)
            assert f"{share:.4f}" in violations[0][1].what

    @pytest.mark.parametrize(("share", "images"), [(0.985, 200), (0.98, 800), (1.0, 40), (0.0, 3), (0.5, 1)])
    def test_wilson_by_hand_is_that_of_scipy(self, share, images):
        stats = pytest.importorskip("scipy.stats")
        correct = round(share * images)
        expected = stats.binomtest(correct, images).proportion_ci(0.95, method="wilson").low
        assert provenance.wilson_low(correct / images, images) == pytest.approx(expected, abs=1e-12)

    def test_a_number_that_is_none_cannot_hide_in_memory_either(self, draft, tmp_path):
        evidence = gather(draft.write(tmp_path / "run"))
        for value in (math.nan, math.inf):
            draft.change(KERAS, {"curve.1.train_loss": value})
            records = tuple(draft.records.values())
            verdict = judge(msgspec.structs.replace(evidence, records=records))
            assert [rule for rule, _ in verdict.violations] == ["numbers"]


class TestAllowed:
    """What looks like a violation and is none."""

    def test_a_failed_cell_is_counted_and_noted(self, draft, tmp_path):
        draft.fail(KERAS)
        verdict = judged(draft, tmp_path)
        assert verdict.violations == [] and verdict.failed == 1
        ((rule, note),) = verdict.notes
        assert (rule, note.where, note.what) == ("cells", KERAS, "failed: WorkerDied: out of memory")

    def test_every_declared_setting_may_differ_between_backends(self, draft, tmp_path):
        for key in fairness.DECLARED:
            for cell_id, made in draft.records.items():
                outer, _, inner = key.partition(".")
                value = {**made.settings[outer], inner: made.cell.backend} if inner else made.cell.backend
                draft.change(cell_id, {f"settings.{outer}": value})
        assert judged(draft, tmp_path).violations == []
        assert all(reason for reason in fairness.DECLARED.values())

    def test_a_resumed_cell_is_not_timed(self, draft, tmp_path):
        draft.change(KERAS, {"throughput": None, "resumed": (1,)})
        verdict = judged(draft, tmp_path)
        assert verdict.violations == []
        assert [note.what for _, note in verdict.notes] == ["not timed: broken off after epoch 1"]

    def test_a_run_without_timing(self, draft, tmp_path):
        draft.change_all({"throughput": None})
        assert judged(draft, tmp_path).violations == []

    def test_a_few_test_images_in_the_training_set_are_a_note(self, draft, tmp_path):
        draft.share(2)
        verdict = judged(draft, tmp_path)
        assert verdict.violations == []
        assert [(rule, note.what[:20]) for rule, note in verdict.notes] == [("leak", "2 of 200 test images")]

    def test_training_that_the_validation_images_ended(self, draft, tmp_path):
        rows = tuple(
            msgspec.structs.replace(row, images=300, validation_accuracy=0.5)
            for row in draft.records[NATIVE].curve[:2]
        )
        draft.change(
            NATIVE,
            {
                "curve": rows, "training.train_images": 300, "training.validation_images": 100,
                "accuracy.epoch": 1,
            },
        )  # fmt: skip
        assert judged(draft, tmp_path / "ended").violations == []
        draft.change(NATIVE, {"curve.0.validation_accuracy": None})
        assert [rule for rule, _ in judged(draft, tmp_path / "unseen").violations] == ["numbers"]

    @pytest.mark.parametrize(
        ("validation", "test", "scored", "phases"),
        [
            ((0.4, 0.9, 0.5), (0.6, 0.75, 0.9), 2, ()),
            ((0.9, 0.9, 0.9), (0.75, 0.8, 0.9), 1, ()),
            ((0.9, 0.5, 0.6), (0.9, 0.5, 0.75), 3, (1, 2, 2)),
        ],
    )
    def test_the_epoch_that_the_validation_images_choose_of_the_last_phase(
        self, draft, tmp_path, validation, test, scored, phases
    ):
        validated(validation, test, scored=scored, phases=phases)(draft)
        assert judged(draft, tmp_path).violations == []

    def test_backends_that_stop_at_different_epochs_have_equal_batches_as_far_as_both_go(
        self, draft, tmp_path
    ):
        for cell_id, made in draft.records.items():
            if made.cell.track == "matched":
                rows = tuple(
                    msgspec.structs.replace(row, images=300, validation_accuracy=0.5) for row in made.curve
                )
                held = {"training.train_images": 300, "training.validation_images": 100}
                draft.change(cell_id, {"curve": rows, "accuracy.epoch": 1, **held})
        made = draft.records[KERAS]
        shorter = {"curve": made.curve[:2], "batches_sha256": made.batches_sha256[:2]}
        draft.change(KERAS, shorter)
        assert judged(draft, tmp_path).violations == []

    def test_stored_features_have_no_batches(self, draft, tmp_path):
        for cell_id, made in draft.records.items():
            if made.cell.track == "matched":
                draft.change(cell_id, {"training.phases.0.on": "features", "batches_sha256": ()})
        assert judged(draft, tmp_path).violations == []

    def test_a_fitted_classifier_has_no_curve_and_no_settings(self, draft, tmp_path):
        for cell_id in draft.records:
            changes = {
                "curve": (),
                "batches_sha256": (),
                "settings": {},
                "throughput": None,
                "fit_seconds": 1.0,
            }
            draft.change(cell_id, {**changes, "accuracy.epoch": None, "trained_sha256": None})
        assert judged(draft, tmp_path).violations == []

    def test_a_published_checkpoint_that_the_framework_itself_verified(self, draft, tmp_path):
        for cell_id, made in draft.records.items():
            if made.cell.track == "native":
                draft.change(cell_id, {"cell.weights.sha256": None, "cell.weights.name": "vgg16.h5"})
        assert judged(draft, tmp_path).violations == []

    def test_protocols_from_the_same_weights(self, draft, tmp_path):
        frozen("matched-resnet18-frozen")(draft)
        assert judged(draft, tmp_path).violations == []

    def test_scratch_starts_from_no_weights_and_others_of_its_architecture_do(self, draft, tmp_path):
        for cell_id in [cell_id for cell_id in draft.records if "-tuned" in cell_id]:
            none = msgspec.structs.replace(draft.records[cell_id].cell.weights, name="none", sha256=None)
            scratch = {"recipe": "matched-resnet18-scratch", "protocol": "scratch", "variant": "default"}
            draft.recast(cell_id, weights=none, **scratch)
        assert judged(draft, tmp_path).violations == []

    def test_a_recipe_that_declares_other_weights_than_others_of_its_architecture(self, draft, tmp_path):
        for cell_id, made in list(draft.records.items()):
            if made.cell.track == "native":
                draft.remove(cell_id)
                continue
            recipe = "003-fc7" if made.cell.variant == "tuned" else "003-vgg16"
            start = made.cell.weights
            if recipe == "003-fc7":
                start = msgspec.structs.replace(start, name="imagenet", sha256="0" * 64)
            other = {"variant": "default", "architecture": "vgg16", "protocol": "frozen", "weights": start}
            draft.recast(cell_id, recipe=recipe, **other)
        assert judged(draft, tmp_path).violations == []

    def test_tuned_settings_may_differ_between_backends(self, draft, tmp_path):
        for cell_id, made in draft.records.items():
            fast = made.cell.backend == "pytorch" and made.cell.variant == "tuned"
            draft.change(cell_id, {"settings": {**made.settings, "tf32": fast}})
        assert judged(draft, tmp_path).violations == []

    def test_random_weights_have_no_hash_of_a_file(self, draft, tmp_path):
        draft.change_all({"cell.weights.sha256": None, "cell.weights.name": "none"})
        assert judged(draft, tmp_path).violations == []

    def test_an_epoch_that_did_nothing_but_wait(self, draft, tmp_path):
        draft.change(KERAS, {"curve.1.input_wait_seconds": 4.0})
        assert judged(draft, tmp_path).violations == []

    def test_a_little_more_than_the_peak(self, draft, tmp_path):
        draft.change(KERAS, {"throughput.achieved_flops": 1.62e11})
        assert judged(draft, tmp_path).violations == []

    def test_convolutions_on_a_gpu_that_beat_matrix_products(self, draft, tmp_path):
        quick_on_gpu(1.9e11)(draft)
        verdict = judged(draft, tmp_path)
        assert verdict.violations == []
        ((rule, note),) = verdict.notes
        assert rule == "peak" and note.where == f"keras-{MATCHED}-cuda-s1"
        assert note.what.startswith("training at 190 GFLOP/s, and matrix products reach 160")


class TestChosen:
    def test_rules_by_name_in_their_own_order(self):
        assert [rule.__name__ for rule in rules.named(["leak", "seeds"])] == ["seeds", "leak"]
        assert rules.named([]) == RULES

    def test_a_rule_that_is_none(self):
        with pytest.raises(UsageError, match="--rule speed: no such rule; there are: schema, cells"):
            rules.named(["speed"])

    def test_only_what_was_chosen_is_looked_at(self, draft, tmp_path):
        draft.change(KERAS, {"gate": None, "accuracy": None})
        evidence = gather(draft.write(tmp_path / "run"))
        assert [rule for rule, _ in judge(evidence, rules.named(["gate"])).violations] == ["gate"]


class TestEvidence:
    def test_comparisons_hold_what_is_compared(self, draft):
        compared: dict[str, set[str]] = {}
        for made in draft.records.values():
            compared.setdefault(comparison_of(made), set()).add(made.cell.backend)
        everyone = {"pytorch", "gluon", "keras"}
        assert compared == {
            MATCHED: everyone, f"{MATCHED}-tuned": everyone, "native-finetune": everyone,
        }  # fmt: skip

    def test_the_id_that_fields_make_of_a_cell_that_failed_before_it_had_any(self, draft):
        draft.change(KERAS, {"training.image_size": 96})
        cell_id = draft.recast(KERAS, precision="bfloat16", resampled=True)
        assert cell_id == f"keras-{MATCHED}-bfloat16-96px-resampled-s1"
        draft.fail(cell_id)
        assert draft.records[cell_id].training is None
        assert described(draft.records[cell_id]) == cell_id

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"a": 1, "b": 1}, None),
            ({"a": 1, "b": 2, "c": 2}, "b and c have 2, a has 1"),
            ({"a": 1, "b": True}, "a has 1, b has true"),
            ({"a": None, "b": "x"}, "a has null, b has x"),
            ({**dict.fromkeys("abcdef", 1), "g": 2}, "a, b, c and 3 more have 1, g has 2"),
            ({"a": sha256(1), "b": sha256(2)}, f"a has {sha256(1)[:12]}, b has {sha256(2)[:12]}"),
        ],
    )
    def test_who_has_what(self, values, said):
        assert parted(values) == said

    def test_a_folder_that_holds_no_run(self, tmp_path):
        with pytest.raises(UsageError, match="neither a plan nor records"):
            gather(tmp_path)

    def test_a_run_that_has_just_begun_misses_its_cells(self, draft, tmp_path):
        draft.records.clear()
        verdict = judged(draft, tmp_path)
        assert {rule for rule, _ in verdict.violations} == {"cells"} and len(verdict.violations) == 18


def test_each_record_is_read_once(draft, tmp_path, monkeypatch):
    """However many rules look at it: a run of a thousand is to be judged while one waits."""
    folder = draft.write(tmp_path / "run")
    reads: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or original(path))
    judge(gather(folder))
    there = [*(folder / "records").iterdir(), folder / "plan.json", folder / "images.json"]
    assert sorted(path for path in reads if path.is_relative_to(folder)) == sorted(there)
