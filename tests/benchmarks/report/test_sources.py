"""Several runs read as one, and the command that reports on them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")

from benchmarks.__main__ import main
from benchmarks.harness import record
from benchmarks.harness.record import Record, RecordError
from benchmarks.report import contents, sources
from benchmarks.report.sections import results
from benchmarks.report.sections.variants import variants
from tests.benchmarks.report.documents import report_of, rows_of, sources_of
from tests.benchmarks.report.samples import variant_of

pytestmark = pytest.mark.once


def run_of(folder: Path, *records: Record) -> Path:
    (folder / "records").mkdir(parents=True)
    for one in records:
        record.write(folder / "records", one)
    return folder


@pytest.fixture
def two_runs(tmp_path, measured_record) -> tuple[Path, Path]:
    """The second has one cell that the first has too, and one of its own."""
    faster = variant_of(measured_record, "default", train_images_per_second=200.0)
    return (
        run_of(tmp_path / "before", measured_record),
        run_of(tmp_path / "after", faster, variant_of(measured_record, seed=1)),
    )


class TestGather:
    def test_one_run_s_records_keep_their_names(self, two_runs, measured_record):
        found = sources.gather(two_runs[:1])
        assert found.records == (measured_record,)
        assert found.link(measured_record.cell.id, two_runs[0]) == f"records/{measured_record.cell.id}.json"

    def test_a_cell_that_two_runs_have_is_told_apart(self, two_runs):
        found = sources.gather(two_runs)
        assert [one.cell.id.split("/")[0] for one in found.records] == ["before", "after", "after"]
        assert len({one.cell.id for one in found.records}) == 3
        rows = rows_of(results.results_table(found.records))
        assert [(row["run"], row["train images/s"]) for row in rows] == [
            ("before", "128.0"),
            ("after", "200.0"),
            ("after", "128.0"),
        ]

    def test_speeds_of_two_runs_are_not_mixed(self, two_runs):
        assert [len(row.cells) for row in variants(sources.gather(two_runs).records)] == [1, 1, 1]

    def test_runs_without_a_cell_in_common_keep_their_names(self, tmp_path, ok_record, matched_record):
        found = sources.gather([run_of(tmp_path / "a", ok_record), run_of(tmp_path / "b", matched_record)])
        assert found.records == (ok_record, matched_record)

    def test_a_run_that_is_named_twice_is_read_once(self, two_runs, measured_record):
        assert sources.gather([two_runs[0], two_runs[0]]).records == (measured_record,)

    def test_a_link_leads_from_the_report_to_the_file(self, two_runs, tmp_path):
        found = sources.gather(two_runs)
        report = tmp_path / "else where" / "report"
        report.mkdir(parents=True)
        for one in found.records:
            link = found.link(one.cell.id, report)
            assert (
                link.startswith("../../") and (report / link).resolve() == found.files[one.cell.id].resolve()
            )

    def test_a_link_is_an_address(self, ok_record):
        identity = "a b](x)#?%.json"
        files = {identity: Path("records") / identity}
        found = msgspec.structs.replace(sources_of([ok_record]), files=files)
        assert found.link(identity, Path()) == "records/a%20b%5D%28x%29%23%3F%25.json"

    def test_runs_of_one_name_are_told_apart_by_their_folders(self, tmp_path, ok_record):
        folders = [run_of(tmp_path / parent / "x", ok_record) for parent in ("one", "two")]
        assert [one.cell.id.rpartition("/")[0] for one in sources.gather(folders).records] == [
            "one/x",
            "two/x",
        ]
        assert sources.title(folders) == "2 runs: one/x, two/x"
        assert sources.title(folders[:1]) == "Run x"

    def test_other_data_is_told_apart_and_listed(self, ok_record):
        data = msgspec.structs.replace(ok_record.cell.data, name="photographs", sha256="f" * 64)
        cell = msgspec.structs.replace(ok_record.cell, id="other", data=data, profile="cpu")
        text = report_of([ok_record, msgspec.structs.replace(ok_record, cell=cell)])
        assert "- Data: sketch (400" in text and "- Data: photographs (400" in text
        assert "| photographs, cpu |" in text

    def test_a_damaged_record_is_named(self, two_runs):
        (path,) = (two_runs[0] / "records").glob("*.json")
        path.write_text("{")
        with pytest.raises(RecordError, match=path.name):
            sources.gather(two_runs)


def command(monkeypatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks", "report", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "records"
    }


class TestCommand:
    def test_a_run_has_its_report_in_its_folder(self, two_runs, monkeypatch, capsys):
        assert command(monkeypatch, str(two_runs[0])) == 0
        made = files(two_runs[0])
        assert {"report.md", "report.html", "plots/parts.svg", "plots/accuracy.svg"} <= set(made)
        assert made["report.md"].startswith(b"# Run before\n\n*matched*: ")
        assert b"\n- **Scope** " in made["report.md"]
        said = capsys.readouterr().out
        assert said.splitlines()[-2:] == [str(two_runs[0] / name) for name in ("report.md", "report.html")]
        assert "Parity " in said and "| backend" not in said

    def test_the_same_records_give_the_same_files(self, two_runs, monkeypatch):
        command(monkeypatch, str(two_runs[0]))
        before = files(two_runs[0])
        command(monkeypatch, str(two_runs[0]))
        assert files(two_runs[0]) == before

    def test_several_runs_make_one_report(self, two_runs, tmp_path, monkeypatch):
        both = tmp_path / "both"
        assert command(monkeypatch, *map(str, two_runs), "--output", str(both)) == 0
        made = files(both)
        assert b"# 2 runs: before, after" in made["report.md"]
        assert b"](../before/records/" in made["report.md"] and b"](../after/records/" in made["report.md"]
        assert b'<a href="../after/records/' in made["report.html"]
        assert not files(two_runs[0]) and not files(two_runs[1])

    def test_several_runs_need_a_folder(self, two_runs, monkeypatch, capsys):
        assert command(monkeypatch, *map(str, two_runs)) == 2
        assert "--output FOLDER" in capsys.readouterr().err

    def test_failed_cells_are_told(self, tmp_path, ok_record, failed_record, monkeypatch, capsys):
        command(monkeypatch, str(run_of(tmp_path / "x", ok_record, failed_record)))
        said = " ".join(capsys.readouterr().out.split())
        assert "failed keras-native-vgg16-frozen-s0: WeightsError: no tensor 'block1_conv1.weight'" in said

    def test_choices_are_the_user_s(self, two_runs, monkeypatch):
        seen = []
        findings = contents.verdicts.findings
        monkeypatch.setattr(
            contents.verdicts, "findings", lambda *words: (seen.append(words[1]), findings(*words))[1]
        )
        command(
            monkeypatch, str(two_runs[0]), "--margin", ".03", "--threshold", ".7", "--threshold", ".8",
            "--price", "0.4", "--seeds", "3",
        )  # fmt: skip
        (choices,) = seen
        assert (choices.margin, choices.thresholds, choices.price) == (0.03, (0.7, 0.8), 0.4)
