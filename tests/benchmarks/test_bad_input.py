"""Whatever is in a record, a recipe, an archive or an image: an error of ours or a result, nothing else."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from backends.base import DataError, UsageError
from benchmarks.harness import record
from benchmarks.harness.cache import SEAL
from benchmarks.harness.images import archive, data, decoded
from benchmarks.harness.profile import PROFILES
from benchmarks.harness.recipe import RECIPES, Recipe, read_recipes
from benchmarks.harness.record import Record, RecordError
from tests.damage import damaged, examples, ours

ALL = PROFILES["full"]
DEEP = "[" * 100_000 + "]" * 100_000


# --- Records --------------------------------------------------------------------------------------

KEPT = Path(__file__).parents[2] / "results"
WHOLE_RECORD = min(KEPT.rglob("records/*.json"), key=lambda path: path.stat().st_size).read_bytes()

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from([10**30, -(10**400), 1e308, 2**63, "9" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places_in(value: object, path: tuple = ()) -> list[tuple]:
    """Every place within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in inner for found in places_in(child, (*path, key)))]


class TestRecords:
    def read(self, path: Path, content: bytes) -> Record | None:
        path.write_bytes(content)
        return ours(lambda: record.read(path))

    @examples(300)
    @given(content=damaged(WHOLE_RECORD))
    def test_damaged(self, tmp_path, content):
        found = self.read(tmp_path / "record.json", content)
        assert found is None or isinstance(found, Record)

    @examples(300)
    @given(at=st.sampled_from(places_in(json.loads(WHOLE_RECORD))[1:]), value=ANY_JSON)
    def test_another_value_in_any_place(self, tmp_path, at, value):
        whole = json.loads(WHOLE_RECORD)
        *way, last = at
        inner = whole
        for key in way:
            inner = inner[key]
        inner[last] = value
        found = self.read(tmp_path / "record.json", json.dumps(whole).encode())
        assert found is None or record.to_json(found)

    @pytest.mark.parametrize("text", [DEEP, '{"settings":{"a":' + DEEP + "}}", '{"settings":' * 100_000])
    def test_nested_without_end(self, tmp_path, text):
        assert self.read(tmp_path / "x.json", text.encode()) is None

    def test_a_folder_in_a_record_s_place(self, tmp_path):
        (tmp_path / "x.json").mkdir()
        with pytest.raises(RecordError, match=r"x\.json"):
            record.read_all(tmp_path)


# --- Recipes --------------------------------------------------------------------------------------

FILES = sorted(RECIPES.glob("*.toml"))
LITERALS = (
    "nan", "inf", "-inf", "0", "-1", "0.0", "1e308", "9" * 30, "9" * 5000, "true", '""', '"x"', "[]", "{}",
    "[nan, nan]", "[1.0, 0.5]", "[-1.0, 1.0]", "1979-05-27", "[[]]", "{name = 'sgd'}", '"../../x"',
)  # fmt: skip


def usable(recipe: Recipe) -> bool:
    """Whether what the harness makes of a recipe can be made."""
    recipe.model(classes=recipe.classes or 2, image_size=recipe.image_size or 64)
    transform = recipe.transform(recipe.image_size or 64)
    return transform.resize >= transform.size and "/" not in recipe.id


class TestRecipes:
    def read(self, path: Path, content: bytes) -> tuple[Recipe, ...]:
        path.write_bytes(content)
        return ours(lambda: read_recipes(path)) or ()

    @examples(300)
    @given(st.sampled_from(FILES).flatmap(lambda path: damaged(path.read_bytes())))
    def test_damaged(self, tmp_path, content):
        assert all(map(usable, self.read(tmp_path / "recipe.toml", content)))

    @examples(600)
    @given(st.sampled_from(FILES), st.randoms(use_true_random=False), st.sampled_from(LITERALS))
    def test_another_value_in_any_place(self, tmp_path, file, random, literal):
        lines = file.read_text().splitlines()
        index = random.choice([index for index, line in enumerate(lines) if " = " in line])
        lines[index] = f"{lines[index].partition(' = ')[0]} = {literal}"
        assert all(map(usable, self.read(tmp_path / "recipe.toml", "\n".join(lines).encode())))

    @pytest.mark.parametrize(
        "text",
        [f"epochs = {DEEP}", "a = " + "{a = " * 5000, f"epochs = 0x{'f' * 9000}", "\0", '"\\ud800" = 1'],
    )
    def test_what_a_parser_dislikes(self, tmp_path, text):
        assert self.read(tmp_path / "x.toml", text.encode()) == ()

    @pytest.mark.parametrize("name", ["../../x", "a/b", "a\\\\b", "x\\u0000", "x\\n"])
    def test_a_sweep_cannot_name_files_elsewhere(self, tmp_path, name):
        path = tmp_path / "x.toml"
        path.write_text((RECIPES / "native-resnet18-finetune.toml").read_text() + f'\n[sweep."{name}"]\n')
        with pytest.raises(UsageError, match="an id names files"):
            read_recipes(path)

    @pytest.mark.parametrize(
        ("line", "damage", "complaint"),
        [
            ("batch_size = 128", "batch_size = 0", "batch_size 0: one is the least"),
            ("learning_rate = 0.01", "learning_rate = nan", r"optimizer\.learning_rate nan is no number"),
            (
                'architecture = "resnet18"',
                'architecture = "vgg"',
                "no architecture 'vgg'; there are: resnet18,",
            ),
        ],
    )
    def test_the_field_is_named(self, tmp_path, line, damage, complaint):
        text = (RECIPES / "native-resnet18-finetune.toml").read_text()
        assert line in text
        (tmp_path / "x.toml").write_text(text.replace(line, damage))
        with pytest.raises(UsageError, match=complaint):
            read_recipes(tmp_path / "x.toml")


# --- Archives -------------------------------------------------------------------------------------


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members, whatever their names; `ZipInfo` itself would mend some."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = name, method
            file.writestr(info, content)
    return buffer.getvalue()


NOISE = np.random.RandomState(0).bytes(600)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
NAMES = st.text(alphabet=st.sampled_from("aA./\\:\0\n~C é"), max_size=8) | st.sampled_from(
    [
        "../x",
        "/x",
        "a/../../x",
        "C:/x",
        "a/..",
        ".",
        "..",
        "./a",
        "a//b",
        "a/./b",
        "~/x",
        "x" * 300,
        "a/" * 3000,
    ]
)


class TestArchives:
    def unpack(self, folder: Path, content: bytes) -> list[Path] | None:
        """The files unpacked, or None where ours is the error; nothing may lie anywhere else."""
        source, target = folder / "z.zip", folder / "in" / "out"
        if target.exists():
            for path in sorted(target.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            target.rmdir()
        source.write_bytes(content)
        whole = ours(lambda: archive.unpack(source, target) or True)
        assert {path.name for path in folder.iterdir()} <= {"z.zip", "in"}
        assert [path.name for path in folder.glob("in/*")] == (["out"] if whole else [])
        found = [path for path in target.rglob("*") if path.is_file() and path.name != SEAL]
        assert all(path.resolve().is_relative_to(target) for path in found)
        return found if whole else None

    @examples(400)
    @given(st.sampled_from(METHODS).flatmap(lambda m: damaged(zipped([("a/b.jpg", NOISE), ("c", b"x")], m))))
    def test_damaged(self, tmp_path, content):
        for path in self.unpack(tmp_path, content) or ():
            assert path.read_bytes() in (NOISE, b"x", b"")

    @examples(300)
    @given(st.lists(NAMES, max_size=4))
    def test_any_names(self, tmp_path, names):
        members = [(name, bytes([index])) for index, name in enumerate(names)]
        found = self.unpack(tmp_path, zipped(members))
        files = [content for name, content in members if not name.partition("\0")[0].endswith("/")]
        assert found is None or sorted(path.read_bytes() for path in found) == sorted(files)

    @pytest.mark.parametrize(
        ("first", "second"), [("a/x.jpg", "a/x.jpg"), ("a/x.jpg", "A/X.JPG"), ("a/x.jpg", "a//./x.jpg")]
    )
    def test_one_name_for_two(self, tmp_path, first, second):
        (tmp_path / "z.zip").write_bytes(zipped([(first, b"1"), (second, b"2")]))
        with pytest.raises(DataError, match="is there twice, or its name differs"):
            archive.unpack(tmp_path / "z.zip", tmp_path / "out")

    def test_a_file_that_is_a_folder_too(self, tmp_path):
        assert self.unpack(tmp_path, zipped([("a", b"1"), ("a/b.jpg", b"2")])) is None

    def test_members_that_share_their_bytes_are_a_bomb(self, tmp_path):
        """D. Fifield 2019, A better zip bomb: each member alone is harmless."""
        whole, count = zipped([("a", NOISE * 100)], zipfile.ZIP_STORED), 999
        begin, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
        entries = count * whole[begin:end]
        end_of_all = struct.pack("<4s4H2LH", whole[end : end + 4], 0, 0, count, count, len(entries), begin, 0)
        (tmp_path / "z.zip").write_bytes(whole[:begin] + entries + end_of_all)
        with pytest.raises(DataError, match=r"unpacks to 59940000 bytes in 999 files.*refused as a bomb"):
            archive.unpack(tmp_path / "z.zip", tmp_path / "out")

    def test_a_size_that_lies_unpacks_no_more_than_it_says(self, tmp_path):
        whole = zipped([("a.bmp", b"\0" * 10_000_000)])
        directory = whole.index(b"PK\1\2")
        lying = whole[: directory + 24] + struct.pack("<L", 1000) + whole[directory + 28 :]
        assert self.unpack(tmp_path, lying) is None

    def test_another_kind_of_archive_is_answered_with_what_to_do(self, tmp_path):
        with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as file:
            file.add(__file__, "train/a/1.jpg")
        with pytest.raises(
            DataError, match=r"not a whole zip file .* another kind yourself and give its folder"
        ):
            data.open_data(str(tmp_path / "data.tar.gz"), ALL)


# --- Images ---------------------------------------------------------------------------------------


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.RandomState(0).randint(0, 256, (24, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


ENCODED = [
    encoded("JPEG"), encoded("JPEG", "CMYK"), encoded("JPEG", "L", progressive=True),
    encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "RGBA"), encoded("PNG", "1"), encoded("PNG", "LA"),
    encoded("BMP"), encoded("BMP", "P"), encoded("BMP", "L"),
]  # fmt: skip


def png_of(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG whose header says this, with hardly any pixels behind it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">L", len(content)) + checked + struct.pack(">L", zlib.crc32(checked))

    header = struct.pack(">2L5B", width, height, depth, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


class TestImages:
    @pytest.mark.filterwarnings("ignore:::PIL")
    @examples(800)
    @given(st.sampled_from(ENCODED).flatmap(damaged))
    def test_damaged(self, tmp_path, content):
        path = tmp_path / "image.jpg"
        path.write_bytes(content)
        pixels = ours(lambda: decoded.decode(path))
        assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3)

    @pytest.mark.filterwarnings("ignore:::PIL")
    @pytest.mark.parametrize(
        "size", [(0, 5), (5, 0), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (20_000, 5_001)]
    )
    @pytest.mark.parametrize("kind", ["png", "bmp", "jpg"])
    def test_absurd_dimensions(self, tmp_path, kind, size):
        width, height = size
        whole = bytearray(encoded("BMP" if kind == "bmp" else "JPEG"))
        if kind == "png":
            whole = bytearray(png_of(*size))
        elif kind == "bmp":
            whole[18:26] = struct.pack("<2L", *size)
        else:
            frame = whole.index(b"\xff\xc0")
            whole[frame + 5 : frame + 9] = struct.pack(">2H", min(height, 65535), min(width, 65535))
        path = tmp_path / f"absurd.{kind}"
        path.write_bytes(whole)
        with pytest.raises(DataError, match=rf"absurd\.{kind}: ") as caught:
            data.read_image(path)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("size", [(3, 301), (301, 3)])
    def test_a_strip_is_refused(self, tmp_path, size):
        """Enlarged until its shorter side is 256, this one would have 6.6 million pixels; one of 1 x 300,000,
        twenty thousand million."""
        Image.new("RGB", size).save(tmp_path / "strip.png")
        with pytest.raises(DataError, match=r"strip\.png: a strip of"):
            data.read_image(tmp_path / "strip.png")
        Image.new("RGB", (3, 300)).save(tmp_path / "strip.png")
        assert data.read_image(tmp_path / "strip.png").size == (3, 300)

    def test_sixteen_bits_are_refused_and_not_cut_off(self, tmp_path):
        Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "deep.png")
        with pytest.raises(DataError, match=r"deep\.png: more than 8 bits per channel .*; convert it"):
            data.read_image(tmp_path / "deep.png")

    @pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO", "TGA", "WEBP", "EPS"])
    def test_other_formats_are_refused_whatever_their_name(self, tmp_path, monkeypatch, kind):
        monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("ran a program"))
        (tmp_path / "x.jpg").write_bytes(encoded(kind))
        with pytest.raises(DataError, match=r"x\.jpg: cannot be decoded \(cannot identify"):
            data.read_image(tmp_path / "x.jpg")


# --- Folders --------------------------------------------------------------------------------------


class TestFolders:
    @pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link", "endless device"])
    def test_what_is_no_file(self, data_folder, kind):
        path = data_folder / "train/red/x.jpg"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero" if kind == "endless device" else "nowhere")
        with pytest.raises(
            DataError, match=r"train/red/x\.jpg: not one of .*, or no file; move or convert it"
        ):
            data.open_data(str(data_folder), ALL)

    @pytest.mark.parametrize("name", [b"a\nb.jpg", b"\x1b[2J.jpg", b"\xff.jpg", "\u202eé ü.jpg".encode()])
    def test_names(self, data_folder, name):
        (data_folder / "train/red/0.jpg").rename(data_folder / "train/red" / os.fsdecode(name))
        found = ours(lambda: data.open_data(str(data_folder), ALL))
        assert (found is not None) == (name[-6:-4] == "ü".encode())

    @pytest.mark.parametrize("when", ["list_images", "_hash"])
    def test_an_image_that_vanishes_meanwhile_is_named(self, data_folder, monkeypatch, when):
        victim, before = data_folder / "test/red/4.jpg", getattr(data, when)

        def and_then_it_is_gone(given, *more):
            result = before(given, *more)
            if given != data_folder / "train":
                victim.unlink()
            return result

        monkeypatch.setattr(data, when, and_then_it_is_gone)
        with pytest.raises(DataError, match=r"test/red/4\.jpg") as caught:
            data.open_data(str(data_folder), ALL)
        assert str(caught.value).isprintable()

    def test_nobody_s_home(self):
        with pytest.raises(DataError, match="no such folder or zip"):
            data.open_data("~nobody-of-this-name/photographs", ALL)
