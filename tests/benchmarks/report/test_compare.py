"""Two runs of the same cells: known answers, and regressions that were put in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

pytest.importorskip("scipy", reason="the report's libraries are in the report's environment only")

import numpy as np
from scipy import stats

from backends.base import UsageError
from benchmarks.harness.record import Record, Weights
from benchmarks.report.compare import shown, verdicts
from benchmarks.report.compare.changes import changes_of, foreign, machine_of
from benchmarks.report.compare.pairs import pair_up
from benchmarks.report.compare.thresholds import Thresholds
from benchmarks.report.compare.verdicts import Comparison, Row
from benchmarks.report.verdicts.words import first_few
from tests.benchmarks.report.samples import NOISY, variant_of
from tests.benchmarks.report.two_runs import (
    JITTER,
    RIGHT,
    cell,
    environment,
    failed,
    right,
    run_of,
    sized,
    without,
)

pytestmark = pytest.mark.once

BELOW = "different, below the threshold"
Run = Callable[..., list[Record]]


@pytest.fixture
def run(ok_record: Record) -> Run:
    """Makes a run of one cell."""
    return partial(run_of, ok_record)


@pytest.fixture
def repeated(matched_record: Record) -> list[Record]:
    """A run of one seed whose training gives the same bits each time."""
    return [variant_of(record, "reproducible") for record in run_of(matched_record, [0])]


def compare(baseline: list[Record], candidate: list[Record], **options: Any) -> Comparison:
    return verdicts.compare(baseline, candidate, ("before", "after"), **options)


def row(comparison: Comparison, metric: str, place: int = 0) -> Row:
    (found,) = (table for table in comparison.tables if table.metric.name == metric)
    return found.rows[place]


def verdicts_of(comparison: Comparison) -> dict[str, list[str]]:
    return {table.metric.name: [one.verdict for one in table.rows] for table in comparison.tables}


SPEEDS = ("training", "inference", "end to end", "peak memory")


class TestVerdicts:
    def test_the_same_run_twice_shows_no_difference(self, run):
        found = compare(run(), run())
        assert verdicts_of(found) == {metric: ["no difference shown"] for metric in ("accuracy", *SPEEDS)}
        assert (found.tested, found.exit_code, found.failed, found.changes) == (5, 0, (), ())
        (note,) = shown.notes(found)
        assert note.startswith("Machine, software, code, settings and input are the same")
        assert shown.sentence(found) == "No regression shown in 5 comparisons; 0 better."

    def test_images_that_were_lost_make_a_regression_and_found_ones_do_not(self, run):
        candidate = [right(record, without(20)) for record in run()]
        lost = row(compare(run(), candidate), "accuracy")
        assert (lost.verdict, lost.seeds) == ("worse", (3, 3))
        assert (lost.baseline, lost.candidate) == (0.75, pytest.approx(0.65))
        assert lost.effect is not None
        assert lost.effect.estimate == pytest.approx(-0.1)
        assert lost.effect.low < -0.1 < lost.effect.high < 0
        gained = compare(candidate, run())
        assert row(gained, "accuracy").verdict == "better"
        assert (compare(run(), candidate).exit_code, gained.exit_code) == (1, 0)

    def test_of_one_seed_that_is_repeatable_it_is_mcnemar_s_exact_test(self, repeated):
        """Six images on one side and none on the other: p = 2 / 2**6."""
        found = row(compare(repeated, [right(record, without(6)) for record in repeated]), "accuracy")
        assert found.effect is not None
        assert found.effect.p == pytest.approx(2 / 2**6)
        assert found.verdict == "worse"

    def test_seeds_are_paired_by_number_whatever_their_order(self, run):
        lost = {0: 0, 1: 10, 2: 20}
        baseline, candidate = (
            [right(record, without(lost[record.cell.seed] + more)) for record in run()] for more in (0, 8)
        )
        found = row(compare(baseline, candidate[::-1]), "accuracy")
        assert found.effect is not None
        assert found.effect.estimate == pytest.approx(-0.04)
        assert found.verdict == "worse"

    def test_only_seeds_that_both_have_say_something_of_accuracy(self, run):
        candidate = [right(record, without(50)) for record in run([3])] + run([1])
        found = compare(run(), candidate, allow_missing=True)
        assert row(found, "accuracy").seeds == (1, 1)
        assert row(found, "accuracy").candidate == 0.75
        assert found.missing == tuple(f"pytorch-native-resnet18-finetune-s{seed}" for seed in (0, 2))
        assert found.candidate_only == ("pytorch-native-resnet18-finetune-s3",)

    def test_without_a_seed_that_both_scored_nothing_is_said_of_accuracy(self, run):
        candidate = [msgspec.structs.replace(run()[0], accuracy=None), *run([3, 4])]
        found = compare(run(), candidate)
        assert row(found, "accuracy").reason == "no seed in both"
        assert row(found, "training").effect is not None

    def test_what_is_slower_by_a_fifth_is_worse_and_welch_says_how_sure(self, run):
        found = compare(run(), run(slower=1.25))
        training = row(found, "training")
        assert training.verdict == "worse" and training.effect is not None
        assert training.effect.estimate == pytest.approx(1 / 1.25)
        logs = np.log([128.0 * one for one in JITTER])
        expected = stats.ttest_ind(logs - np.log(1.25), logs, equal_var=False)
        interval = np.exp(expected.confidence_interval())
        assert training.effect.p == pytest.approx(expected.pvalue)
        assert (training.effect.low, training.effect.high) == pytest.approx(tuple(interval))
        assert (training.baseline, training.candidate) == (
            pytest.approx(float(np.exp(logs.mean()))),
            pytest.approx(float(np.exp(logs.mean())) / 1.25),
        )
        assert [one.verdict for _, one in found.rows("worse")] == ["worse"]  # nothing else
        assert row(compare(run(slower=1.25), run()), "training").verdict == "better"

    def test_more_memory_is_worse_and_less_is_better(self, run):
        assert row(compare(run(), run(memory=1.3)), "peak memory").verdict == "worse"
        assert row(compare(run(), run(memory=1 / 1.3)), "peak memory").verdict == "better"

    @pytest.mark.parametrize(("factor", "verdict"), [(1.04, BELOW), (1.07, "worse")])
    def test_a_difference_that_is_sure_and_small_does_not_count(self, run, factor, verdict):
        def steadier(records: list[Record]) -> list[Record]:
            made = []
            for record in records:
                assert record.throughput is not None
                near = 128.0 + (record.throughput.train_images_per_second - 128.0) / 100
                made.append(
                    variant_of(record, "default", seed=record.cell.seed, train_images_per_second=near)
                )
            return made

        def slowed(records: list[Record]) -> list[Record]:
            return [
                variant_of(
                    record, "default", seed=record.cell.seed,
                    train_images_per_second=record.throughput.train_images_per_second / factor,
                )
                for record in records
                if record.throughput is not None
            ]  # fmt: skip

        baseline = steadier(run())
        found = compare(baseline, slowed(baseline))
        assert row(found, "training").verdict == verdict
        assert found.exit_code == (verdict == "worse")

    def test_thresholds_are_the_user_s(self, run):
        candidate = [right(record, without(20)) for record in run(slower=1.25)]
        found = compare(run(), candidate, thresholds=Thresholds(accuracy=0.11, speed=0.3))
        assert row(found, "accuracy").verdict == row(found, "training").verdict == BELOW
        assert found.exit_code == 0

    def test_many_comparisons_ask_for_more(self, repeated):
        """One of 2 / 2**6 is below .05, and one among two is not."""
        other = [cell(record, id="keras-x-s0", backend="keras") for record in repeated]
        candidate = [right(record, without(6)) for record in repeated]
        assert row(compare(repeated, candidate), "accuracy").verdict == "worse"
        both = compare(repeated + other, candidate + other)
        (found,) = [one for one in both.tables[0].rows if one.baseline != one.candidate]
        assert found.effect is not None
        assert found.effect.p == pytest.approx(2 * 2 / 2**6)
        assert found.verdict == "no difference shown"

    def test_what_could_have_been_shown_is_said_and_would_have_been(self, run):
        """A change as large as the least that could have counted, with the same scatter, counts."""
        least = row(compare(run(), run()), "training").effect
        assert least is not None and least.least > 0.05 - 1e-9
        assert row(compare(run(), run(slower=1.001 * (1 + least.least))), "training").verdict == "worse"
        strict = compare(run(), run(), thresholds=Thresholds(speed=0.5))
        assert row(strict, "training").effect.least == 0.5  # less than the threshold never counts

    def test_seeds_that_lie_far_apart_could_have_shown_nothing(self, run):
        """No accuracy is 127 points above another."""
        first, second = run([0, 1])
        found = compare([first, second], [first, right(second, without(40))])
        assert row(found, "accuracy").effect.least > 1
        told = [cells[-1].text for one in shown.tables(found)[:1] for cells in one.rows]
        assert told == ["no difference shown (could have shown nothing: too few seeds)"]
        faster = variant_of(second, "default", seed=1, train_images_per_second=3 * 128.0)
        found = compare([first, second], [first, faster])
        assert row(found, "training").effect.least > 100
        assert shown.tables(found)[1].rows[0][-1].text == told[0]


class TestNotTested:
    def test_one_seed_is_no_test_and_the_way_out_is_said(self, run):
        """Another training of the same code loses as many images, or more."""
        found = compare(run([0]), [right(record, without(50)) for record in run([0], slower=2.0)])
        assert {
            (row(found, metric).verdict, row(found, metric).reason) for metric in ("accuracy", *SPEEDS)
        } == {("not tested", "one seed each: --seeds 5")}
        assert row(found, "accuracy").candidate == pytest.approx(0.5)  # told, though not tested
        assert any("--seeds 5" in note for note in shown.notes(found))
        assert (found.tested, found.exit_code, shown.tables(found)) == (0, 2, [])
        assert shown.sentence(found) == "Nothing could be tested."

    @pytest.mark.parametrize(
        "other",
        [
            lambda record: cell(record, weights=Weights(name="source", sha256=None, initial_sha256="0" * 64)),
            lambda record: msgspec.structs.replace(record, batches_sha256=("b" * 64, "b" * 64, "0" * 64)),
            lambda record: environment(record, cpu="Another processor"),
        ],
        ids=["values", "bytes", "machine"],
    )
    def test_a_seed_that_another_cause_may_have_changed_is_not_tested(self, repeated, other):
        """It is where both runs have that same cause."""
        candidate = [right(record, without(50)) for record in repeated]
        changed = [other(record) for record in candidate]
        assert row(compare(repeated, changed), "accuracy").reason == "one seed each: --seeds 5"
        assert row(compare([other(record) for record in repeated], changed), "accuracy").verdict == "worse"

    @pytest.mark.parametrize(
        "unproven",
        [
            lambda record: cell(record, variant="default"),
            lambda record: cell(record, weights=Weights(name="source", sha256="e" * 64)),
            lambda record: msgspec.structs.replace(record, batches_sha256=()),
            lambda record: msgspec.structs.replace(record, environment=None),
        ],
        ids=["not of the same bits", "values unknown", "bytes unknown", "machine unknown"],
    )
    def test_a_seed_of_which_neither_run_proves_enough_is_not_tested(self, repeated, unproven):
        baseline = [unproven(record) for record in repeated]
        candidate = [right(record, without(50)) for record in baseline]
        assert row(compare(baseline, candidate), "accuracy").reason == "one seed each: --seeds 5"

    def test_several_seeds_need_no_proof(self, run):
        assert row(compare(run([0, 1]), run([0, 1])), "accuracy").effect is not None

    def test_two_seeds_on_one_side_are_not_enough(self, run):
        found = compare(run(), run([0]), allow_missing=True)
        assert row(found, "training").reason == "one seed in one run: --seeds 5"
        assert row(found, "accuracy").reason == "one seed each: --seeds 5"  # of those that both have
        assert any("run both with --seeds 5" in note for note in shown.notes(found))

    def test_cells_that_were_disturbed_are_left_out_and_named(self, run):
        """Whose speeds would have made a regression."""
        slow = run(slower=3.0)
        noisy = variant_of(slow[0], "default", seed=3, conditions=NOISY)
        in_inference = variant_of(slow[0], "default", seed=4, inference_conditions=NOISY)
        unsteady = variant_of(slow[0], "default", seed=5, steady=False)
        found = compare(run(range(6)), [*run(), noisy, in_inference, unsteady])
        assert row(found, "training").verdict == "no difference shown"
        assert row(found, "training").seeds == (6, 3)
        assert row(found, "peak memory").seeds == (6, 6)  # which nothing disturbs
        stem = "pytorch-native-resnet18-finetune"
        assert [(one.cell, one.reason) for one in found.disturbed[1]] == [
            (f"{stem}-s3", "noisy"), (f"{stem}-s4", "noisy"), (f"{stem}-s5", "not steady"),
        ]  # fmt: skip
        assert found.disturbed[0] == ()
        assert (
            f"Left out of the rates of B: {stem}-s3 (noisy), {stem}-s4 (noisy) and {stem}-s5 (not steady)."
            in shown.notes(found)
        )

    def test_too_few_that_were_quiet_are_no_test(self, run):
        candidate = [
            run()[0],
            *(variant_of(one, "default", seed=one.cell.seed, steady=False) for one in run()[1:]),
        ]
        assert row(compare(run(), candidate), "training").reason == "noisy or not steady"

    def test_a_run_that_was_not_timed_has_no_speed_and_other_memory(self, run):
        untimed = [msgspec.structs.replace(record, throughput=None) for record in run(memory=0.5)]
        found = compare(run(), untimed)
        assert row(found, "training").reason == "not in both runs"
        assert row(found, "peak memory").reason == "not all were timed"
        neither = compare(untimed, untimed)
        assert [table.metric.name for table in neither.tables] == ["accuracy", "peak memory"]

    def test_other_test_images_are_not_compared(self, run):
        candidate = [right(record, RIGHT[:100]) for record in run()]
        assert row(compare(run(), candidate), "accuracy").reason == "other test images"

    def test_nothing_tested_is_no_success(self, run):
        untimed = [msgspec.structs.replace(record, throughput=None, memory=None) for record in run()]
        found = compare(untimed, [right(record, RIGHT[:100]) for record in untimed])
        assert (found.tested, found.exit_code) == (0, 2)
        assert shown.sentence(found) == "Nothing could be tested."


class TestCells:
    def test_a_cell_that_fails_now_is_a_regression(self, run):
        candidate = run()
        candidate[1] = failed(candidate[1])
        found = compare(run(), candidate)
        assert found.exit_code == 1
        assert shown.sentence(found) == (
            "1 regression in 5 comparisons: pytorch-native-resnet18-finetune-s1 failed (NumericalError: the"
            " loss is nan); 0 better."
        )
        assert (row(found, "accuracy").seeds, row(found, "training").seeds) == ((2, 2), (3, 2))

    def test_all_failing_is_a_regression_without_any_test(self, run):
        found = compare(run(), [failed(record) for record in run()])
        assert (found.exit_code, found.tables) == (1, ())
        assert shown.sentence(found).startswith("3 regressions in 0 comparisons: ")

    def test_what_failed_before_is_a_note(self, run):
        first, second, *others = run(range(4))
        baseline = [failed(first), failed(second), *others]
        candidate = [first, failed(second), *others]
        found = compare(baseline, candidate)
        assert found.exit_code == 0
        stem = "pytorch-native-resnet18-finetune"
        assert (found.recovered, found.failed_in_both) == ((f"{stem}-s0",), (f"{stem}-s1",))
        assert {f"Failed in A, ok in B: {stem}-s0.", f"Failed in both: {stem}-s1."} <= set(shown.notes(found))

    def test_a_backend_without_records_is_a_regression_unless_that_is_allowed(self, run):
        """It died before it wrote one; nothing else would tell."""
        keras = [
            cell(record, id=f"keras-native-vgg16-finetune-s{record.cell.seed}", backend="keras")
            for record in run()
        ]
        found = compare([*run(), *keras], run())
        assert found.exit_code == 1
        assert found.missing == tuple(record.cell.id for record in keras)
        assert shown.sentence(found) == (
            "3 regressions in 5 comparisons: keras-native-vgg16-finetune-s0 is missing,"
            " keras-native-vgg16-finetune-s1 is missing and keras-native-vgg16-finetune-s2 is missing; 0"
            " better."
        )
        assert any(
            note.startswith("Only in A, ") and "--allow-missing" in note for note in shown.notes(found)
        )
        allowed = compare([*run(), *keras], run(), allow_missing=True)
        assert allowed.exit_code == 0
        assert shown.sentence(allowed) == "No regression shown in 5 comparisons; 0 better."
        assert any(note.startswith("Only in A: keras-") for note in shown.notes(allowed))

    def test_missing_is_enough_where_nothing_could_be_tested(self, run):
        """And where it is allowed, that nothing was tested is still no success."""
        untimed = [msgspec.structs.replace(record, throughput=None, memory=None) for record in run()]
        candidate = [right(record, RIGHT[:100]) for record in untimed[:2]]
        assert compare(untimed, candidate).exit_code == 1
        assert compare(untimed, candidate, allow_missing=True).exit_code == 2

    def test_what_failed_before_and_is_gone_now_is_a_note(self, run):
        baseline = [*run([0, 1]), failed(run()[2])]
        found = compare(baseline, run([0, 1]))
        assert (found.exit_code, found.missing) == (0, ())
        assert f"Failed in A, not in B: {baseline[2].cell.id}." in shown.notes(found)

    @pytest.mark.parametrize(
        "other",
        [
            {"id": "pytorch-native-resnet18-finetune-tuned-s0", "variant": "tuned"},
            {"id": "keras-native-vgg16-finetune-s0", "backend": "keras"},
            {"profile": "cpu"},
        ],
    )
    def test_what_only_one_run_has_is_no_pair(self, run, other):
        extra = cell(run([0])[0], **other)
        found = compare(run(), [*run(), extra])
        assert found.candidate_only == (extra.cell.id,)
        with pytest.raises(UsageError, match="no cell is in both"):
            compare(run(), [extra])

    def test_another_image_size_under_the_same_name_is_another_cell(self, run):
        """As where a version of the code gave the profile another one."""
        assert compare(sized(run(), 48), sized(run(), 48)).tested == 5
        with pytest.raises(UsageError, match="no cell is in both"):
            compare(sized(run(), 48), sized(run(), 64))

    def test_a_cell_that_failed_before_it_had_a_size_is_that_of_its_run(self, run):
        baseline = sized(run(), 48)
        found = compare(baseline, [*baseline[:2], failed(baseline[2])])
        assert [one.cell for one in found.failed] == [baseline[2].cell.id]
        assert len(compare(baseline, [failed(record) for record in baseline]).failed) == 3

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            ("a", "a"),
            ("ab", "a and b"),
            ("abc", "a, b and c"),
            ("abcd", "a, b, c and 1 more"),
            ("abcdef", "a, b, c and 3 more"),
        ],
    )
    def test_a_line_names_three(self, names, told):
        assert first_few(list(names)) == told

    def test_names_say_no_more_than_it_takes(self, run, matched_record):
        native = run([0])
        assert [pair.name for pair in pair_up(native, native, ("a", "b")).pairs] == ["pytorch finetune"]
        tuned = variant_of(native[0], "tuned", "bfloat16")
        both = [*native, tuned]
        assert [pair.name for pair in pair_up(both, both, ("a", "b")).pairs] == [
            "pytorch finetune",
            "pytorch finetune tuned",
        ]
        both = [matched_record, *native]
        assert [pair.name for pair in pair_up(both, both, ("a", "b")).pairs] == [
            "pytorch matched finetune",
            "pytorch native finetune",
        ]

    def test_other_data_are_refused_with_the_way_out(self, run):
        data = msgspec.structs.replace(run()[0].cell.data, name="hotdog", sha256="1" * 64)
        with pytest.raises(
            UsageError, match=r"not the same, sketch \(d+\) and hotdog \(1+\); run both"
        ) as caught:
            compare(run(), [cell(record, data=data) for record in run()])
        assert "\n" not in str(caught.value) and "--data" in str(caught.value)

    def test_nothing_in_common_is_refused_with_what_there_is(self, run):
        other = [cell(record, id=f"keras-x-s{record.cell.seed}", backend="keras") for record in run(range(5))]
        with pytest.raises(UsageError, match=r"keras-x-s2 \(smoke\) and 2 more; run the same") as caught:
            compare(run(), other)
        assert "\n" not in str(caught.value)


OTHER_MACHINES = [
    {"cpu": "Another processor"},
    {"cores": 4},
    {"threads": 1},
    {"ram_bytes": 30 * 2**30},
    {"gpu": "NVIDIA H100, 550.54"},
]


class TestMachines:
    @pytest.mark.parametrize("other", OTHER_MACHINES, ids=lambda one: next(iter(one)))
    def test_speeds_of_another_machine_are_compared_for_who_asks_for_it_only(self, run, other):
        candidate = [environment(record, **other) for record in run(slower=2.0)]
        found = compare(run(), candidate)
        assert {row(found, metric).reason for metric in SPEEDS} == {"another machine"}
        assert row(found, "accuracy").verdict == "no difference shown"
        assert found.exit_code == 0
        (told,) = [note for note in shown.notes(found) if "were not compared: another machine" in note]
        assert "--across-machines" in told and "->" in told
        asked = compare(run(), candidate, across_machines=True)
        assert row(asked, "training").verdict == "worse"
        assert any("may be the machine's" in note for note in shown.notes(asked))

    def test_one_cell_from_elsewhere_is_enough(self, run):
        candidate = run()
        candidate[2] = environment(candidate[2], cores=4)
        assert row(compare(run(), candidate), "training").reason == "another machine"

    def test_a_cell_that_does_not_say_where_it_ran_may_be_from_anywhere(self, run):
        candidate = [msgspec.structs.replace(record, environment=None) for record in run()]
        assert foreign(pair_up(run(), candidate, ("a", "b")).pairs[0])
        assert row(compare(run(), candidate), "training").reason == "another machine"

    def test_some_mebibytes_and_a_driver_make_no_other_machine(self, run):
        one, two = (
            environment(run()[0], ram_bytes=24 * 2**30 - less, gpu=gpu).environment
            for less, gpu in ((0, "NVIDIA H100, 550.54"), (9 * 2**20, "NVIDIA H100, 560.12"))
        )
        assert one is not None and two is not None
        assert machine_of(one) == machine_of(two)
        assert machine_of(one).gpu == "NVIDIA H100"


class TestChanges:
    def told(self, baseline: list[Record], candidate: list[Record]) -> list[str]:
        return shown.changes(compare(baseline, candidate))

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"packages": {"torch": "2.9.1"}}, ["torch: 2.9.0 -> 2.9.1"]),
            ({"packages": {"torch": "2.9.0", "numpy": "2"}}, ["numpy: none -> 2"]),
            ({"git_commit": "f" * 40, "git_dirty": True}, [f"commit: 0123456789 -> {'f' * 10} with changes"]),
            ({"code_sha256": "9" * 64}, [f"code's sha256: {'c' * 12} -> {'9' * 12}"]),
            ({"variables": {"OMP_NUM_THREADS": "1"}}, ["OMP_NUM_THREADS: none -> 1"]),
            ({"python": "3.12.1"}, ["python: 3.11.7 -> 3.12.1"]),
            ({"affinity": (0, 1)}, ["processors: none -> 0, 1"]),
            ({"load_average": 9.0}, []),
        ],
    )
    def test_what_differs_in_the_environment_is_said(self, run, fields, told):
        assert self.told(run(), [environment(record, **fields) for record in run()]) == told

    def test_settings_are_compared_leaf_by_leaf(self, run):
        baseline, candidate = (
            [
                msgspec.structs.replace(record, settings={"batch_norm": {"epsilon": value, "layers": 20}})
                for record in run()
            ]
            for value in (1e-5, 1e-3)
        )
        assert self.told(baseline, candidate) == ["setting batch_norm epsilon: 0.00001 -> 0.001"]
        with_null = [
            msgspec.structs.replace(one, settings={**one.settings, "tf32": None}) for one in baseline
        ]
        assert self.told(baseline, with_null) == []

    def test_bytes_that_trained_otherwise_are_seen(self, matched_record):
        """In the last epoch alone, too."""
        other = msgspec.structs.replace(matched_record, batches_sha256=("b" * 64, "b" * 64, "a" * 64))
        (told,) = self.told([matched_record], [other])
        assert told.startswith("batches of seed 0: ")

    def test_a_seed_that_one_run_has_alone_is_no_change(self, matched_record):
        more = cell(matched_record, id="pytorch-matched-resnet18-finetune-s1", seed=1)
        assert self.told([matched_record], [matched_record, more]) == []

    def test_it_is_said_where_unless_everywhere(self, run):
        keras = [
            cell(record, id=f"keras-native-vgg16-finetune-s{record.cell.seed}", backend="keras")
            for record in run()
        ]
        newer = [environment(record, packages={"torch": "2.9.1"}) for record in run()]
        assert self.told(run() + keras, newer + keras) == ["torch: 2.9.0 -> 2.9.1 (PyTorch)"]
        tuned = [variant_of(record, "tuned", seed=record.cell.seed) for record in run()]
        assert self.told(run() + tuned + keras, newer + tuned + keras) == [
            "torch: 2.9.0 -> 2.9.1 (pytorch finetune)"
        ]

    def test_several_values_in_one_run_are_all_told(self, run):
        mixed = run()
        mixed[1] = environment(mixed[1], python="3.12.1")
        (change,) = changes_of(pair_up(run(), mixed, ("a", "b")).pairs)
        assert (change.what, change.before, change.after) == ("python", "3.11.7", "3.11.7 or 3.12.1")
