"""`doctor`, on damaged caches, dead networks and broken environments that are made for it."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from pooch.utils import temporary_file
from rich.console import Console
from typer.testing import CliRunner

import backends
from backends import weights
from benchmarks.__main__ import app
from benchmarks.commands import doctor, examination, leftovers, reachability
from benchmarks.commands.examination import Asked, Environment, Examination, Item, Machine, Place
from benchmarks.harness.cache import seal
from benchmarks.harness.environment import PROJECT
from benchmarks.harness.images import data
from benchmarks.harness.images.sketch import SKETCH_VERSION
from benchmarks.harness.profile import profile_of
from benchmarks.harness.recipe import all_recipes
from benchmarks.harness.running import runner, source

pytestmark = pytest.mark.once

NAMES = tuple(backends.known())


def command(*words: str, cwd: Path = PROJECT, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "doctor", *words],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=180,
    )


def asked(*words: str, **variables: str) -> dict:
    """What it says to a machine; within this process, which is quicker."""
    answer = CliRunner().invoke(app, ["doctor", "--json", *words], env=variables)
    assert answer.exit_code in (0, 1), answer.stderr
    return json.loads(answer.stdout)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def broken(tmp_path, monkeypatch) -> None:
    """Every backend's Python dies before it says anything: nothing is slow to import."""
    for name in NAMES:
        monkeypatch.setenv(
            f"BENCHMARKS_PYTHON_{name.upper()}",
            str(program(tmp_path / name, "read job; echo dead >&2; exit 3")),
        )
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # logs that are named stay
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def homes(tmp_path, monkeypatch) -> Path:
    """The frameworks' caches, empty."""
    for name in ("TORCH_HOME", "MXNET_HOME", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


class Server(http.server.BaseHTTPRequestHandler):
    """`/whole` heeds ranges, `/deaf` does not, `/login` answers with a page, and there is nothing else."""

    def do_GET(self) -> None:
        if self.path.startswith("/whole"):
            assert self.headers["Range"] == "bytes=0-0"
            self._answer(206, b"x", {"Content-Range": "bytes 0-0/12345"})
        elif self.path == "/deaf":
            self._answer(200, b"x" * 678, {})
        elif self.path == "/login":
            self._answer(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"})
        else:
            self._answer(404, b"", {})

    def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Whatever is not on this machine refuses the connection."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it reads the variables when it is made


# --- Reachability ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reached", "text", "size"),
    [
        ("/whole.zip", True, "reachable", 12345),
        ("/deaf", True, "reachable", 678),
        ("/login", False, "a web page instead of the file", None),
        ("/nothing", False, "HTTP 404 Not Found", None),
    ],
)
def test_what_a_server_says(server, path, reached, text, size):
    (answer,) = reachability.ask([server + path])
    assert (answer.url, answer.reached, answer.bytes) == (server + path, reached, size)
    assert answer.text.startswith(text)


def test_who_does_not_answer_is_named_and_holds_nobody_up(server):
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        urls = [
            f"http://127.0.0.1:{silent.getsockname()[1]}/silent",
            f"http://127.0.0.1:{unused.getsockname()[1]}/refused",
            "http://no-such-host.invalid/",
            "no address",
            f"{server}/whole",
        ]
        started = time.monotonic()
        answers = reachability.ask(urls, patience=1.0)
        assert time.monotonic() - started < 3
    assert [answer.url for answer in answers] == urls
    assert [answer.reached for answer in answers] == [False, False, False, False, True]
    silence, refused, unknown, nonsense, _ = (answer.text for answer in answers)
    assert silence == "no answer within 1 s" and refused == "connection refused"
    assert unknown in ("no such host, or no network", silence)  # the latter where a name server is slow
    assert "no address" in nonsense


def test_a_server_that_trickles_is_given_up():
    def trickle(listener: socket.socket, done: threading.Event) -> None:
        connection, _ = listener.accept()
        with connection:
            while not done.wait(0.05):
                connection.send(b"H")

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener, done))
        thread.start()
        started = time.monotonic()
        (answer,) = reachability.ask([f"http://127.0.0.1:{listener.getsockname()[1]}/"], patience=0.3)
        seconds = time.monotonic() - started
        done.set()
        thread.join()
    assert seconds < 2 and not answer.reached and answer.text == "no answer within 0.3 s"


# --- Leftovers ------------------------------------------------------------------------------------

INTERRUPTED = {
    "a folder": "from benchmarks.harness.cache import whole_folder, cache_folder\n"
    "with whole_folder(cache_folder() / 'decoded' / 'abc-v1') as folder:\n"
    "    (folder / 'pixels').write_bytes(b'x' * 1000)\n    stop()",
    "a file": "from benchmarks.harness.cache import write_whole, cache_folder\n"
    "os.fsync = lambda _: stop()\n"
    "write_whole(cache_folder() / 'gates' / 'abc.json', b'x' * 1000)",
    "features": "from benchmarks.harness.cache import write_whole, cache_folder\n"
    "os.fsync = lambda _: stop()\n"
    "write_whole(cache_folder() / 'features' / 'abc' / 'progress.json', b'x' * 1000)",
    "weights": "from pathlib import Path\nimport numpy\nfrom backends import weights\n"
    "from benchmarks.harness.cache import cache_folder\n"
    "Path.replace = lambda *_: stop()\n"
    "target = cache_folder() / 'weights' / 'a.safetensors'\n"
    "weights.write(target, {'a': numpy.zeros(250)}, weights.Origin())",
}
"""What a process was about to finish when it was killed."""


def interrupted(what: str) -> None:
    """Kill a process in the middle of its work."""
    stop = "import os, time\ndef stop():\n    print('stopped', flush=True)\n    time.sleep(600)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", stop + INTERRUPTED[what]], cwd=PROJECT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"stopped\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    for part in (path, *path.rglob("*")):
        os.utime(part, (then, then))


@pytest.mark.parametrize("what", INTERRUPTED)
def test_what_a_killed_process_leaves_is_found_and_removed_after_an_hour(what, cache):
    interrupted(what)
    (found,) = leftovers.find(cache)
    assert 1000 <= found.bytes < 2000 and 0 <= found.age < 60
    assert leftovers.clean(found) == found and Path(found.path).exists()
    aged(Path(found.path), 3700)
    (old,) = leftovers.find(cache)
    assert 3700 <= old.age < 3800
    assert leftovers.clean(old).removed
    assert leftovers.find(cache) == ()


def test_a_download_of_pooch_counts(cache):
    (cache / "downloads").mkdir()
    with temporary_file(path=str(cache / "downloads")) as partial:
        assert [found.path for found in leftovers.find(cache)] == [str(Path(partial))]


def test_a_folder_that_is_still_written_to_is_young(cache):
    folder = cache / "data" / ".hotdog-0123456789abcdef-ab12cd34"
    (folder / "train").mkdir(parents=True)
    aged(folder, 7200)
    (folder / "train" / "1.png").write_bytes(b"new")
    aged_folders = (folder, folder / "train")
    for path in aged_folders:
        os.utime(path, (0, 0))
    (found,) = leftovers.find(cache)
    assert found.age < 60 and not leftovers.clean(found).removed


def test_nothing_else_is_taken_for_a_leftover(cache, tmp_path):
    for name in (
        "data/sketch-v1-300+150-seed0/train/.x-ab12cd34",  # inside a data set: its own business
        "features/abc/.lock",
        "weights/source-pytorch-resnet18-0123abcd.safetensors",
        "weights/tmp_notes.txt",
        "documents/.letter-ab12cd34",  # a folder that is not the cache's
        ".cache-ab12cd34",
    ):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(b"mine")
    (tmp_path / "mine").mkdir()
    (cache / "data" / ".mine-ab12cd34").symlink_to(tmp_path / "mine")
    assert leftovers.find(cache) == ()


def test_what_cannot_be_removed_says_why(cache, monkeypatch):
    interrupted("a file")
    (found,) = leftovers.find(cache)
    aged(Path(found.path), 7200)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    (found,) = leftovers.find(cache)
    assert "Permission denied" in str(leftovers.clean(found).problem)


# --- The cache ------------------------------------------------------------------------------------


def states(items: list[dict]) -> dict[str, tuple[str, str]]:
    return {item["name"]: (item["state"], item["note"]) for item in items}


def draw_source(cache: Path) -> Path:
    """A tiny stand-in for the source set, sealed as the real one is."""
    folder = cache / "data" / f"source-v{SKETCH_VERSION}-1+1-seed0"
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(folder / split / name / "0.png")
    seal(folder)
    return folder


def write_weights(path: Path) -> bytes:
    weights.write(path, {"conv1.weight": np.ones((4, 3, 3, 3), np.float32)}, weights.Origin())
    return path.read_bytes()


class TestCache:
    def test_an_empty_one_says_what_will_be_made(self, broken, cache, homes):
        found = asked("--offline")
        assert states(found["data"]) == {
            "hotdog photographs": ("absent", "fetched by --data hotdog"),
            "sketch": ("absent", "drawn on first use, in seconds"),
            "sketch-five": ("absent", "drawn on first use, in seconds"),
            "source": ("absent", "drawn on first use, in seconds"),
        }
        pretraining = [recipe for recipe in all_recipes() if recipe.protocol == "pretrain"]
        assert states(found["weights"]) == {
            f"network A {recipe.backend} {recipe.architecture}": ("absent", "trained on first use, ~2 min")
            for recipe in pretraining
        }
        assert {item["state"] for item in found["official"] if item["path"]} == {"absent"}
        assert found["leftovers"] == [] and list(cache.iterdir()) == []

    def test_what_is_there_is_verified(self, broken, cache, homes):
        folder = draw_source(cache)
        images = data.open_data(str(folder), profile_of("full"))
        recipe = next(recipe for recipe in all_recipes() if recipe.protocol == "pretrain")
        content = write_weights(source.source_path(recipe, images))
        write_weights(cache / "weights" / "source-pytorch-resnet18-0123456789abcdef.safetensors")
        write_weights(cache / "weights" / "imagenet-pytorch-efficientnet_lite0.safetensors")
        found = asked("--offline")
        assert states(found["data"])["source"] == ("ready", "4 images")
        known = {item["name"]: item for item in found["weights"]}
        trained = known[f"network A {recipe.backend} {recipe.architecture}"]
        assert trained["state"] == "ready" and trained["bytes"] == len(content)
        assert trained["sha256"] == hashlib.sha256(content).hexdigest()
        assert known[examination.OTHER]["note"] == "unused"
        assert known["imagenet-pytorch-efficientnet_lite0"]["note"] == ""

    def test_a_changed_data_set_is_found_out(self, broken, cache, homes):
        folder = draw_source(cache)
        (folder / "train" / "a" / "0.png").write_bytes(b"damaged")
        write_weights(cache / "weights" / "source-pytorch-resnet18-0123456789abcdef.safetensors")
        found = asked("--offline")
        assert states(found["data"])["source"] == ("damaged", "4 images; changed: drawn anew on next use")
        assert states(found["weights"])[examination.OTHER] == ("ready", "")  # it may fit what is drawn anew

    @pytest.mark.parametrize("damage", [lambda data: data[:-10], lambda _: b"", lambda _: b"<html>" * 50])
    def test_damaged_weights_are_named_with_the_way_out(self, broken, cache, homes, damage):
        path = cache / "weights" / "imagenet-pytorch-efficientnet_lite0.safetensors"
        path.write_bytes(damage(write_weights(path)))
        found = asked("--offline")
        state, note = states(found["weights"])[path.stem]
        assert state == "damaged" and note.startswith("not a whole safetensors file")
        assert f"rm {path}" in [step["command"] for step in found["next"]]
        shown = command("--offline").stdout
        assert "damaged" in shown and f"rm {path}\n" in shown

    def test_downloads_of_another_hash_are_found_out(self, broken, cache, homes, monkeypatch):
        (cache / "downloads").mkdir()
        (cache / "downloads" / "hotdog.zip").write_bytes(b"half a download")
        for card in backends.known().values():
            for published in card.sources:
                if published.file is not None:
                    published.file.parent.mkdir(parents=True, exist_ok=True)
                    published.file.write_bytes(b"half a download")
        found = asked("--offline")
        state, note = states(found["data"])["hotdog photographs"]
        assert state == "damaged" and note.endswith(f"not {data.HOTDOG_SHA1}")
        assert hashlib.sha1(b"half a download").hexdigest() in note
        fetched = [item for item in found["official"] if item["path"]]
        assert len(fetched) == 7 and {item["state"] for item in fetched} == {"damaged"}
        removals = {step["command"] for step in found["next"] if step["command"]}
        assert {f"rm {item['path']}" for item in fetched} <= removals

    def test_a_file_of_the_right_hash_is_verified(self, tmp_path):
        path = tmp_path / "x.pth"
        path.write_bytes(b"weights")
        for algorithm in ("md5", "sha1", "sha256"):
            digest = hashlib.new(algorithm, b"weights").hexdigest()[:8]
            item = examination._pinned("x", path, f"{algorithm}:{digest}", fetched_by="nobody")
            assert (item.state, item.note, item.bytes) == ("ready", "verified", 7)
            assert item.sha256 == hashlib.sha256(b"weights").hexdigest()

    def test_leftovers_are_named_and_cleaned(self, broken, cache, homes):
        interrupted("a folder")
        (found,) = asked("--offline", "--clean")["leftovers"]
        assert not found["removed"] and Path(found["path"]).exists()
        aged(Path(found["path"]), 7200)
        before = asked("--offline")
        assert "python -m benchmarks doctor --clean" in [step["command"] for step in before["next"]]
        shown = command("--offline", "--clean").stdout
        assert "Left over by killed processes" in shown and "2 h old" in shown and "removed" in shown
        assert not Path(found["path"]).exists()
        assert asked("--offline")["leftovers"] == []


# --- The network ----------------------------------------------------------------------------------


class TestSources:
    def test_every_address_is_asked_and_a_mirror_counts(self, broken, homes, server, no_network):
        found = asked(MXNET_GLUON_REPO=f"{server}/whole/")
        assert [source["url"] for source in found["sources"]][:2] == list(data.HOTDOG_URLS)
        answers = {source["url"]: source["answer"] for source in found["sources"]}
        assert len(answers) == 9
        for url, answer in answers.items():
            mirrored = url.startswith(f"{server}/whole/gluon/models/")
            assert answer["reached"] == mirrored
            assert answer["text"] == ("reachable" if mirrored else "connection refused")
        assert sum(answer["reached"] for answer in answers.values()) == 3

    def test_a_dead_network_is_a_normal_result(self, broken, homes, no_network):
        answer = command()
        assert answer.returncode == 1 and answer.stderr == ""
        assert answer.stdout.count("connection refused") == 9
        for url in (*data.HOTDOG_URLS, "https://download.pytorch.org/models/resnet18-f37072fd.pth"):
            assert url in answer.stdout.replace("\n    ", "")

    def test_offline_asks_nobody(self, broken, homes, server):
        found = asked("--offline", MXNET_GLUON_REPO=f"{server}/whole/")
        assert {source["answer"] for source in found["sources"]} == {None}
        assert "not asked" in command("--offline").stdout


# --- Environments ---------------------------------------------------------------------------------


def test_a_broken_framework_says_why_and_what_to_do(broken, tmp_path, monkeypatch):
    package = tmp_path / "broken"
    (package / "torch").mkdir(parents=True)
    (package / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open')")
    (package / "torch-9.9.dist-info").mkdir()
    (package / "torch-9.9.dist-info" / "METADATA").write_text("Name: torch\nVersion: 9.9\n")
    python = program(tmp_path / "python", f'PYTHONPATH="{package}:$PYTHONPATH" exec "{sys.executable}" "$@"')
    found = asked("--offline", BENCHMARKS_PYTHON_PYTORCH=str(python))
    backend = next(backend for backend in found["backends"] if backend["backend"] == "pytorch")
    assert "libcudart.so.12: cannot open" in backend["problem"]
    assert backend["interpreter"] == str(python)
    assert backend["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "unset BENCHMARKS_PYTHON_PYTORCH" in [step["command"] for step in found["next"]]


def test_a_dead_interpreter_leaves_the_log_that_is_named(broken):
    for backend in asked("--offline")["backends"]:
        assert "exit code 3" in backend["problem"] and "dead" in backend["problem"]
        assert Path(backend["problem"].rpartition("the log is ")[2]).read_text() == "dead\n"


def test_a_variable_that_names_no_program_is_said(broken):
    found = asked("--offline", BENCHMARKS_PYTHON_GLUON="/nowhere/python")
    assert "/nowhere/python: no such program" in found["backends"][0]["problem"]
    assert found["next"][0]["command"] == "unset BENCHMARKS_PYTHON_GLUON"


@pytest.mark.skipif(any(map(backends.installed, backends.known().values())), reason="a framework is here")
def test_without_any_framework_the_next_thing_is_to_make_environments(tmp_path, monkeypatch):
    for name in backends.known():
        monkeypatch.delenv(f"BENCHMARKS_PYTHON_{name.upper()}", raising=False)
    for folder in ("backends", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / folder, tmp_path / "copy" / folder, ignore=ignored)
    answer = command("--offline", cwd=tmp_path / "copy")
    assert answer.returncode == 1 and answer.stderr == ""
    assert answer.stdout.count("missing") == 4
    found = json.loads(command("--offline", "--json", cwd=tmp_path / "copy").stdout)
    assert [backend["interpreter"] for backend in found["backends"]] == [None, None, None]
    commands = [step["command"] for step in found["next"]]
    assert list(filter(None, commands)) == ["tox run -m bench"]  # a full disk asks for room, by no command


@pytest.mark.skipif(
    not runner.available(), reason="no environment has a framework; `tox run -m bench --notest` makes them"
)
def test_what_is_installed_is_asked_of_the_frameworks(homes, no_network):
    answer = command(COLUMNS="80")
    assert answer.returncode == 0 and answer.stderr == ""
    for card in backends.known().values():
        assert card.title in answer.stdout
    assert f"{runner.threads()} threads" in answer.stdout and "cpu" in answer.stdout
    assert "tox run -m bench\n" in answer.stdout and "tox run -m bench -- --data PATH" in answer.stdout
    table, _, following = answer.stdout.partition("\nNext\n")
    assert max(map(len, table.splitlines())) <= 80 and following


# --- Advice ---------------------------------------------------------------------------------------


def environment(name: str, **fields: object) -> Environment:
    card = backends.resolve(name)
    known = {"interpreter": f"/p/.tox/bench-{name}/bin/python", "version": "1", "devices": ("cpu",)}
    return Environment(backend=name, title=card.title, threads=2, **{**known, **fields})


def place(name: str, **fields: object) -> Place:
    plenty = {"free_bytes": 2**40, "used_bytes": 0, "needed_bytes": 2**29, "writable": True}
    return Place(name=name, path=f"/{name}", **{**plenty, **fields})


FINE = Examination(
    backends=tuple(map(environment, NAMES)),
    machine=Machine(
        cores=2, load_average=0.0, memory_bytes=2**35, free_memory_bytes=2**34, sbatch="/usr/bin/sbatch"
    ),
    places=(place("cache"), place("results")),
    data=(Item(name=examination.HOTDOG, state="absent"),),
    weights=(),
    official=(Item(name="pytorch vgg16", state="ready", path="/torch/vgg16.pth"),),
    sources=(),
    leftovers=(),
)


def steps(**changes: object) -> list[doctor.Step]:
    return list(doctor._steps(msgspec.structs.replace(FINE, **changes)))


def said(**changes: object) -> str:
    return "\n".join(f"{step.why}\n{step.command}" for step in steps(**changes))


def from_network(name: str, reached: bool) -> Asked:
    answer = reachability.Answer(url="http://h/x", reached=reached, text="?")
    return Asked(name=name, url=answer.url, answer=answer)


class TestNext:
    def test_all_is_fine(self):
        assert [step.command for step in steps()] == [
            "tox run -m bench",
            "python -m benchmarks run",
            "tox run -m bench -- --data hotdog --profile cpu --run photographs",
        ]

    def test_a_missing_environment_is_made_by_tox(self):
        missing = environment("gluon", interpreter=None, problem="no environment has it")
        first = steps(backends=(missing, environment("pytorch")))[0]
        assert "(MXNet Gluon)" in first.why and first.command == "tox run -m bench"

    @pytest.mark.parametrize(
        ("interpreter", "way_out"),
        [
            ("/p/.tox/bench-keras/bin/python", "tox run -e bench-keras --recreate --notest"),
            ("/v/bin/python", "/v/bin/python -m pip install --force-reinstall '.[keras]'"),
        ],
    )
    def test_a_broken_environment_is_mended_where_it_is(self, interpreter, way_out, monkeypatch):
        monkeypatch.delenv("BENCHMARKS_PYTHON_KERAS", raising=False)
        broken = environment("keras", interpreter=interpreter, problem="ImportError")
        assert steps(backends=(broken, environment("pytorch")))[0].command == way_out

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"places": (place("cache", free_bytes=2**20), place("results"))},
                "1 MiB free, and a first default",
            ),
            ({"places": (place("cache", writable=False), place("results"))}, "/cache cannot be written to"),
            ({"places": (place("cache"), place("results", writable=False))}, "/results cannot be written to"),
            (
                {"machine": msgspec.structs.replace(FINE.machine, free_memory_bytes=2**30)},
                "of memory are free",
            ),
            (
                {
                    "places": (place("cache"), place("results", free_bytes=2**32)),
                    "backends": (environment("keras", interpreter=None, problem="none"),),
                },
                "4.0 GiB are free, and the environments of all three frameworks take 12.0 GiB",
            ),
        ],
    )
    def test_too_little_room_is_said_in_words(self, changes, words):
        assert words in said(**changes) and words not in said()

    def test_photographs_that_cannot_be_had_are_not_promised(self):
        name = examination.HOTDOG
        one_mirror = (from_network(name, False), from_network(name, True))
        assert "--data hotdog" in said(sources=one_mirror)
        no_mirror = (from_network(name, False), from_network(name, False))
        assert "--data PATH" in said(sources=no_mirror) and "--data hotdog" not in said(sources=no_mirror)
        here = (Item(name=name, state="ready"),)
        assert "--data hotdog" in said(sources=no_mirror, data=here)

    def test_missing_weights_are_fetched_or_carried(self):
        absent = (Item(name="pytorch vgg16", state="absent", path="/torch/vgg16.pth"),)
        fetched = said(official=absent, sources=(from_network("pytorch vgg16", True),))
        assert "--weights imagenet" in fetched and "/torch" not in fetched
        carried = said(official=absent, sources=(from_network("pytorch vgg16", False),))
        assert "put them (unpacked) into /torch, and give --weights imagenet" in carried


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a word or two of it", ["  a word or", "  two of it"]),
        ("https://host/path/file.zip", ["  https://", "  host/path/", "  file.zip"]),
        ("see /a/b/c/d/e", ["  see", "  /a/b/c/d/e"]),
        ("unbreakable-name", ["  unbreakable-name"]),
    ],
)
def test_lines_break_between_words_and_after_slashes(text, lines, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "out", Console(width=13))
    doctor._indented(text, 2)
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (2**20, "1 MiB"), (1.5 * 2**30, "1.5 GiB")]
)
def test_sizes_are_read_at_a_glance(count, shown):
    assert doctor._size(count) == shown
