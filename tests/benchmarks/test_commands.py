"""The commands, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import record
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.recipe import all_recipes


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


def test_every_command_has_help():
    for words in (
        [],
        ["list"],
        ["data"],
        ["data", "show"],
        ["data", "check"],
        ["pretrain"],
        ["report"],
        ["doctor"],
    ):
        answer = command(*words, "--help")
        assert answer.returncode == 0 and "Usage" in answer.stdout


def test_data_show_draws_a_picture(data_folder, tmp_path):
    answer = command("data", "show", str(data_folder), "-o", str(tmp_path / "sheet.png"))
    assert answer.returncode == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "10 blue (0), 10 red (1)" in answer.stdout


def test_doctor_says_what_to_type_next():
    answer = command("doctor")
    assert answer.returncode == 0
    assert "pytorch" in answer.stdout and "gluon" in answer.stdout and "keras" in answer.stdout
    assert "tox run -m bench" in answer.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["data", "check", "/nowhere"], "no such folder or zip"),
        (["data", "check", "--profile", "huge"], "no profile 'huge'"),
        (["pretrain", "--backend", "jax"], "no backend 'jax'"),
        (["report", "no-such-run"], "has no records"),
        (["report", "--nonsense"], "no such option --nonsense"),
        (["report", "a", "b"], "one run at a time"),
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
    pytest.importorskip("scipy", reason="the report's libraries are in the report's environment only")
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
    pytest.importorskip("scipy", reason="the report's libraries are in the report's environment only")
    path: Path = record.write(tmp_path / "records", ok_record)
    path.write_bytes(path.read_bytes()[:100])
    answer = command("report", str(tmp_path))
    assert answer.returncode == 2
    assert path.name in answer.stderr and "delete it and run its cell again" in answer.stderr
