from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import record


def test_the_schema_file_is_the_code_s():
    assert record.SCHEMA_FILE.read_bytes() == record.json_schema(), (
        "regenerate it: python -m benchmarks schema > benchmarks/harness/record.schema.json"
    )


@pytest.mark.parametrize("which", ["ok_record", "failed_record"])
def test_a_record_is_valid_by_the_schema_and_returns_as_it_was(tmp_path, request, which):
    value = request.getfixturevalue(which)
    path = record.write(tmp_path, value)
    assert path.name == f"{value.cell.id}.json"
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(record.SCHEMA_FILE.read_bytes()))
    assert record.read(path) == value


def test_the_schema_refuses_what_the_reader_refuses(tmp_path, ok_record):
    broken = json.loads(record.to_json(ok_record))
    broken["status"] = "fine"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json.loads(record.SCHEMA_FILE.read_bytes()))
    (tmp_path / "x.json").write_text(json.dumps(broken))
    with pytest.raises(record.RecordError, match="status"):
        record.read(tmp_path / "x.json")


def test_the_error_s_class_is_called_class(failed_record):
    assert json.loads(record.to_json(failed_record))["error"]["class"] == "WeightsError"


def test_another_schema_version_is_refused(tmp_path, ok_record):
    content = json.loads(record.to_json(ok_record))
    content["schema_version"] = 99
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(record.RecordError, match="schema_version"):
        record.read(tmp_path / "x.json")


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_bytes_are_a_record_or_an_error_of_ours(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(content)
    with pytest.raises(record.RecordError) as caught:
        record.read(path)
    assert "\n" not in str(caught.value)


def test_writing_leaves_the_old_record_when_it_cannot_finish(tmp_path, monkeypatch, ok_record, failed_record):
    record.write(tmp_path, ok_record)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(record.RecordError, match=r"No space left on device.*--resume"):
        record.write(tmp_path, failed_record)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ok_record.cell.id}.json"]
    assert record.read_all(tmp_path) == [ok_record]
