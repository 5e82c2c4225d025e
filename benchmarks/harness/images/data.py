"""Data sets: where they come from, what is in them, and that they are whole.

A data set is a folder (or a zip of one) with `train/<class>/*` and `test/<class>/*`; the second may be called
`valid` or `val`. Classes and files are in order of name, as torchvision, Gluon and Keras all have it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pooch
from PIL import Image, ImageFile

from backends.base import DataError, ImageList, one_line
from benchmarks.harness.cache import cache_folder, file_sha256, kept, write_whole
from benchmarks.harness.images import sketch
from benchmarks.harness.images.archive import unpack
from benchmarks.harness.profile import Profile

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")  # what all three frameworks decode
FORMATS = ("JPEG", "PNG", "BMP")
"""Pillow's names for them. It knows many more, and runs Ghostscript for one of those, whatever the suffix."""
DEEP_MODES = ("I", "F")
"""How the modes of pixels begin that have more than eight bits: Pillow cuts off what is above 255, and other
decoders scale it."""
TEST_NAMES = ("test", "valid", "val")
MAX_PIXELS = 100_000_000  # per image, as decoded; a photograph has 50 million at most
MAX_ASPECT = 100
"""A longer strip becomes a giant where its shorter side is enlarged to what a network looks at."""
UNFIT_NAME = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and bytes that are no text: names end up in records, logs and on terminals."""

HOTDOG_SHA1 = "fba480ffa8aa7e0febbb511d181409f899b9baa5"
HOTDOG_URLS = (
    "http://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip",
    "https://apache-mxnet.s3-accelerate.amazonaws.com/gluon/dataset/hotdog.zip",
)

FIVE_CLASSES = ("burger", "burrito", "churros", "corn", "hotdog")
"""As many as `002` has: drawn, like the two of `sketch`."""
DRAWN = {"sketch": sketch.TARGET_CLASSES, "sketch-five": FIVE_CLASSES}
"""The drawn sets to be trained on, by the name that `--data` takes."""
SKETCH_SEED = 0
SKETCH_TRAIN_PER_CLASS, SKETCH_TEST_PER_CLASS = 1000, 400  # as many as the hotdog photographs
SOURCE_TRAIN_PER_CLASS, SOURCE_TEST_PER_CLASS = 150, 25

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """Two splits, and what identifies them."""

    name: str
    sha256: str
    """Over the names and bytes of the files used, in order."""
    train: ImageList
    test: ImageList

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in order of label."""
        return self.train.classes


# --- Opening --------------------------------------------------------------------------------------


def open_data(spec: str, profile: Profile, progress: Progress = no_progress) -> DataSet:
    """The data set `spec` (`sketch`, `sketch-five`, `hotdog`, or the path of a folder or a zip), as much of
    it as the profile takes.

    Every image is decoded once, and the result remembered by the files' hash.

    Raises:
        DataError: it cannot be had, is damaged, or is not laid out as a data set.
    """
    name = spec if spec in (*DRAWN, "hotdog") else Path(spec).absolute().name
    with _readable(spec):
        if spec in DRAWN:
            per_class = (
                profile.train_per_class or SKETCH_TRAIN_PER_CLASS,
                profile.test_per_class or SKETCH_TEST_PER_CLASS,
            )
            folder = _drawn(spec, DRAWN[spec], *per_class, progress)
        elif spec == "hotdog":
            folder = _unpacked(fetch_hotdog(), progress)
        else:
            folder = _given(Path(os.path.expanduser(spec)), progress)
        return _checked(name, folder, profile.train_per_class, profile.test_per_class, progress)


def open_source(progress: Progress = no_progress) -> DataSet:
    """The drawn source set, other foods than the target's, on which network A is trained."""
    with _readable("sketch-source"):
        folder = _drawn(
            "source", sketch.SOURCE_CLASSES, SOURCE_TRAIN_PER_CLASS, SOURCE_TEST_PER_CLASS, progress
        )
        return _checked("sketch-source", folder, None, None, progress)


@contextlib.contextmanager
def _readable(spec: str) -> Iterator[None]:
    """What the disk refuses, in one line."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"data {spec}: {one_line(error)}; make it readable and leave it alone while it is read, or see to"
            f" room in the cache {cache_folder()} (BENCHMARKS_CACHE names another)"
        ) from error


def fetch_hotdog(urls: tuple[str, ...] = HOTDOG_URLS, sha1: str = HOTDOG_SHA1) -> Path:
    """The official archive in the cache, fetched from the first mirror that has it.

    Raises:
        DataError: no mirror answered, or what came has another hash.
    """
    failures = []
    for url in urls:
        try:
            return Path(
                pooch.retrieve(
                    url,
                    known_hash=f"sha1:{sha1}",
                    fname="hotdog.zip",
                    path=cache_folder() / "downloads",
                    downloader=pooch.HTTPDownloader(progressbar=_has_tqdm(), timeout=30),
                )
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            failures.append(f"{url}: {_network_reason(error)}")
    raise DataError(
        f"the hotdog photographs could not be fetched ({'; '.join(failures)});"
        " give your own copy with --data PATH, or use --data sketch"
    )


def _network_reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return "wrong hash, not kept"
    return type(error).__name__ if len(str(error)) > 200 else one_line(error)


def _has_tqdm() -> bool:
    import importlib.util

    return importlib.util.find_spec("tqdm") is not None


def _drawn(
    name: str, classes: tuple[str, ...], train_per_class: int, test_per_class: int, progress: Progress
) -> Path:
    target = (
        cache_folder()
        / "data"
        / f"{name}-v{sketch.SKETCH_VERSION}-{train_per_class}+{test_per_class}-seed{SKETCH_SEED}"
    )

    def draw(folder: Path) -> None:
        sketch.write_data_set(
            folder,
            classes=classes,
            train_per_class=train_per_class,
            test_per_class=test_per_class,
            seed=SKETCH_SEED,
            on_image=lambda done, total: progress(f"drawing the {name} images", done, total),
        )

    return kept(target, draw)


def _given(path: Path, progress: Progress) -> Path:
    if path.is_dir():
        return path
    if path.is_file():
        return _unpacked(path, progress)
    raise DataError(f"data {path}: no such folder or zip; give sketch, sketch-five, hotdog, or a path")


def _unpacked(archive: Path, progress: Progress) -> Path:
    progress(f"unpacking {archive.name}", 0, 1)
    target = cache_folder() / "data" / f"{archive.stem}-{file_sha256(archive)[:16]}"
    unpack(archive, target)
    return target


# --- Checking -------------------------------------------------------------------------------------


def _checked(
    name: str, folder: Path, train_per_class: int | None, test_per_class: int | None, progress: Progress
) -> DataSet:
    root = _root_of(folder)
    test_folder = next(root / test for test in TEST_NAMES if (root / test).is_dir())
    train = list_images(root / "train", train_per_class)
    test = list_images(test_folder, test_per_class)
    if train.classes != test.classes:
        raise DataError(
            f"data {root}: train has the classes {', '.join(train.classes)}"
            f" but {test_folder.name} has {', '.join(test.classes)}"
        )
    data = DataSet(name=name, sha256=_hash((train, test)), train=train, test=test)
    _verify_once(data, progress)
    return data


def _root_of(folder: Path) -> Path:
    """The folder itself, or the only folder in it that holds both splits."""
    candidates = [folder, *sorted(child for child in folder.iterdir() if child.is_dir())]
    for candidate in candidates:
        if (candidate / "train").is_dir() and any((candidate / test).is_dir() for test in TEST_NAMES):
            return candidate
    raise DataError(f"data {folder}: needs train/<class>/* and test/<class>/* (or valid, or val)")


def list_images(folder: Path, per_class: int | None = None) -> ImageList:
    """One split: its classes and, up to `per_class` of each, its images; hidden files are passed over.

    Raises:
        DataError: fewer than two classes, an empty class, or a file that is no image.
    """
    classes = tuple(child.name for child in _children(folder) if child.is_dir())
    if len(classes) < 2:
        found = f"only the class '{classes[0]}'" if classes else "no class folder"
        raise DataError(f"data {folder}: {found}; a classifier needs at least two")
    files, labels = [], []
    for label, name in enumerate(classes):
        images = _children(folder / name)
        if not images:
            raise DataError(f"data {folder / name}: this class is empty; add images or remove the folder")
        for image in images:
            if not image.name.lower().endswith(IMAGE_SUFFIXES) or not image.is_file():
                raise DataError(
                    f"data {image}: not one of {' '.join(IMAGE_SUFFIXES)}, or no file; move or convert it"
                )
        taken = images[:per_class]
        files += [f"{name}/{image.name}" for image in taken]
        labels += [label] * len(taken)
    return ImageList(root=str(folder), files=tuple(files), labels=tuple(labels), classes=classes)


def _children(folder: Path) -> list[Path]:
    """What is in a folder, in order of name, but for hidden things."""
    shown = (child for child in folder.iterdir() if not child.name.startswith("."))
    children = sorted(shown, key=lambda child: child.name)
    for child in children:
        if UNFIT_NAME.search(child.name):
            raise DataError(f"data {folder}: the name {child.name!r} is no plain text; rename it")
    return children


def _hash(splits: tuple[ImageList, ...]) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for file in split.files:
            content = bytes.fromhex(file_sha256(Path(split.root, file)))
            digest.update(file.encode() + b"\0" + content)
        digest.update(b"\1")
    return digest.hexdigest()


def _verify_once(data: DataSet, progress: Progress) -> None:
    seen = cache_folder() / "verified" / data.sha256
    if seen.exists():
        return
    paths = [Path(split.root, file) for split in (data.train, data.test) for file in split.files]
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter(
            "ignore"
        )  # Pillow's, of large images and odd metadata; the size is checked here
        for done, _ in enumerate(pool.map(read_image, paths), start=1):
            progress(f"checking the {data.name} images", done, len(paths))
    write_whole(seen, f"{len(paths)} images decoded\n".encode())


def read_image(path: Path) -> Image.Image:
    """A decoded image, in RGB.

    Raises:
        DataError: it cannot be decoded, or is no photograph by its size or depth.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # gluoncv switches it on for all of the process
    try:
        with Image.open(path, formats=FORMATS) as image:
            _require_photograph(path, image)
            decoded: Image.Image = image.convert("RGB")
            return decoded
    except DataError:
        raise
    except Exception as error:  # what a decoder makes of a damaged file can be anything
        raise DataError(
            f"image {path}: cannot be decoded ({one_line(error)}); replace or remove it"
        ) from error


def _require_photograph(path: Path, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"image {path}: {image.width} x {image.height} pixels are too many; shrink it")
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise DataError(f"image {path}: a strip of {image.width} x {image.height} pixels; crop or remove it")
    if image.mode.startswith(DEEP_MODES):
        raise DataError(f"image {path}: more than 8 bits per channel ({image.mode}); convert it to 8")


# --- Looking --------------------------------------------------------------------------------------


def contact_sheet(split: ImageList, *, each: int = 8, height: int = 160) -> Image.Image:
    """The first and the last `each` images of a split, two rows, at one height and their own aspect
    ratios."""
    rows = [split.files[:each], split.files[::-1][:each]]
    gap = 6
    strips = []
    for row in rows:
        images = []
        for file in row:
            image = read_image(Path(split.root, file))
            images.append(image.resize((max(1, round(image.width * height / image.height)), height)))
        strip = Image.new("RGB", (sum(image.width + gap for image in images) - gap, height), "white")
        left = 0
        for image in images:
            strip.paste(image, (left, 0))
            left += image.width + gap
        strips.append(strip)
    sheet = Image.new("RGB", (max(strip.width for strip in strips) + 2 * gap, 2 * height + 3 * gap), "white")
    for index, strip in enumerate(strips):
        sheet.paste(strip, (gap, gap + index * (height + gap)))
    return sheet
