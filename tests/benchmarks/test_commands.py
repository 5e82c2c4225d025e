"""The commands, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import backends
from backends import weights
from benchmarks.harness import initial, record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.recipe import REFERENCE_BACKEND, all_recipes, recipe_of
from benchmarks.harness.running import runner


def command(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_list_names_every_recipe_for_a_machine():
    answer = command("list", "--json")
    recipes = json.loads(answer.stdout)
    assert [recipe["id"] for recipe in recipes] == [recipe.id for recipe in all_recipes()]
    for recipe in recipes:
        assert {"id", "protocol", "backend", "architecture", "track", "seed_document"} <= set(recipe)


def test_list_names_every_recipe_for_a_person():
    shown = command("list").stdout
    for recipe in all_recipes():
        assert f"{recipe.id} " in shown


def test_list_takes_a_pattern():
    recipes = json.loads(command("list", "003-vgg16-*", "--json").stdout)
    assert {recipe["seed_document"] for recipe in recipes} == {"003"}
    assert len(recipes) > 10
    answer = command("list", "003-vgg16-adm")
    assert answer.returncode == 2
    assert "the nearest of" in answer.stderr and "003-vgg16-adam" in answer.stderr


ITEMS = {
    "000": {"head-then-finetune", "finetune", "frozen", "bottleneck"},
    "001": {"pretrain", "finetune", "scratch", "frozen"},
    "002": {"scratch", "bottleneck", "last-block"},
    "003": {"frozen", "last-block", "classifier"},
    "004": {"finetune", "frozen"},
}
"""What each document describes."""


@pytest.mark.once
@pytest.mark.parametrize("document", ITEMS)
def test_list_names_what_each_document_describes(document):
    recipes = json.loads(command("list", "--json").stdout)
    found = {recipe["protocol"] for recipe in recipes if recipe["seed_document"] == document}
    assert found >= ITEMS[document]


def start_of(tmp_path) -> Path:
    """Random weights of a ResNet-18."""
    path = tmp_path / "start.safetensors"
    spec = recipe_of("matched-resnet18-frozen").model(classes=2, image_size=32)
    weights.write(path, initial.draw(spec, seed=0), weights.Origin(architecture="resnet18"))
    return path


REFERENCE = backends.resolve(REFERENCE_BACKEND)
REPORT_ONLY = "the report's libraries are in the report's environment only"
needs_reference = pytest.mark.skipif(
    runner.interpreter_of(REFERENCE) is None, reason=f"no environment has {REFERENCE.title}"
)


@pytest.mark.once
@needs_reference
class TestStudies:
    def test_advise_answers_a_person_and_a_machine(self, data_folder, tmp_path):
        words = ("advise", "--data", str(data_folder), "--arch", "resnet18", "--image-size", "32")
        start = ("--weights", str(start_of(tmp_path)))
        answer = command(*words, *start)
        assert answer.returncode == 0, answer.stderr
        assert "advice    try " in answer.stdout and "next      python -m benchmarks run" in answer.stdout
        evidence = json.loads(command(*words, *start, "--json").stdout)["evidence"]
        assert evidence["images"] == 20 and evidence["classes"] == ["blue", "red"]

    def test_range_test_leaves_figures_and_a_plot(self, data_folder, tmp_path):
        pytest.importorskip(
            "matplotlib", reason="the report's libraries are in the report's environment only"
        )
        folder = tmp_path / "run"
        answer = command(
            "range-test", "--recipe", "matched-resnet18-frozen", "--data", str(data_folder),
            "--weights", str(start_of(tmp_path)), "--image-size", "32", "--steps", "12", "--run", str(folder),
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        name = "pytorch-matched-resnet18-frozen-32px-s0"
        result = json.loads((folder / "range-tests" / f"{name}.json").read_text())
        assert 5 <= len(result["rates"]) <= 12
        assert (folder / "range-tests" / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert not (folder / "records").exists()

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (("--recipe", "003-*"), "one recipe at a time"),
            (("--recipe", "matched-resnet18-bottleneck"), "for what trains on images"),
            (("--recipe", "003-vgg16", "--lowest", "2", "--highest", "1"), "a range from 2 to 1"),
        ],
    )
    def test_what_cannot_be_tested_is_said(self, words, complaint, data_folder, tmp_path):
        pytest.importorskip(
            "matplotlib", reason="the report's libraries are in the report's environment only"
        )
        start = ("--weights", str(start_of(tmp_path)), "--run", str(tmp_path / "run"))
        answer = command("range-test", *words, "--data", str(data_folder), *start)
        assert answer.returncode == 2
        assert complaint in answer.stderr


@pytest.mark.once
def test_every_command_has_help():
    for words in (
        [],
        ["list"],
        ["data"],
        ["data", "show"],
        ["data", "check"],
        ["advise"],
        ["range-test"],
        ["weights", "convert"],
        ["pretrain"],
        ["report"],
        ["check"],
        ["compare"],
        ["results"],
        ["doctor"],
    ):
        answer = command(*words, "--help")
        assert answer.returncode == 0 and "Usage" in answer.stdout


def test_data_show_draws_a_picture(data_folder, tmp_path):
    answer = command("data", "show", str(data_folder), "-o", str(tmp_path / "sheet.png"))
    assert answer.returncode == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "10 blue (0), 10 red (1)" in answer.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["data", "check", "/nowhere"], "no such folder or zip"),
        (["data", "check", "--profile", "huge"], "no profile 'huge'"),
        (["pretrain", "--backend", "jax"], "no backend 'jax'"),
        (["report", "no-such-run"], "has no records"),
        (["report", "--nonsense"], "no such option --nonsense"),
        (["report", "a", "b"], "run a: "),
        pytest.param(
            ["readme", "no-such-page.md"],
            "No such file or directory: 'no-such-page.md'",
            marks=pytest.mark.skipif(
                find_spec("itables") is None, reason="the report's libraries are not installed here"
            ),
        ),
        (["report", "--margin", "2"], "a share, above 0 and at most 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, complaint):
    answer = command(*words)
    assert answer.returncode == 2
    assert complaint in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "Traceback" not in answer.stderr


def test_an_unknown_command_is_exit_code_2():
    assert command("nonsense").returncode == 2


def test_the_report_takes_the_bench_s_options_and_passes_over_them(tmp_path, ok_record):
    pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")
    record.write(tmp_path / "records", ok_record)
    answer = command(
        "report",
        "--protocol",
        "finetune",
        "--backend=torch",
        "--resume",
        "--seeds",
        "2",
        "--run",
        str(tmp_path),
    )
    assert answer.returncode == 0, answer.stderr
    assert "0.750 [0.686, 0.805]" in (tmp_path / "report.md").read_text()


def test_a_damaged_record_is_named(tmp_path, ok_record):
    pytest.importorskip("itables", reason="the report's libraries are in the report's environment only")
    path: Path = record.write(tmp_path / "records", ok_record)
    path.write_bytes(path.read_bytes()[:100])
    answer = command("report", str(tmp_path))
    assert answer.returncode == 2
    assert path.name in answer.stderr and "delete it and run its cell again" in answer.stderr
