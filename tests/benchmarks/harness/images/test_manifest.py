"""`images.json`: written with a run's plan, and read back."""

from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

import backends
from benchmarks.harness import plan
from benchmarks.harness.images import data, duplicates, manifest
from benchmarks.harness.images.manifest import Manifest, ManifestError
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.running.progress import Display
from benchmarks.harness.running.run import Run
from benchmarks.harness.running.session import Session

pytestmark = pytest.mark.once


@pytest.fixture
def made(data_folder) -> Manifest:
    images = data.open_data(str(data_folder), PROFILES["full"])
    return manifest.of(images, duplicates.audit(images))


class TestFile:
    def test_it_comes_back_as_it_was(self, made, tmp_path):
        manifest.write(tmp_path, made)
        assert manifest.read(tmp_path) == made
        assert made.test.files[:2] == ("blue/0.jpg", "blue/1.jpg") and made.classes == ("blue", "red")
        assert made.train.labels == (0,) * 10 + (1,) * 10
        assert len(made.audit.duplicates) == 10 and "difference hash" in made.audit.method

    def test_a_run_without_one_has_none(self, tmp_path):
        assert manifest.read(tmp_path) is None

    def test_the_same_is_left_alone_and_another_is_replaced(self, made, tmp_path):
        manifest.write(tmp_path, made)
        path = tmp_path / manifest.FILE
        os.utime(path, ns=(1, 1))
        manifest.write(tmp_path, made)
        assert path.stat().st_mtime_ns == 1
        manifest.write(tmp_path, msgspec.structs.replace(made, name="another"))
        assert path.stat().st_mtime_ns != 1 and manifest.read(tmp_path).name == "another"

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"", "Input data was truncated"),
            (b"{}", "missing required field `name`"),
            (b'{"schema_version": 2}', "schema_version"),
            (b'{"x": ' + b"[" * 100_000, "recursion"),
        ],
    )
    def test_a_damaged_one_is_one_line_with_the_way_out(self, tmp_path, content, complaint):
        (tmp_path / manifest.FILE).write_bytes(content)
        with pytest.raises(ManifestError, match=rf"images\.json: .*{complaint}.*--resume") as raised:
            manifest.read(tmp_path)
        assert "\n" not in str(raised.value)

    def test_what_the_disk_refuses_is_one_line(self, made, tmp_path):
        (tmp_path / "run").write_text("a file where the folder should be")
        with pytest.raises(ManifestError, match=r"images\.json: cannot be written"):
            manifest.write(tmp_path / "run", made)


class TestSession:
    """Whoever takes up a plan writes the manifest, before any cell has run."""

    def take_up(
        self, folder: Path, data_folder: Path, *, resume: bool = False, weights: str | None = None
    ) -> None:
        options = plan.parse(
            {
                "backend": ["pytorch"], "recipe": ["native-resnet18-scratch"], "data": str(data_folder),
                "run": str(folder), "resume": resume, "weights": weights,
            }
        )  # fmt: skip
        cells = plan.plan(options, tuple(backends.known().values()))
        Session(options, cells, Display(Console(file=io.StringIO()))).close()

    def test_a_run_has_its_manifest(self, tmp_path, data_folder):
        folder = tmp_path / "run"
        self.take_up(folder, data_folder)
        found = manifest.read(folder)
        assert found is not None and len(found.test.files) == 10
        planned = msgspec.json.decode((folder / "plan.json").read_bytes())
        assert found.sha256 == planned["identity"]["data"]

    def test_a_plan_which_may_be_published_names_no_folder_of_this_machine(self, tmp_path, data_folder):
        weights = tmp_path / "mine.safetensors"
        weights.write_bytes(b"")
        self.take_up(tmp_path / "run", data_folder, weights=str(weights))
        text = (tmp_path / "run" / "plan.json").read_text()
        assert '"weights":"mine.safetensors"' in text and str(tmp_path) not in text

    def test_a_damaged_one_is_mended_by_the_next_session(self, tmp_path, data_folder):
        folder = tmp_path / "run"
        self.take_up(folder, data_folder)
        (folder / manifest.FILE).write_bytes(b"{")
        self.take_up(folder, data_folder, resume=True)
        assert manifest.read(folder) is not None

    def test_scratch_paper_gets_that_of_its_new_data(self, tmp_path, data_folder, monkeypatch):
        folder = tmp_path / "run"
        monkeypatch.setattr("benchmarks.harness.running.run.SCRATCH_RUN", Run(str(folder)).name)
        self.take_up(folder, data_folder)
        (data_folder / "test/red/4.jpg").unlink()
        self.take_up(folder, data_folder)
        found = manifest.read(folder)
        assert found is not None and "red/4.jpg" in found.train.files and "red/4.jpg" not in found.test.files
