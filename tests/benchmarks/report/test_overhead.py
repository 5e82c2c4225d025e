from __future__ import annotations

import json

import pytest

from benchmarks.harness.record import RecordError
from benchmarks.report.markdown_table import table
from benchmarks.report.sections.overhead import overhead_table, tuning_table

pytestmark = pytest.mark.once
pytest.importorskip("itables", reason="the report's libraries are not in the frameworks' environments")


def entry(**more):
    info = {
        "backend": "keras", "against": "leanest", "variant": "default", "precision": "float32",
        "image_size": 96, "ratio": 1.0, "ratio_interval": [0.98, 1.01], "pairs": 40, "peak_rss_ratio": 1.02,
    }  # fmt: skip
    return {"name": "x", "extra_info": info | more}


@pytest.fixture
def folder(tmp_path):
    slow = entry(backend="pytorch", against="textbook", ratio=1.5, ratio_interval=None, pairs=3)
    del slow["extra_info"]["peak_rss_ratio"]
    tried = entry(against="default", tuning="xla", ratio=0.8, first_step_seconds=6.0, logit_difference=2e-6)
    files = {"b": [slow, {"name": "another", "extra_info": {}}], "a": [entry(), tried]}
    for name, entries in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"benchmarks": entries}))
    return tmp_path


def test_the_harness_against_others(folder):
    assert table(overhead_table(folder)).splitlines() == [
        "| against  | backend            | variant          | px | ratio | 95 %           | pairs | target"
        " | peak memory |",
        "| -------- | ------------------ | ---------------- | -: | ----: | -------------- | ----: | -----:"
        " | ----------: |",
        "| leanest  | Keras (TensorFlow) | default, float32 | 96 | 1.000 | [0.980, 1.010] |    40 |   0.97"
        " |      x 1.02 |",
        "| textbook | PyTorch            | default, float32 | 96 | 1.500 |                |     3 |   1.40"
        " |             |",
    ]


def test_what_is_switched_on(folder):
    *_, row = table(tuning_table(folder)).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["Keras (TensorFlow)", "xla", "96", "0.800", "[0.980, 1.010]", "6.0", "2e-06"]


def test_a_folder_without_comparisons(tmp_path):
    with pytest.raises(RecordError, match="no comparison"):
        overhead_table(tmp_path)


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(RecordError, match=r"other\.json"):
        overhead_table(tmp_path)
