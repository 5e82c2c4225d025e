from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.harness.record import Failure, Record
from benchmarks.report import merge, statistics
from benchmarks.report.markdown_table import table
from benchmarks.report.sections import environment, equality, results
from tests.benchmarks.report.documents import report_of, rows_of
from tests.benchmarks.report.samples import variant_of


class TestWilson:
    @pytest.mark.parametrize(
        ("correct", "images", "low", "high"),
        [
            # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3: Wilson without correction
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ],
    )
    def test_published_examples(self, correct, images, low, high):
        interval = statistics.wilson(correct, images)
        assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def other_backend(matched_record: Record) -> Record:
    cell = msgspec.structs.replace(
        matched_record.cell, id="keras-matched-resnet18-finetune-s0", backend="keras"
    )
    return msgspec.structs.replace(matched_record, cell=cell)


class TestTables:
    def test_records_from_before_speed_was_taken_apart_have_their_report(self, ok_record, matched_record):
        text = report_of([ok_record, matched_record, other_backend(matched_record)])
        assert "## Speed" in text
        assert not [title for title in ("## Parts", "## Latency", "## Curves") if title in text]
        assert not [
            word for word in ("utilisation |", "pays after |", "noisy |", "plots/parts") if word in text
        ]

    def test_what_was_not_measured_on_a_gpu_is_said(self, ok_record):
        assert "nothing on a GPU" in report_of([ok_record])
        cell = msgspec.structs.replace(ok_record.cell, device="cuda")
        text = report_of([ok_record, msgspec.structs.replace(ok_record, cell=cell)])
        assert "nothing on a GPU" not in text

    def test_a_device_is_named_where_it_is_not_the_processor(self, ok_record):
        cell = msgspec.structs.replace(ok_record.cell, device="cuda")
        both = [ok_record, msgspec.structs.replace(ok_record, cell=cell)]
        assert [row["device"] for row in rows_of(results.results_table(both))] == ["cpu", "cuda"]
        assert "device" not in results.results_table([ok_record]).headings

    def test_curves_alone_are_a_report(self, curves):
        assert "plots/curves-matched-resnet18-threads.svg" in report_of([], [curves()])

    def test_a_failed_cell_has_its_row_and_its_reason(self, ok_record, failed_record):
        text = report_of([ok_record, failed_record])
        assert "1 of 2 cells ok" in text
        assert "| failed " in text
        assert "WeightsError: no tensor 'block1_conv1.weight'" in text

    def test_backends_that_saw_other_bytes_are_named(self, matched_record):
        other = other_backend(matched_record)
        assert "the same in all 2 backends" in equality.equality([matched_record, other])
        shifted = msgspec.structs.replace(other, batches_sha256=("0" * 64,) * 3)
        assert "not the same batches**: pytorch-matched-resnet18-finetune-s0, keras-" in equality.equality(
            [matched_record, shifted]
        )
        assert "One backend only" in equality.equality([matched_record])

    def test_a_backend_that_stopped_earlier_saw_no_others(self, matched_record):
        other = other_backend(matched_record)
        shorter = msgspec.structs.replace(
            other, curve=other.curve[:-1], batches_sha256=other.batches_sha256[:-1]
        )
        assert shorter.batches_sha256
        assert "the same in all 2 backends" in equality.equality([matched_record, shorter])

    def test_first_epochs_are_set_side_by_side(self, matched_record):
        other = other_backend(matched_record)
        first = msgspec.structs.replace(other.curve[0], train_loss=1.02)
        other = msgspec.structs.replace(other, curve=(first, *other.curve[1:]))
        (row,) = rows_of(equality.first_epochs_table([matched_record, other]))
        assert (row["Keras (TensorFlow)"], row["PyTorch"]) == ("1.020000", "1.000000")
        assert row["relative spread"] == "2e-02"

    def test_a_gate_that_failed_is_in_the_table(self, matched_record):
        gate = msgspec.structs.replace(matched_record.gate, passed=False, gradient_error=None)
        (row,) = rows_of(equality.parity_table([msgspec.structs.replace(matched_record, gate=gate)]))
        assert (row["gradients (float64)"], row["gate"]) == ("not finite", "failed")

    def test_a_rate_that_was_not_steady_is_marked(self, ok_record):
        throughput = msgspec.structs.replace(ok_record.throughput, steady=False)
        shown = results.results_table([msgspec.structs.replace(ok_record, throughput=throughput)])
        assert rows_of(shown)[0]["train images/s"] == "~128.0"

    def test_a_rate_of_a_machine_with_other_work_is_marked(self, three_variants):
        rates = [row["train images/s"] for row in rows_of(results.results_table(three_variants))]
        assert rates == ["128.0", "160.0", "~256.0 noisy"]

    @pytest.mark.parametrize(
        "make",
        [results.results_table, lambda some: results.overview(some)[1], environment.environment_table],
    )
    def test_variants_of_a_cell_are_told_apart(self, three_variants, make):
        rows = rows_of(make(three_variants))
        assert [(row["variant"], row["precision"]) for row in rows] == [
            ("default", "float32"),
            ("tuned", "float32"),
            ("tuned", "bfloat16"),
        ]
        assert "variant" not in make(three_variants[:1]).headings

    def test_backends_stay_as_they_come(self, three_variants):
        other = other_backend(three_variants[0])
        rows = rows_of(results.results_table([other, *three_variants, variant_of(other)]))
        assert [row["backend"] for row in rows] == ["Keras (TensorFlow)"] * 2 + ["PyTorch"] * 3

    def test_the_gate_of_each_variant_has_its_row(self, three_variants):
        gate = msgspec.structs.replace(three_variants[1].gate, logit_error=7e-3)
        rows = rows_of(equality.parity_table([three_variants[0], msgspec.structs.replace(
            three_variants[1], gate=gate)]))  # fmt: skip
        assert [(row["precision"], row["logits (the row's precision)"]) for row in rows] == [
            ("float32", "5e-07"),
            ("bfloat16", "7e-03"),
        ]

    def test_first_epochs_are_those_of_one_variant(self, three_variants):
        others = [other_backend(record) for record in three_variants]
        rows = rows_of(equality.first_epochs_table([*three_variants, *others]))
        assert sorted((row["variant"], row["precision"]) for row in rows) == [
            ("default", "float32"),
            ("tuned", "bfloat16"),
            ("tuned", "float32"),
        ]

    def test_the_epoch_is_the_median_without_the_first(self, ok_record):
        assert rows_of(results.results_table([ok_record]))[0]["epoch s"] == "4.0"

    @pytest.mark.parametrize("text", ["a|b", "<script>x</script>", "a\n\n# b", "`code`", "[x](javascript:y)"])
    def test_nothing_in_a_record_can_inject_markup(self, ok_record, text):
        cell = msgspec.structs.replace(ok_record.cell, id=text, architecture=text)
        failed = msgspec.structs.replace(
            ok_record, cell=cell, status="failed", error=Failure(type="X", message=text)
        )
        made = table(results.results_table([failed])) + "\n" + table(results.failures_table([failed]))
        assert "<" not in made and "](" not in made and "`" not in made and "\n#" not in made
        first, *rest = table(results.failures_table([failed])).splitlines()
        assert all(line.replace("\\|", "").count("|") == first.count("|") for line in rest)

    def test_no_records_is_said(self):
        assert "No records yet" in report_of([])


class TestMerge:
    def part(self, path: Path, name: str) -> None:
        path.write_text(
            json.dumps({"machine_info": {"node": "x"}, "benchmarks": [{"name": name}], "version": "5"})
        )

    def test_all_environments_end_in_one_file(self, tmp_path):
        self.part(tmp_path / "gluon.json", "a")
        self.part(tmp_path / "pytorch.json", "b")
        (tmp_path / "run.json").write_text("{}")
        for _ in range(2):  # a second merge does not swallow the first's file
            target = merge.merge(tmp_path)
        assert target == tmp_path / "benchmark.json"
        merged = json.loads(target.read_text())
        assert [entry["name"] for entry in merged["benchmarks"]] == ["a", "b"]
        assert merged["machine_info"] == {"node": "x"}

    def test_nothing_to_merge(self, tmp_path):
        assert merge.merge(tmp_path) is None

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "keras.json").write_text('{"benchmarks": [')
        with pytest.raises(merge.MergeError, match=r"keras\.json: cannot be read"):
            merge.merge(tmp_path)
