"""Parts of an epoch, latency, and inference by batch size."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.report.sections import latency, parts
from tests.benchmarks.report.documents import rows_of
from tests.benchmarks.report.samples import variant_of


class TestParts:
    def test_they_are_told_in_milliseconds_and_percent(self, measured_record):
        row = rows_of(parts.blocks([measured_record]))[0]
        assert {name: row[name] for name in ("decode", "forward", "backward", "epoch")} == {
            "decode": "2.000",
            "forward": "2.000",
            "backward": "4.500",
            "epoch": "10.000",
        }
        assert (row["wait"], row["explained"]) == ("5.0 %", "90.0 %")

    def test_what_the_plot_stacks_is_what_explains_the_epoch(self, measured_record):
        ((bar,),) = (panel.bars for panel in parts.panels([measured_record]))
        assert bar.segments == pytest.approx((0.5, 0.5, 2.0, 4.5, 0.25, 1.25))
        assert sum(bar.segments) / bar.epoch == pytest.approx(measured_record.throughput.parts.explained)

    def test_a_part_that_there_is_none_of_is_blank(self, measured_record):
        stored = msgspec.structs.replace(measured_record.throughput.parts, decode=None)
        made = parts.blocks([measured_record, variant_of(measured_record, parts=stored)])
        assert [row["decode"] for row in rows_of(made)] == ["2.000", ""]

    def test_several_seeds_are_their_median(self, measured_record):
        others = [
            variant_of(
                measured_record,
                "default",
                seed=seed,
                parts=msgspec.structs.replace(measured_record.throughput.parts, forward=forward),
            )
            for seed, forward in ((1, 0.003), (2, 0.009))
        ]
        (row,) = rows_of(parts.blocks([measured_record, *others]))
        assert (row["seeds"], row["forward"]) == ("3", "3.000")

    def test_each_network_and_image_size_is_a_panel(self, measured_record):
        larger = variant_of(measured_record, image_size=96)
        tuned = variant_of(measured_record)
        titles = [(panel.title, len(panel.bars)) for panel in parts.panels([measured_record, tuned, larger])]
        assert titles == [("matched resnet18, finetune, 64 px", 2), ("matched resnet18, finetune, 96 px", 1)]

    def test_old_records_have_none(self, ok_record):
        assert parts.blocks([ok_record]) == () and parts.panels([ok_record]) == []


class TestLatency:
    def test_percentiles_are_in_milliseconds(self, measured_record):
        row = rows_of(latency.blocks([measured_record]))[0]
        assert (row["p50"], row["p95"], row["p99"]) == ("4.00", "4.50", "6.00")

    def test_batch_sizes_are_columns(self, measured_record):
        few = measured_record.throughput.inference_by_batch[:1]
        made = latency.blocks([measured_record, variant_of(measured_record, inference_by_batch=few)])
        rows = rows_of(made[2:])
        assert [(row["batch 1"], row["32"]) for row in rows] == [("250.0", "~512.0"), ("250.0", "")]

    def test_one_seed_that_was_not_steady_is_marked(self, measured_record):
        rates = tuple(
            msgspec.structs.replace(rate, images_per_second=2 * rate.images_per_second, steady=True)
            for rate in measured_record.throughput.inference_by_batch
        )
        other = variant_of(measured_record, "default", seed=1, inference_by_batch=rates)
        (row,) = rows_of(latency.blocks([measured_record, other])[2:])
        assert (row["batch 1"], row["32"]) == ("375.0", "~768.0")

    def test_old_records_have_none(self, ok_record):
        assert latency.blocks([ok_record]) == ()
