"""Images that cannot be read, in every backend's own pipeline: whose training, and whose workers', it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import Backend, DataError, ImageList, Session, Transform

INSTALLED = [card for card in backends.known().values() if backends.installed(card)]

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed in this environment")


@pytest.fixture(params=INSTALLED, ids=lambda card: card.name)
def framework(request) -> type[Backend]:
    return backends.load(request.param)


@pytest.fixture
def images(tmp_path) -> ImageList:
    """Seven of noise; JPEG files, which are long enough to be cut."""
    random, files = np.random.RandomState(0), tuple(f"a/{index}.jpg" for index in range(7))
    (tmp_path / "a").mkdir()
    for file in files:
        Image.fromarray(random.randint(0, 256, (40, 48, 3)).astype(np.uint8)).save(tmp_path / file)
    return ImageList(root=str(tmp_path), files=files, labels=(0,) * 7, classes=("a",))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fault", ["no image", "empty", "missing"])
def test_an_image_that_fails_between_two_epochs_is_named(framework, images, training, workers, fault):
    backend = framework(Session(input_workers=workers))
    pipeline = backend.input_pipeline(images, Transform(size=32, resize=36), batch_size=3, training=training)
    damaged = Path(images.root, images.files[4])
    assert sum(len(labels) for _, labels in pipeline) == 7
    if fault == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(b"<html>gone</html>" if fault == "no image" else b"")
    text = rf"^image {damaged} cannot be read \([^\n]+\); replace or remove it$"
    with pytest.raises(DataError, match=text):
        list(pipeline)
