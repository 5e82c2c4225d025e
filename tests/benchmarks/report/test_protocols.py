"""The documents' figures beside ours, and their claims put to a test."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from backends.optimizers import SGD
from benchmarks.harness.record import Accuracy, Extraction, PhaseTraining, Record, Training
from benchmarks.report.sections import protocols
from benchmarks.report.training_time import training_seconds
from tests.benchmarks.report.documents import report_of, rows_of

OURS = "our test accuracy [95 % over images], PyTorch"


def cell_of(record: Record, recipe: str, *, seed: int = 0, **fields) -> Record:
    accuracy = fields.get("accuracy")
    data = msgspec.structs.replace(record.cell.data, test=accuracy.images) if accuracy else record.cell.data
    cell = msgspec.structs.replace(
        record.cell,
        id=f"pytorch-{recipe}-s{seed}",
        backend="pytorch",
        recipe=recipe,
        track="matched",
        seed=seed,
        data=data,
    )
    return msgspec.structs.replace(record, cell=cell, **fields)


def answers(*correct: int) -> Accuracy:
    return Accuracy(test=sum(correct) / len(correct), correct=correct, images=len(correct), epoch=2)


class TestTable:
    def test_the_published_figure_stands_beside_ours(self, ok_record):
        (row,) = rows_of(protocols.protocols_table([cell_of(ok_record, "matched-resnet18-finetune")]))
        assert ".940 (d2l PyTorch ResNet-18" in row["published"]
        assert row[OURS] == "0.750 [0.686, 0.805]"
        assert "network A's weights unless" in row["why they differ"]

    def test_what_nobody_reports_is_said_to_be_none(self, ok_record):
        (row,) = rows_of(protocols.protocols_table([cell_of(ok_record, "003-vgg16-momentum-0.9")]))
        assert row["published"] == "none"

    def test_training_time_counts_epochs_and_extraction_but_no_evaluation(self, ok_record):
        stores = tuple(
            Extraction(split=split, key="k", images=1, width=1, bytes=4, extracted=1, seconds=seconds)
            for split, seconds in (("train", 10.0), ("test", 5.0))
        )
        record = msgspec.structs.replace(ok_record, extractions=stores, fit_seconds=1.0)
        assert training_seconds(record) == 8 + 4 + 4 + 10 + 1

    def test_shortened_trainings_say_so(self, ok_record):
        def phase(epochs: int, asked: int, on: str) -> PhaseTraining:
            return PhaseTraining(
                epochs=epochs, recipe_epochs=asked, on=on, first_trained="head",
                optimizer=SGD(learning_rate=0.1),
            )  # fmt: skip

        first, second = phase(1, 1, "features"), phase(2, 25, "images")
        curve = tuple(
            msgspec.structs.replace(row, phase=1 if row.epoch == 1 else 2) for row in ok_record.curve
        )
        training = Training(
            epochs=2, batch_size=32, image_size=64, optimizer=second.optimizer, phases=(first, second),
            validation_images=80,
        )  # fmt: skip
        record = msgspec.structs.replace(ok_record, curve=curve, training=training, accuracy=answers(1, 0))
        assert protocols.epochs_text(record) == "1 on features + 2 of 25; kept 2"

    def test_variants_of_a_cell_are_told_apart(self, three_variants):
        rows = rows_of(protocols.protocols_table(three_variants))
        assert [(row["variant"], row["precision"]) for row in rows] == [
            ("default", "float32"),
            ("tuned", "float32"),
            ("tuned", "bfloat16"),
        ]
        assert "precision" not in protocols.protocols_table(three_variants[:1]).headings

    def test_seeds_share_a_row(self, ok_record):
        records = [cell_of(ok_record, "matched-resnet18-finetune", seed=seed) for seed in range(3)]
        (row,) = rows_of(protocols.protocols_table(records))
        assert row["seeds"] == "3" and row[OURS.replace("images", "seeds")] == "0.750 [0.750, 0.750]"

    def test_a_failed_cell_keeps_its_row(self, failed_record):
        (row,) = rows_of(protocols.protocols_table([cell_of(failed_record, "003-fc7")]))
        assert row["our test accuracy, PyTorch"] == "failed"

    def test_backends_stand_side_by_side(self, ok_record, failed_record):
        def of(record: Record, backend: str) -> Record:
            record = cell_of(record, "matched-resnet18-finetune")
            cell = msgspec.structs.replace(
                record.cell, id=record.cell.id.replace("pytorch", backend), backend=backend
            )
            return msgspec.structs.replace(record, cell=cell)

        records = [of(ok_record, "pytorch"), of(ok_record, "gluon")]
        (row,) = rows_of(protocols.protocols_table(records))
        assert row[OURS] == row[OURS.replace("PyTorch", "MXNet Gluon")] == "0.750 [0.686, 0.805]"

    def test_batches_smaller_than_the_recipe_s_are_a_reason(self, ok_record):
        record = cell_of(ok_record, "matched-resnet18-finetune")
        training = Training(
            epochs=2, batch_size=32, recipe_batch_size=128, image_size=64, optimizer=SGD(learning_rate=0.1)
        )
        (row,) = rows_of(protocols.protocols_table([msgspec.structs.replace(record, training=training)]))
        assert row["why they differ"].endswith("; batches of 32 at the rates meant for 128")

    def test_what_several_runs_have_is_told_apart(self, ok_record):
        record = cell_of(ok_record, "matched-resnet18-finetune")
        cells = [
            msgspec.structs.replace(record.cell, id=f"{run}/{record.cell.id}") for run in ("one", "other")
        ]
        records = [msgspec.structs.replace(record, cell=cell) for cell in cells]
        assert [row["run"] for row in rows_of(protocols.protocols_table(records))] == ["one", "other"]


class TestClaims:
    def pair(
        self, record: Record, here: tuple[int, ...], there: tuple[int, ...], *, seed: int = 0
    ) -> list[Record]:
        slow = tuple(msgspec.structs.replace(row, train_seconds=8.0) for row in record.curve)
        fast = tuple(msgspec.structs.replace(row, train_seconds=2.0) for row in record.curve)
        return [
            cell_of(record, "004-finetune", seed=seed, accuracy=answers(*there), curve=slow),
            cell_of(record, "004-frozen", seed=seed, accuracy=answers(*here), curve=fast),
        ]

    def test_a_difference_that_is_significant_is_said(self, ok_record):
        text = protocols.claims(self.pair(ok_record, (1,) * 20, (1,) * 10 + (0,) * 10))
        assert "the fixed extractor is more accurate, and faster" in text
        assert "accuracy **004-frozen higher** (1.000 against 0.500, +50.0 [" in text
        assert "1 seed, p = 0.002)" in text
        assert "Training takes 0.25 times as long in all, 0.25 times per epoch (median seeds" in text

    def test_the_opposite_is_said(self, ok_record):
        text = protocols.claims(self.pair(ok_record, (1,) * 10 + (0,) * 10, (1,) * 20))
        assert "accuracy **004-finetune higher**" in text

    def test_what_is_not_significant_is_not_shown(self, ok_record):
        text = protocols.claims(self.pair(ok_record, (1, 1, 0, 1), (1, 0, 1, 0)))
        assert "accuracy **no difference shown (could have shown " in text

    def test_seeds_are_tested_together(self, ok_record):
        records = [
            record
            for seed in range(3)
            for record in self.pair(ok_record, (1,) * 20, (1,) * 10 + (0,) * 10, seed=seed)
        ]
        text = protocols.claims(records)
        assert text.count("004 says") == 1 and "3 seeds, p = " in text

    def test_a_verdict_names_the_variant_it_is_of(self, ok_record):
        tuned = [
            msgspec.structs.replace(
                record, cell=msgspec.structs.replace(record.cell, variant="tuned", precision="bfloat16")
            )
            for record in self.pair(ok_record, (1, 1), (1, 0))
        ]
        assert "in PyTorch (tuned bfloat16), `004-frozen`" in protocols.claims(tuned)
        assert "in PyTorch, `004-frozen`" in protocols.claims(self.pair(ok_record, (1, 1), (1, 0)))

    def test_both_sides_are_needed_from_one_backend(self, ok_record):
        first, second = self.pair(ok_record, (1, 1), (1, 0))
        assert protocols.claims([second]) == ""
        other = msgspec.structs.replace(first, cell=msgspec.structs.replace(first.cell, backend="keras"))
        assert protocols.claims([other, second]) == ""

    def test_the_report_has_them(self, ok_record):
        text = report_of(self.pair(ok_record, (1, 1), (1, 0)))
        assert "## The documents' figures and ours" in text
        assert "004 says: the fixed extractor" in text
        assert "### 004-frozen" in text
