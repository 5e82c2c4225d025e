from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.report import contents, illustrations
from benchmarks.report.sections import learning
from benchmarks.report.sources import Sources
from benchmarks.report.verdicts import findings, glance, summary
from benchmarks.report.verdicts.words import Choices
from tests.benchmarks.report.samples import NOISY
from tests.benchmarks.report.verdicts.conftest import column

RATE = "images/s in whole epochs"


def test_a_row_has_all_seeds_and_variants_of_a_backend_with_a_protocol(cell):
    records = [cell(seed=seed, rate=rate, wrong=range(20)) for seed, rate in ((0, 100.0), (1, 400.0))]
    records += [cell(variant="tuned", rate=500.0), cell("gluon", rate=50.0)]
    (table,) = glance.blocks(records)
    assert column(table, "backend") == ["MXNet Gluon", "PyTorch"]
    assert column(table, "seeds") == ["1", "2"]
    assert column(table, f"{RATE}, default") == ["45.0", "180.0"]
    assert column(table, f"{RATE}, tuned") == ["", "450.0"]
    assert column(table, "s of training, default") == ["30", "30"]
    assert column(table, "test accuracy [95 % over seeds or, of one seed, images]")[1].startswith("0.900 [")


def test_what_is_the_same_in_all_rows_goes_unsaid(cell):
    (table,) = glance.blocks([cell(), cell("gluon")])
    assert table.headings[:3] == ("protocol", "backend", "seeds") and RATE in table.headings
    (table,) = glance.blocks([cell(), cell("gluon", track="native")])
    assert table.headings[0] == "track"


def test_unsound_timings_count_only_where_there_is_no_other(cell):
    (table,) = glance.blocks([cell(rate=100.0), cell(seed=1, rate=300.0, conditions=NOISY)])
    assert column(table, RATE) == ["90.0"]
    (table,) = glance.blocks([cell(rate=300.0, steady=False)])
    assert column(table, RATE) == ["~270.0"]


def test_a_rate_that_is_none_breaks_nothing(cell):
    (table,) = glance.blocks([cell(rate=0.0), cell("gluon", rate=float("inf")), cell("keras")])
    assert column(table, RATE) == ["", "90.0", ""]


def test_without_timing_there_is_no_word_about_speed(cell):
    untimed = [msgspec.structs.replace(cell(backend), throughput=None) for backend in ("pytorch", "gluon")]
    (table,) = glance.blocks(untimed)
    assert not any("training" in heading or "images/s" in heading for heading in table.headings)
    (table,) = glance.blocks([untimed[0], cell("gluon")])
    assert column(table, "s of training") == ["30", ""]
    found = findings(untimed, Choices(), {}).headlines
    assert not {"Cost", "Speed"} & {headline.topic for headline in found}
    assert learning.times(untimed) == () and len(learning.curves(untimed)) == 1
    assert not [path for path in illustrations.draw(untimed, ()) if "time-" in path]


def test_nothing_of_nothing():
    assert glance.blocks([]) == ()


def test_of_short_trainings_for_speed_alone_no_accuracy_is_told(cell):
    rates = {"pytorch": 100.0, "gluon": 50.0}
    made = [cell(backend, seed=seed, rate=rate) for backend, rate in rates.items() for seed in range(3)]
    data = msgspec.structs.replace(made[0].cell.data, name="photographs")
    speeds = [msgspec.structs.replace(one.cell, profile="speed", data=data) for one in made]
    brief = [msgspec.structs.replace(one, cell=told) for one, told in zip(made, speeds, strict=True)]
    (table,) = glance.blocks(brief)
    assert table.headings == ("protocol", "backend", "seeds", RATE)
    assert {"Accuracy", "Cost"} <= {one.topic for one in findings(made, Choices(), {}).headlines}
    found = findings(brief, Choices(), {})
    topics = {one.topic: " ".join(one.sentences) for one in found.headlines}
    assert "Speed" in topics and not {"Accuracy", "Cost"} & set(topics)
    assert "no word about accuracy" in topics["Scope"]
    drawn = illustrations.draw(brief, ())
    assert drawn and not [
        path for path in drawn for word in ("accuracy", "learning", "time-") if word in path
    ]
    read = Sources(records=tuple(brief), files={}, curves=(), images={})
    document = contents.document(read, title="Speeds", choices=Choices())
    titles = {section.title for section in document.sections}
    assert "Speed ratios" in titles
    assert not {"Accuracy", "Learning curves", "Time and cost to accuracy"} & titles
    assert summary.blocks([("brief", brief)], Choices()) == ()
