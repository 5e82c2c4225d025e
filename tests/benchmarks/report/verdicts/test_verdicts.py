from __future__ import annotations

import msgspec
import pytest

from benchmarks.harness.figures import Latency, Memory
from benchmarks.harness.record import Extraction
from benchmarks.report.groups import groups
from benchmarks.report.statistics import mcnemar
from benchmarks.report.training_time import after_each_epoch, training_seconds
from benchmarks.report.verdicts import Choices, accuracy, circumstances, cost, disagreement, findings, speed
from benchmarks.report.verdicts.words import Outcome, in_points, p_text, verdict
from tests.benchmarks.report.samples import NOISY
from tests.benchmarks.report.verdicts.conftest import column, table

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("estimate", "p", "equivalence_p", "words"),
    [
        (0.1, 0.01, 0.9, "A higher"),
        (-0.1, 0.01, 0.9, "B higher"),
        (0.001, 0.5, 0.001, "equivalent within 2 points"),
        (0.01, 0.01, 0.001, "A higher, equivalent within 2 points"),
        (0.05, 0.05, 0.05, "no difference shown (could have shown 1.3 points)"),
    ],
)
def test_there_are_three_verdicts(estimate, p, equivalence_p, words):
    tested = Outcome(estimate=estimate, p=p, equivalence_p=equivalence_p)
    assert verdict(tested, "A", "B", margin=in_points(0.02), least="1.3 points") == words


def test_how_numbers_are_told():
    assert (in_points(0.01), in_points(0.02), in_points(0.005)) == ("1 point", "2 points", "0.5 points")
    assert [p_text(p) for p in (0.0002, 0.0123, 0.5)] == ["< 0.001", "0.012", "0.50"]


class TestAccuracy:
    def test_equal_networks_are_equivalent(self, three_frameworks):
        found = accuracy.compare("backends", groups(three_frameworks), 0.02)
        assert [row.verdict for row in found[:3]] == ["equivalent within 2 points"] * 3
        assert all(row.difference.estimate == 0 for row in found[:3])

    def test_what_varies_shows_nothing_and_says_what_it_could_have_shown(self, three_frameworks):
        found = accuracy.compare("backends", groups(three_frameworks), 0.02)
        assert found[3].verdict.startswith("no difference shown (could have shown ")
        assert found[3].least > abs(found[3].difference.estimate)

    def test_pretrained_beats_scratch(self, three_frameworks):
        found = accuracy.compare("protocols", groups(three_frameworks), 0.02)
        assert [row.verdict for row in found] == ["finetune higher"] * 3

    def test_p_values_are_corrected_for_the_number_of_tests(self, cell):
        """Images that one side alone has wrong: 9, alone p = .0039, and of three tests .0117."""
        records = [cell(), cell("gluon", wrong=range(9)), cell("keras")]
        found = accuracy.compare("backends", groups(records), 0.02)
        assert mcnemar(9, 0) == pytest.approx(2 / 2**9)
        first, *_ = sorted(row.tested.p for row in found)
        assert first == pytest.approx(3 * 2 / 2**9)

    def test_only_seeds_that_both_have(self, cell):
        records = [cell(seed=seed) for seed in (0, 1, 2)] + [cell("gluon", seed=seed) for seed in (1, 2, 3)]
        (row,) = accuracy.compare("backends", groups(records), 0.02)
        assert row.seeds == (1, 2) and row.difference.seeds == 2

    def test_what_one_seed_could_have_shown_is_what_mcnemars_test_would_have(self, cell):
        """Identical predictions: of one test 6 images on one side (p = .031), of three 7 (p = .0156)."""
        (row,) = accuracy.compare("backends", groups([cell(), cell("gluon")]), 0.02)
        assert row.least == 6 / 200
        three = accuracy.compare("backends", groups([cell(), cell("gluon"), cell("keras")]), 0.02)
        assert [row.least for row in three] == [7 / 200] * 3

    def test_too_few_seeds_to_show_anything(self, cell):
        records = [cell(seed=0, wrong=range(80)), cell(seed=1)]
        records += [cell("gluon", seed=0), cell("gluon", seed=1, wrong=range(80))]
        records += [cell("keras", seed=0), cell("keras", seed=1)]
        verdicts = [row.verdict for row in accuracy.compare("backends", groups(records), 0.02)]
        assert "no difference shown (could have shown nothing: too few seeds)" in verdicts

    def test_no_seed_in_common(self, cell):
        assert accuracy.compare("backends", groups([cell(), cell("gluon", seed=1)]), 0.02) == []

    def test_groups_over_seeds(self, three_frameworks):
        found = accuracy.groups_table(groups(three_frameworks))
        assert column(found, "mean accuracy")[0] == "0.945"  # 10, 11 and 12 of 200 wrong
        assert column(found, "standard deviation")[0] == "0.005"
        assert column(found, "95 % interval")[0] == "[0.933, 0.957]"  # 4.303 x .005 / sqrt(3)
        assert column(found, "lowest to highest")[0] == "0.940 to 0.950"

    def test_a_single_seed_has_wilsons_interval(self, cell):
        found = accuracy.groups_table(groups([cell(wrong=range(50))]))
        assert column(found, "95 % interval") == ["[0.686, 0.805]"]
        assert column(found, "interval of") == ["this seed, over images"]
        assert "standard deviation" not in found.headings


class TestSpeed:
    def test_ratio_of_alternating_cells(self, three_frameworks):
        found, left = speed.compare("backends", speed.TRAINING, groups(three_frameworks), 0.05)
        first = found[1]
        assert first.pair.names == ("MXNet Gluon", "PyTorch") and not left
        assert first.ratio.estimate == pytest.approx(1 / 3) and first.verdict == "PyTorch higher"

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"sitting": None}, "3 seeds not run in alternation"),
            ({"sitting": "another"}, "3 seeds not run in alternation"),
            ({"steady": False}, "3 seeds not steady or disturbed"),
            ({"conditions": NOISY}, "3 seeds not steady or disturbed"),
            ({"inference_conditions": NOISY}, "3 seeds not steady or disturbed"),
            ({"epoch_conditions": NOISY}, "3 seeds not steady or disturbed"),
            ({"inference_steady": False}, "3 seeds not steady or disturbed"),
            ({"rate": 0.0}, "3 seeds not steady or disturbed"),
        ],
    )
    def test_nobody_is_called_faster_without_alternation(self, cell, change, reason):
        records = [cell(seed=seed) for seed in range(3)]
        records += [cell("gluon", seed=seed, **{"rate": 50.0, **change}) for seed in range(3)]
        for metric in speed.METRICS:
            found, (left,) = speed.compare("backends", metric, groups(records), 0.05)
            assert not found and left.reason == reason

    def test_one_alternation_is_no_interval(self, cell):
        found, (left,) = speed.compare(
            "backends", speed.TRAINING, groups([cell(), cell("gluon", rate=50.0)]), 0.05
        )
        assert not found and left.reason == "one alternation only"

    def test_noise_that_covers_a_difference(self, cell):
        records = [cell(seed=seed, rate=rate) for seed, rate in enumerate((100.0, 130.0, 90.0))]
        records += [cell("gluon", seed=seed, rate=rate) for seed, rate in enumerate((95.0, 100.0, 105.0))]
        (row,), _ = speed.compare("backends", speed.TRAINING, groups(records), 0.05)
        assert row.verdict == f"no difference shown (could have shown {row.least:.2f} x)"
        assert row.least > row.ratio.estimate

    def test_the_same_speed(self, cell):
        records = [cell(seed=seed, rate=rate) for seed, rate in enumerate((100.0, 101.0, 99.0))]
        records += [cell("gluon", seed=seed, rate=rate) for seed, rate in enumerate((100.2, 100.9, 99.1))]
        (row,), _ = speed.compare("backends", speed.TRAINING, groups(records), 0.05)
        assert row.verdict == "equivalent within 5 %"

    def test_tuned_against_default(self, cell):
        records = [cell(seed=seed, rate=100.0 + seed) for seed in range(3)]
        records += [cell(seed=seed, rate=151.0 + seed, variant="tuned") for seed in range(3)]
        (row,), _ = speed.compare("variants", speed.TRAINING, groups(records), 0.05)
        assert row.verdict == "tuned higher"

    def test_section_has_a_table_for_each_metric(self, three_frameworks):
        section = speed.section(speed.families(groups(three_frameworks), 0.05))
        assert [block for block in section.sections[0].blocks if isinstance(block, str)] == [
            "Training steps:", "Whole epochs, input included:", "Inference:",
        ]  # fmt: skip


class TestCost:
    def test_seconds_until_the_threshold(self, cell):
        record = cell(wrong=range(20))  # .7, .9, .9
        assert cost.seconds_to(0.7, record) == 10.0
        assert cost.seconds_to(0.9, record) == 20.0
        assert cost.seconds_to(0.91, record) is None

    def test_stored_features_are_paid_for_first(self, cell):
        extraction = Extraction(
            split="train", key="k", images=400, width=512, bytes=1, extracted=400, seconds=5.0
        )
        record = msgspec.structs.replace(cell(wrong=range(20)), extractions=(extraction,))
        assert cost.seconds_to(0.9, record) == 25.0
        assert after_each_epoch(record) == (15.0, 25.0, 35.0) and training_seconds(record) == 35.0

    def test_share_median_and_price(self, cell):
        records = [
            cell(seed=0, wrong=range(20), seconds=10.0),
            cell(seed=1, wrong=range(20), seconds=30.0),
            cell(seed=2, wrong=range(30)),
        ]
        (row,) = cost.reached(groups(records), Choices(thresholds=(0.9,), price=1.8))
        assert (row.share, row.median, row.seconds) == ("2 of 3", 40.0, (20.0, 60.0))
        assert row.cost == pytest.approx(0.02)
        found = cost.cost_table([row])
        assert column(found, "seconds") == ["40 (20 to 60)"] and column(found, "cost") == ["0.0200"]

    def test_a_failed_seed_has_not_reached_it(self, cell):
        failed = msgspec.structs.replace(cell(seed=1), status="failed", accuracy=None)
        (row,) = cost.reached(groups([cell(), failed]), Choices(thresholds=(0.9,)))
        assert row.share == "1 of 2"

    def test_never(self, cell):
        (row,) = cost.reached(groups([cell(wrong=range(100))]), Choices(thresholds=(0.9,), price=1.0))
        found = cost.cost_table([row])
        assert column(found, "seconds") == ["never"] and "cost" not in found.headings

    def test_what_every_backend_reaches_is_suggested(self, cell):
        records = [cell(wrong=range(15)), cell("gluon", wrong=range(33))]  # .925 and .835
        assert cost.suggested(groups(records)) == (0.8,)
        assert cost.suggested([]) == ()
        assert cost.suggested(groups([cell(wrong=range(200))])) == ()


class TestDisagreement:
    def test_names_of_the_images(self, cell):
        records = [cell(seed=0, wrong={3}), cell(seed=1, wrong={3, 7})]
        records += [cell("gluon", seed=0), cell("gluon", seed=1, wrong={7})]
        files = {records[0].cell.data.sha256: tuple(f"hotdog/{place}.jpg" for place in range(200))}
        found = table(disagreement.section(groups(records), files))
        assert column(found, "image") == ["hotdog/3.jpg"]  # the seventh is wrong in both alike
        assert column(found, "right in PyTorch") == ["0 of 2"]
        assert column(found, "right in MXNet Gluon") == ["2 of 2"]

    def test_without_names_images_have_numbers(self, cell):
        found = table(disagreement.section(groups([cell(wrong={3}), cell("gluon")]), {}))
        assert column(found, "image") == ["image 4"]

    def test_the_most_disputed_come_first(self, cell):
        records = [cell(seed=0, wrong=range(30)), cell(seed=1, wrong={29})]
        records += [cell("gluon", seed=0), cell("gluon", seed=1)]
        section = disagreement.section(groups(records), {})
        found = table(section)
        assert column(found, "image")[0] == "image 30" and len(found.rows) == disagreement.MOST
        assert "30 images of 200, in 2 seeds. The 20 most in dispute:" in section.sections[0].blocks

    def test_none(self, cell):
        section = disagreement.section(groups([cell(wrong={1}), cell("gluon", wrong={1})]), {})
        assert section.sections[0].blocks == (
            "None: all 200 test images are right or wrong alike in 1 seed.",
        )


class TestHeadlines:
    def told(self, records, **choices):
        found = findings(records, Choices(**choices), {})
        return {headline.topic: headline.sentences for headline in found.headlines}

    def test_the_first_screen(self, three_frameworks):
        told = self.told(three_frameworks, price=0.36)
        backends, protocols, advice = told["Accuracy"]
        equal, unlike = backends.split("; ", 1)
        assert equal == ("finetune (0.945 in each): equivalent within 2 points between the 3 frameworks")
        assert unlike == (
            "scratch (0.600 to 0.615): no difference shown (could have shown 16.4 points) between the 3"
            " frameworks (3 seeds x 200 test images)."
        )
        assert protocols == (
            "finetune against scratch: higher by 33.0 to 34.5 points in each of the 3 frameworks"
            " (3 seeds x 200 test images)."
        )
        assert advice.startswith("where nothing was shown, 5 seeds (`--seeds 5`) that vary as these do would")
        assert told["Compared"] == ("matched resnet18 on sketch.",)
        assert told["Scope"][0].startswith("a trial, on drawn images and the small profile `smoke`: ")
        finetune, scratch = told["Speed"]
        assert finetune.startswith(
            "finetune: PyTorch trains 135.0 images/s in whole epochs: 3.00 [3.00, 3.00] x"
        )
        assert scratch.startswith("scratch: PyTorch trains ")
        assert told["Cost"] == (
            "seconds of training until test accuracy first reached 0.90, by the quickest protocol:"
            " MXNet Gluon 20 s (finetune; 3 of 3 seeds, 0.0020 at 0.36 an hour),"
            " Keras (TensorFlow) 20 s (finetune; 3 of 3 seeds, 0.0020 at 0.36 an hour), PyTorch 20 s"
            " (finetune; 3 of 3 seeds, 0.0020 at 0.36 an hour) (medians of the seeds, not tested).",
        )
        assert told["Parity"] == (
            "before training each framework computed what the reference computes: in float64 gradients agree"
            " to 2e-13, weights after 5 steps to 3e-12; in float32 logits to 5e-07. 3 of 3 such checks passed"
            " (3 pairs of framework and network).",
        )
        assert told["Not run"][0].startswith("GPU: ")
        assert told["Not run"][1:] == (
            "each framework as its users write it: `--track native`.",
            "frozen: `--protocol frozen`.",
        )

    def test_finetuning_is_compared_with_the_frozen_network(self, cell):
        records = [
            cell(backend, protocol, seed, wrong=range(40) if protocol == "finetune" else ())
            for backend in ("gluon", "pytorch")
            for protocol in ("finetune", "frozen", "last-block")
            for seed in range(3)
        ]
        found = self.told(records)["Accuracy"]
        assert [one for one in found if "against" in one] == [
            "finetune against frozen: lower by 20.0 points in each of the 2 frameworks"
            " (3 seeds x 200 test images)."
        ]

    def test_photographs_of_hot_dogs_that_are_not_the_book_s_are_told(self, ok_record):
        def on(**changed):
            data = msgspec.structs.replace(ok_record.cell.data, **changed)
            return msgspec.structs.replace(ok_record, cell=msgspec.structs.replace(ok_record.cell, data=data))

        record = on(name="mine.zip")
        told = circumstances.not_run([record])
        assert any("book's own photographs" in sentence for sentence in told)
        book, others = on(name="hotdog"), on(name="pets.zip", classes=("cat", "dog"))
        for records in ([record, book], [others], [ok_record]):
            assert not any("book's own" in sentence for sentence in circumstances.not_run(records))

    def test_a_difference_is_told_with_its_interval(self, cell):
        records = [cell(seed=seed, wrong=range(20)) for seed in range(3)]
        records += [cell("gluon", seed=seed, wrong=range(60 + seed)) for seed in range(3)]
        (sentence, *_) = self.told(records)["Accuracy"]
        assert "finetune (0.695 to 0.900): PyTorch higher by 20.5 [" in sentence
        assert sentence.endswith("] points than MXNet Gluon (3 seeds x 200 test images).")

    def test_a_gpu_s_default_is_a_default(self, cell):
        """As README's command for a GPU makes them: two variants of two backends, with scratch."""
        told = self.told(
            [
                cell(backend, protocol, seed, variant=variant, device="cuda", wrong=wrong, rate=rate + seed)
                for backend, rate in (("gluon", 50.0), ("pytorch", 100.0))
                for variant in ("default", "tuned")
                for protocol, wrong in (("finetune", range(5)), ("scratch", range(100)))
                for seed in range(5)
            ],
        )
        assert told["Compared"] == ("matched resnet18 on sketch, cuda.",)
        assert (
            "finetune against scratch: higher by 47.5 points in each of the 2 frameworks"
            in told["Accuracy"][1]
        )
        assert len(told["Accuracy"]) == 2 and "tuned" not in "".join(told["Accuracy"])
        default, _, tuned, last = told["Speed"]
        assert default.startswith("finetune: PyTorch trains 91.8 images/s")
        assert tuned.startswith("tuned, finetune: PyTorch trains ")
        assert last.startswith("tuned, scratch: PyTorch trains ")
        default, tuned = told["Cost"]
        assert default.startswith(
            "seconds of training until test accuracy first reached 0.95, by the quickest"
        )
        assert tuned.startswith("tuned, seconds of training until test accuracy first reached 0.95, by the")

    def test_memory_and_latency_are_those_of_what_trains_the_most(self, cell):
        def measured(backend, protocol, seed, gib, p50):
            record = cell(backend, protocol, seed)
            return msgspec.structs.replace(
                record,
                memory=Memory(peak_rss_bytes=int(gib * 2**30), peak_device_bytes=None),
                throughput=msgspec.structs.replace(
                    record.throughput, latency=Latency(p50=p50, p95=2 * p50, p99=3 * p50, seconds=(p50,))
                ),
            )

        told = self.told(
            [
                measured(backend, protocol, seed, gib + seed * (protocol == "finetune"), p50)
                for backend, gib, p50 in (("gluon", 2.0, 0.05), ("pytorch", 1.0, 0.01))
                for protocol in ("finetune", "frozen")
                for seed in range(3)
            ]
        )
        assert told["Memory"] == (
            "GiB at the process's peak; finetune: MXNet Gluon 3, PyTorch 2 (medians of the seeds, not"
            " tested).",
        )
        assert told["Latency"][0].startswith("ms for one image; finetune: MXNet Gluon 50, PyTorch 10 (")

    def test_memory_of_cells_that_were_not_timed_is_not_told(self, cell):
        records = [
            msgspec.structs.replace(cell(backend, seed=seed), throughput=None)
            for backend in ("gluon", "pytorch")
            for seed in range(3)
        ]
        assert not {"Memory", "Latency"} & set(self.told(records))

    def test_variants_without_a_default_are_not_mixed(self, cell):
        records = [
            cell(backend, seed=seed, variant=variant)
            for backend in ("gluon", "keras", "pytorch")
            for variant in ("tuned", "reproducible")
            for seed in range(5)
        ]
        one, other = self.told(records)["Accuracy"]
        assert one.startswith("tuned, finetune (") and other.startswith("reproducible, finetune (")
        assert "equivalent within 2 points between the 3 frameworks" in one

    def test_means_are_those_of_the_seeds_that_were_compared(self, cell):
        records = [cell("gluon", seed=seed) for seed in range(2)]
        records += [cell(seed=seed, wrong=range(100) if seed == 2 else ()) for seed in range(3)]
        assert "finetune (1.000 in each)" in self.told(records)["Accuracy"][0]

    def test_a_protocol_whose_timing_was_lost_is_not_passed_over(self, cell):
        records = [
            cell(backend, protocol, seed, steady=protocol == "frozen")
            for backend in ("gluon", "pytorch")
            for protocol in ("finetune", "frozen")
            for seed in range(3)
        ]
        (sentence,) = self.told(records)["Speed"]
        assert sentence.startswith("frozen: ")
        assert sentence.endswith("; finetune not compared (3 seeds not steady or disturbed).")
        (sentence,) = self.told([one for one in records if one.cell.protocol == "finetune"])["Speed"]
        assert sentence.startswith("no framework is called faster (3 seeds not steady or disturbed): ")

    def test_a_small_difference_that_was_shown_is_both(self, cell):
        records = [cell(seed=seed, wrong=range(20)) for seed in range(5)]
        records += [cell("gluon", seed=seed, wrong=range(28)) for seed in range(5)]
        (sentence, *_) = self.told(records, margin=0.1)["Accuracy"]
        assert "finetune (0.860 to 0.900): PyTorch higher by 4.0 [" in sentence
        assert " points than MXNet Gluon (equivalent within 10 points) (5 seeds" in sentence

    def test_what_equals_scratch_is_equivalent(self, cell):
        records = [cell(protocol=name, seed=seed) for name in ("finetune", "scratch") for seed in range(5)]
        assert self.told(records)["Accuracy"] == (
            "finetune against scratch: equivalent within 2 points in PyTorch (5 seeds x 200 test images).",
        )

    def test_the_first_screen_tests_no_fewer_than_the_table(self, cell):
        """8 images of 200 that Gluon alone has wrong: p = .0078, of 3 tests .023, of 9 .07."""
        default, tuned = (
            [
                cell(backend, protocol, variant=variant, wrong=range(8) if backend == "gluon" else ())
                for protocol in ("finetune", "frozen", "scratch")
                for backend in ("gluon", "keras", "pytorch")
            ]
            for variant in ("default", "tuned")
        )
        assert "higher" not in self.told(default)["Accuracy"][0]
        assert "Keras (TensorFlow) higher" in self.told(default[:3])["Accuracy"][0]
        assert (
            "Keras (TensorFlow) higher" in self.told(default[:3] + tuned)["Accuracy"][0]
        )  # their own family

    def test_frameworks_that_share_no_seed_are_not_said_to_be_equivalent(self, cell):
        records = [cell(backend, seed=seed) for backend in ("gluon", "pytorch") for seed in (0, 1)]
        records += [cell("keras", seed=0), cell("pytorch", seed=2), cell("gluon", seed=3)]
        assert "between the 3 frameworks" in self.told(records)["Accuracy"][0]
        alone = [record for record in records if record.cell.backend != "keras"] + [cell("keras", seed=2)]
        assert "between MXNet Gluon and PyTorch" in self.told(alone)["Accuracy"][0]
        assert "3 frameworks" not in self.told(alone)["Accuracy"][0]

    def test_differences_that_read_alike_are_told_once(self, cell):
        records = [
            cell(backend, seed=seed, wrong=range(30) if backend == "pytorch" else range(5, 30 + 4 * seed))
            for seed in (0, 1, 2)
            for backend in ("gluon", "keras", "pytorch")
        ]
        advice = self.told(records)["Accuracy"][-1]
        assert "would show a measured difference of" in advice
        assert " to " not in advice.partition("measured difference of")[2]

    def test_one_seed_speaks_of_itself(self, cell):
        assert self.told([cell(), cell("gluon")])["Accuracy"][-1].startswith(
            "one seed speaks of itself alone"
        )

    def test_rates_that_were_not_compared_make_nobody_the_fastest(self, cell):
        records = [cell(seed=seed, rate=100.0 + seed) for seed in range(3)]
        records += [
            cell("gluon", seed=0, rate=400.0, steady=False),
            *(cell("gluon", seed=seed, rate=50.0 + seed) for seed in (1, 2)),
            *(cell("keras", seed=seed, rate=500.0, sitting=None) for seed in range(3)),
        ]
        (sentence,) = self.told(records)["Speed"]
        assert "PyTorch trains 91.3 images/s in whole epochs: 1.9" in sentence
        assert sentence.endswith("; Keras (TensorFlow) not compared (3 seeds not run in alternation).")

    def test_speeds_are_told_of_each_protocol_that_everybody_knows(self, cell):
        records = [
            cell(backend, protocol, seed, variant=variant, rate=rate + seed)
            for backend, rate in (("gluon", 50.0), ("pytorch", 100.0))
            for protocol in ("finetune", "last-block", "frozen")
            for variant in ("default", "tuned")
            for seed in range(3)
        ]
        told = [sentence.partition(": PyTorch trains ")[0] for sentence in self.told(records)["Speed"]]
        assert told == ["finetune", "frozen", "tuned, finetune", "tuned, frozen"]

    def test_native_networks_run_no_race(self, cell):
        records = [cell(seed=seed, track="native") for seed in range(3)]
        records += [cell("gluon", seed=seed, rate=10.0, track="native") for seed in range(3)]
        (sentence,) = self.told(records)["Speed"]
        assert sentence.startswith("no framework is called faster")

    def test_a_failed_gate_is_not_forgotten(self, cell):
        bad = cell(seed=0)
        bad = msgspec.structs.replace(
            bad, gate=msgspec.structs.replace(bad.gate, passed=False, gradient_error=0.5)
        )
        assert self.told([bad, cell(seed=1)])["Parity"] == (
            "1 of 1 checks against the reference failed (PyTorch resnet18): their cells were not trained.",
        )
        failed, passed = self.told([bad, cell("gluon")])["Parity"]
        assert failed.startswith("1 of 2 checks against the reference failed (PyTorch resnet18)")
        assert "gradients agree to 2e-13" in passed and "1 of 2 such checks passed (1 pair " in passed

    def test_a_lucky_seed_is_not_the_quickest(self, cell):
        records = [cell(seed=0, seconds=1.0)]
        records += [cell(seed=seed, wrong=range(100)) for seed in (1, 2, 3)]
        records += [cell(protocol="frozen", seed=seed, seconds=30.0) for seed in range(4)]
        (sentence,) = self.told(records, thresholds=(0.9,))["Cost"]
        assert "PyTorch 60 s (frozen; 4 of 4 seeds)" in sentence

    def test_two_data_sets_are_told_apart(self, cell):
        records = []
        for name, sha256 in (("one", "1" * 64), ("two", "2" * 64)):
            for backend in ("gluon", "pytorch"):
                record = cell(backend)
                data = msgspec.structs.replace(record.cell.data, name=name, sha256=sha256)
                described = msgspec.structs.replace(record.cell, data=data)
                records.append(msgspec.structs.replace(record, cell=described))
        told = self.told(records)
        places = [sentence.split(" (")[0] for sentence in told["Accuracy"][:2]]
        assert places == ["matched resnet18 on one, finetune", "matched resnet18 on two, finetune"]
        assert "Compared" not in told

    def test_one_environment_after_the_other_is_no_race(self, cell):
        records = [cell(seed=seed, sitting=None) for seed in range(3)]
        records += [cell("gluon", seed=seed, rate=10.0, sitting=None) for seed in range(3)]
        (sentence,) = self.told(records)["Speed"]
        assert sentence.startswith("no framework is called faster")

    def test_absent_frameworks_and_failed_cells(self, cell, failed_record):
        told = self.told([cell(), failed_record])
        assert told["Failed"] == ("1 of 2 cells, the reasons stand below: keras-native-vgg16-frozen-s0.",)
        assert any(sentence.startswith("MXNet Gluon: `tox run -m bench`") for sentence in told["Not run"])

    def test_nothing_to_say(self):
        assert findings([], Choices(), {}).headlines == ()
