"""The official checkpoints on the cards: the same as their frameworks know them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import backends
from backends.sources import Source


def sources(backend: str) -> tuple[Source, ...]:
    return backends.resolve(backend).sources


HOMES = ("TORCH_HOME", "XDG_CACHE_HOME", "MXNET_HOME", "KERAS_HOME", "MXNET_GLUON_REPO")


@pytest.fixture(params=[(), HOMES[1:], HOMES], ids=["defaults", "XDG", "all variables"])
def homes(request, monkeypatch, tmp_path) -> None:
    """Some of the variables that move caches are set, to a folder each, and the others are not."""
    for name in HOMES:
        monkeypatch.delenv(name, raising=False)
    for name in request.param:
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_first_place_counts_whose_variables_are_set(monkeypatch):
    source = Source(
        architecture="a", urls=("$MIRROR/x.zip", "https://h/x.zip"), files=("$A/x", "$B/x"), digest="md5:0"
    )
    for name in ("MIRROR", "A", "B"):
        monkeypatch.delenv(name, raising=False)
    assert source.url == "https://h/x.zip" and source.file is None
    monkeypatch.setenv("MIRROR", "http://mirror/")
    monkeypatch.setenv("A", "")
    monkeypatch.setenv("B", "~/b")
    assert source.url == "http://mirror/x.zip" and source.file == Path.home() / "b" / "x"


@pytest.mark.parametrize("backend", sorted(backends.known()))
def test_each_is_of_an_architecture_of_its_backend_and_has_a_digest(backend):
    for source in sources(backend):
        assert source.architecture in backends.resolve(backend).architectures
        algorithm, _, digest = source.digest.partition(":")
        assert algorithm in ("md5", "sha1", "sha256") and len(digest) >= 8 and int(digest, 16)
        assert (source.url is None) == (source.file is None) == bool(source.package)


def test_torchvision_publishes_and_torch_keeps_them_there(homes):
    torch, models = pytest.importorskip("torch"), pytest.importorskip("torchvision.models")
    fetched = [source for source in sources("pytorch") if source.url]
    assert {source.architecture for source in fetched} == {"resnet18", "vgg16"}
    for source in fetched:
        url = models.get_model_weights(source.architecture).IMAGENET1K_V1.url
        assert source.url == url
        assert source.file == Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
        assert f"-{source.digest.removeprefix('sha256:')}.pth" in url


def test_gluoncv_publishes_them(homes):
    store = pytest.importorskip("gluoncv.model_zoo.model_store")
    repository = os.environ.get("MXNET_GLUON_REPO", store.apache_repo_url).rstrip("/")
    for source in sources("gluon"):
        name, _, digest = source.file.stem.rpartition("-")
        assert source.digest == f"sha1:{store._model_sha1[name]}" and digest == store.short_hash(name)
        assert source.url == f"{repository}/gluon/models/{source.file.stem}.zip"
        assert source.file.parent == Path(os.environ.get("MXNET_HOME", "~/.mxnet")).expanduser() / "models"
