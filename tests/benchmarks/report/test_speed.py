"""Default and tuned side by side."""

from __future__ import annotations

import math

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.report import markdown
from benchmarks.report.sections import speed
from benchmarks.report.sections.speed import Cost, break_even
from benchmarks.report.sections.variants import variants
from tests.benchmarks.report.documents import rows_of
from tests.benchmarks.report.samples import NOISY, variant_of


class TestBreakEven:
    @pytest.mark.parametrize(
        ("variant", "default", "epochs"),
        [
            ((30.0, 8.0), (10.0, 10.0), 10.0),  # 20 s more, 2 s saved in each epoch
            ((11.0, 6.0), (10.0, 10.0), 0.25),
            ((10.0, 9.0), (10.0, 10.0), 0.0),
            ((5.0, 9.0), (10.0, 10.0), 0.0),
            ((30.0, 10.0), (10.0, 10.0), math.inf),
            ((30.0, 12.0), (10.0, 10.0), math.inf),
            ((5.0, 12.0), (10.0, 10.0), math.inf),
        ],
    )
    def test_known_answers(self, variant, default, epochs):
        own, others = (Cost(compilation=one[0], epoch=one[1]) for one in (variant, default))
        assert break_even(own, others) == epochs

    def test_an_epoch_is_its_images_over_the_rate_of_whole_epochs(self, three_variants):
        """400 images: 4 s by default, 3.2 s tuned, which compiles 2.4 s longer: 3 epochs."""
        default, tuned, halved = variants(three_variants)
        assert speed.pays_after(tuned) == pytest.approx(3.0)
        assert speed.pays_after(halved) == math.inf
        assert speed.pays_after(default) == math.inf

    @pytest.mark.parametrize(
        ("compile_seconds", "end_to_end", "said"),
        [(2.65, 125.0, "3 epochs"), (0.75, 125.0, "1 epoch"), (0.25, 125.0, "at once"), (9.0, 99.0, "never")],
    )
    def test_it_is_said_in_whole_epochs(self, measured_record, compile_seconds, end_to_end, said):
        tuned = variant_of(
            measured_record, compile_seconds=compile_seconds, end_to_end_images_per_second=end_to_end
        )
        assert [row["pays after"] for row in rows_of(speed.blocks([measured_record, tuned]))] == ["", said]

    def test_without_compilation_there_is_none(self, ok_record):
        rows = variants([ok_record, variant_of(ok_record, train_images_per_second=256.0)])
        assert speed.pays_after(rows[1]) is None


class TestTimesDefault:
    def test_each_backend_has_its_own_default(self, three_variants):
        other = [
            msgspec.structs.replace(record, cell=msgspec.structs.replace(record.cell, backend="keras"))
            for record in (three_variants[0], variant_of(three_variants[0], train_images_per_second=64.0))
        ]
        rows = rows_of(speed.speed_table(variants([*three_variants, *other])))
        assert [(row["backend"], row["precision"], row["x default"]) for row in rows] == [
            ("Keras (TensorFlow)", "float32", ""),
            ("Keras (TensorFlow)", "float32", "0.50"),
            ("PyTorch", "float32", ""),
            ("PyTorch", "float32", "1.25"),
            ("PyTorch", "bfloat16", "2.00"),
        ]

    def test_over_seeds_it_is_the_mean_of_the_ratios(self, measured_record):
        """Ratios 1.5, 3 and 2, whose geometric mean is the cube root of 9."""
        rates = [(100.0, 150.0), (50.0, 150.0), (200.0, 400.0)]
        records = [
            variant_of(measured_record, variant, seed=seed, train_images_per_second=pair[place])
            for seed, pair in enumerate(rates)
            for place, variant in enumerate(("default", "tuned"))
        ]
        _, tuned = variants(records)
        assert speed.times_default(tuned) == pytest.approx(9 ** (1 / 3))
        row = rows_of(speed.speed_table(variants(records)))[1]
        assert (row["seeds"], row["train images/s"], row["x default"]) == ("3", "208.0", "2.08")

    def test_a_seed_that_one_side_lacks_is_left_out(self, measured_record):
        records = [
            measured_record,
            variant_of(measured_record, train_images_per_second=256.0),
            variant_of(measured_record, seed=1, train_images_per_second=1e6),
        ]
        assert speed.times_default(variants(records)[1]) == 2.0

    def test_without_a_default_it_is_blank(self, measured_record):
        rows = variants([variant_of(measured_record)])
        assert speed.times_default(rows[0]) is None
        assert "x default" not in speed.speed_table(rows).headings

    def test_another_image_size_is_no_default_of_it(self, measured_record):
        tuned = variant_of(measured_record, image_size=96)
        assert [speed.times_default(row) for row in variants([measured_record, tuned])] == [1.0, None]


class TestTable:
    def test_accuracy_stands_beside_speed(self, three_variants):
        rows = rows_of(speed.speed_table(variants(three_variants)))
        assert [row["test accuracy"] for row in rows] == ["0.750"] * 3
        accuracy = msgspec.structs.replace(three_variants[0].accuracy, test=0.5)
        other = msgspec.structs.replace(variant_of(three_variants[0], "default", seed=1), accuracy=accuracy)
        row = rows_of(speed.speed_table(variants([three_variants[0], other])))[0]
        assert row["test accuracy"] == "0.625 (0.500 to 0.750)"

    def test_the_other_figures(self, measured_record):
        row = rows_of(speed.speed_table(variants([measured_record])))[0]
        assert row["train images/s"] == "128.0" and row["inference images/s"] == "512.0"
        assert row["end-to-end images/s"] == "100.0" and row["utilisation"] == "80 %"
        assert row["peak RSS"] == "1.00 GiB" and row["compile s"] == "0.25"
        assert row["page faults/image"] == "100" and "in inference" not in row

    def test_what_is_not_steady_or_noisy_is_marked(self, three_variants):
        rates = [row["train images/s"] for row in rows_of(speed.speed_table(variants(three_variants)))]
        assert rates == ["128.0", "160.0", "~256.0 noisy"]

    def test_a_record_without_the_new_figures_has_its_row(self, ok_record):
        made = speed.blocks([ok_record])
        assert rows_of(made)[0]["train images/s"] == "128.0"
        text = markdown.blocks(made)
        assert "utilisation" not in text and "pays after" not in text and "disturbed" not in text

    def test_what_is_shown_is_explained(self, three_variants, ok_record):
        everything = speed.reading([*three_variants, variant_of(three_variants[0], "default", seed=1)])
        assert all(meaning in everything for meaning in speed.COLUMNS.values())
        assert [heading for heading, text in speed.COLUMNS.items() if text in speed.reading([ok_record])] == [
            "end-to-end images/s"
        ]

    def test_what_made_a_rate_steady_is_named(self, measured_record, ok_record):
        assert "Steady: medians of two windows." in speed.blocks([measured_record])
        assert "Steady" not in markdown.blocks(speed.blocks([ok_record]))

    def test_nothing_timed_is_no_section(self, failed_record):
        assert speed.blocks([failed_record]) == ()

    def test_what_was_not_timed_is_named(self, measured_record):
        other = msgspec.structs.replace(variant_of(measured_record, seed=1), throughput=None)
        assert f"Not timed: {other.cell.id}." in speed.blocks([measured_record, other])
        assert "Not timed" not in markdown.blocks(speed.blocks([measured_record]))

    @pytest.mark.parametrize("text", ["a|b", "<script>x</script>", "a\n\n# b", "`code`", "[x](javascript:y)"])
    def test_nothing_in_a_record_can_break_it(self, measured_record, text):
        conditions = msgspec.structs.replace(NOISY, noisy=(text,))
        cell = msgspec.structs.replace(measured_record.cell, id=text, architecture=text, backend=text)
        throughput = msgspec.structs.replace(measured_record.throughput, conditions=conditions)
        hostile = msgspec.structs.replace(measured_record, cell=cell, throughput=throughput)
        untimed = msgspec.structs.replace(hostile, throughput=None)
        made = markdown.blocks(speed.blocks([hostile, untimed]))
        assert "<" not in made and "](" not in made and "`" not in made and "\n#" not in made
        for block in made.split("\n\n"):
            bars = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(bars) == 1


class TestDisturbances:
    def test_noisy_cells_are_listed_with_reasons_and_repetitions(self, three_variants):
        said, table = speed.disturbances(three_variants)
        assert said == "Noisy cells: 1. Timings that were given up and repeated: 2."
        (row,) = rows_of(table)
        assert row["cell"] == "pytorch-matched-resnet18-finetune-tuned-bfloat16-s0"
        busy = "other processes kept 0.90 of 2 cores busy"
        assert row["while its figures were taken"] == f"training: {busy}"
        assert (row["repeated"], row["since before"]) == ("2", busy)

    def test_what_was_quiet_when_repeated_is_not_noisy(self, three_variants):
        disturbed = three_variants[1].throughput.disturbed[:1]
        said, table = speed.disturbances([variant_of(three_variants[0], disturbed=disturbed)])
        assert said == "Noisy cells: 0. Timings that were given up and repeated: 1."
        assert rows_of(table)[0]["while its figures were taken"] == "quiet at last"

    def test_quiet_cells_are_said_to_be(self, measured_record, ok_record):
        assert speed.disturbances([measured_record, ok_record]) == (
            "No timing was disturbed by other work on the machine, and none had to be repeated.",
        )
        assert speed.disturbances([ok_record]) == ()
