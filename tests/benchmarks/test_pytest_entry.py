"""`pytest benchmarks`, as a user types it, with whatever framework this environment has."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import backends
from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.report.check.evidence import gather
from benchmarks.report.check.rules import judge

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]
needs_framework = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


def bench(*options: str, environment: str | None = None) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key != "BENCHMARKS_ENVIRONMENT"}
    if environment:
        variables["BENCHMARKS_ENVIRONMENT"] = environment
    return subprocess.run(
        [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", *options],
        cwd=PROJECT, capture_output=True, text=True, timeout=600, env=variables,
    )  # fmt: skip


@needs_framework
class TestRuns:
    @pytest.mark.reference
    def test_scratch_runs_is_reported_and_resumes(self, data_folder, tmp_path):
        run = tmp_path / "a" / "run"
        options = (
            "--data",
            str(data_folder),
            "--protocol",
            "scratch",
            "--track",
            "native",
            "--image-size",
            "32",
            "--run",
            str(run),
        )
        answer = bench(*options)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        records = record.read_all(run / "records")
        assert [found.status for found in records] == ["ok"] * len(INSTALLED)
        names = "-".join(sorted(card.name for card in INSTALLED))
        written = json.loads((run / f"{names}.json").read_text())
        timed = ["test_accuracy", "test_latency", *["test_parts"] * 7, *["test_throughput"] * 2]
        names = sorted(entry["name"].partition("[")[0] for entry in written["benchmarks"])
        assert names == sorted(timed * len(INSTALLED))
        accuracies = {entry["extra_info"].get("test_accuracy") for entry in written["benchmarks"]}
        assert {found.accuracy.test for found in records} <= accuracies
        for entry in written["benchmarks"]:
            least = entry["stats"]["min"]  # what a stage adds may be lost in noise
            assert least >= 0 if entry["name"].startswith("test_parts") else least > 0

        again = bench(*options)
        assert again.returncode == 2
        assert "already has" in again.stdout + again.stderr and "--resume" in again.stdout + again.stderr

        before = {path: path.stat().st_mtime_ns for path in (run / "records").iterdir()}
        resumed = bench(*options, "--resume")
        assert resumed.returncode == 0
        assert {path: path.stat().st_mtime_ns for path in (run / "records").iterdir()} == before

        mixed = bench(*options, "--resume", "--weights", "none")
        assert mixed.returncode == 2 and "made with other weights" in mixed.stdout + mixed.stderr

    def test_a_matched_cell_passes_its_gate_before_it_is_trained(self, data_folder, tmp_path):
        options = ("--data", str(data_folder), "--track", "matched", "--arch", "resnet18")
        size = ("--image-size", "32", "--no-timing")
        answer = bench(*options, *size, "--protocol", "scratch", "--run", str(tmp_path / "run"))
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "gate of" in answer.stdout
        records = record.read_all(tmp_path / "run" / "records")
        assert len(records) == len(INSTALLED)
        for found in records:
            assert found.gate is not None and found.gate.passed
            assert len(found.batches_sha256) == len(found.curve) == 5
        verdict = judge(gather(tmp_path / "run"))
        # Its few images are in both splits, and the project may have changes that are not committed.
        assert {rule for rule, _ in verdict.violations} <= {"leak", "environment"}

    @pytest.mark.reference
    def test_a_failed_cell_is_a_record_and_a_failed_test_and_the_others_run(self, data_folder, tmp_path):
        weights = tmp_path / "w.safetensors"
        weights.write_bytes(b"no weights")
        run = tmp_path / "run"
        answer = bench(
            "--data",
            str(data_folder),
            "--protocol",
            "frozen,scratch",
            "--track",
            "native",
            "--weights",
            str(weights),
            "--image-size",
            "32",
            "--no-timing",
            "--run",
            str(run),
        )
        assert answer.returncode == 1
        found = {(item.cell.protocol, item.status) for item in record.read_all(run / "records")}
        assert found == {("frozen", "failed"), ("scratch", "ok")}
        assert "not a whole safetensors file" in answer.stdout

    def test_the_official_weights_without_a_network_are_a_failed_record(
        self, data_folder, tmp_path, monkeypatch
    ):
        if os.environ.get("BENCHMARKS_ONLINE"):
            pytest.skip("BENCHMARKS_ONLINE is set: the download would succeed")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        for variable in ("TORCH_HOME", "MXNET_HOME", "KERAS_HOME"):
            monkeypatch.setenv(variable, str(tmp_path / variable))
        run = tmp_path / "run"
        answer = bench(
            "--data", str(data_folder), "--track", "native", "--protocol", "frozen", "--weights", "imagenet",
            "--run", str(run),
        )  # fmt: skip
        assert answer.returncode == 1
        for found in record.read_all(run / "records"):
            assert found.status == "failed" and found.error is not None
            assert found.error.type == "WeightsError", found.error
            assert "--weights source" in found.error.message and "\n" not in found.error.message


@pytest.mark.reference
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--backend", "jax"), "no backend 'jax'"),
        (("--recipe", "nothing"), "no recipe 'nothing'"),
        (("--data", "/nowhere"), "data /nowhere: no such folder or zip"),
        (("--weights", "/nowhere.safetensors"), "no such file"),
        (("--profile", "huge"), "no profile 'huge'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options, complaint, tmp_path):
    answer = bench(*options, "--run", str(tmp_path / "run"))
    assert answer.returncode == 2
    said = answer.stdout + answer.stderr
    assert complaint in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


@needs_framework
def test_a_gpu_that_is_not_there_is_one_line_and_exit_code_2(tmp_path):
    answer = bench("--device", "cuda", "--run", str(tmp_path / "run"))
    if "no device" not in answer.stdout + answer.stderr:
        pytest.skip("this machine has a GPU")
    assert answer.returncode == 2 and "this framework sees: cpu" in answer.stdout + answer.stderr


def test_a_tox_environment_takes_its_own_part_of_the_options(tmp_path):
    """`--backend keras` handed to the environment of pytorch asks it for nothing, which is no error."""
    answer = bench("--backend", "keras", "--run", str(tmp_path / "run"), environment="bench-pytorch")
    assert answer.returncode == 0
    assert "none of the cells asked for is one of bench-pytorch's" in answer.stdout + answer.stderr


@needs_framework
def test_network_a_that_cannot_be_trained_is_a_failed_record(data_folder, tmp_path, monkeypatch):
    """A cache that cannot be written to: nothing to train it on, but every cell has its row."""
    blocked = tmp_path / "cache" / "data"
    blocked.parent.mkdir()
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("BENCHMARKS_CACHE", str(blocked.parent))
    options = ("--data", str(data_folder), "--track", "native", "--protocol", "frozen")
    answer = bench(*options, "--run", str(tmp_path / "run"))
    assert answer.returncode == 1, answer.stdout
    found = record.read_all(tmp_path / "run" / "records")
    assert len(found) == len(INSTALLED)
    for item in found:
        assert item.status == "failed" and item.error is not None
        assert str(blocked) in item.error.message
