# SPDX-License-Identifier: Apache-2.0
"""Every bad input is one clear sentence, and what was made before stays."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gsv3d.cli import main
from tests.gsv3d.fake_pipeline import FakePipeline, draw_picture, save_picture

FEW = ["--faces", "60", "--texture-size", "32", "--steps", "1", "--formats", "glb"]


def encode_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pack_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_huge_png(side: int) -> bytes:
    """Return a small file whose header announces side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + pack_chunk(b"IHDR", header)
        + pack_chunk(b"IDAT", pixels)
        + pack_chunk(b"IEND", b"")
    )


def make_corrupt_png() -> bytes:
    data = bytearray(encode_png(Image.fromarray(np.random.default_rng(0).integers(
        0, 255, (64, 64, 3), dtype=np.uint8))))  # fmt: skip
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    return bytes(data)


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "text.png": (b"This is a letter, not a picture.\n" * 20, r"not a picture"),
    "empty.png": (b"", r"empty file"),
    "corrupt.png": (make_corrupt_png(), r"damaged"),
    "cut.png": (encode_png(draw_picture())[:100], r"damaged"),
    "dot.png": (encode_png(Image.new("RGB", (1, 1))), r"only 1 x 1 pixels"),
    "huge.png": (make_huge_png(20_000), r"too large: 400 million pixels"),
    "wide.png": (make_huge_png(8_500), r"too large: 8,500 x 8,500 pixels"),
    "clear.png": (encode_png(Image.new("RGBA", (64, 64))), r"fully transparent"),
    "plain.png": (encode_png(Image.new("RGB", (80, 60), (120, 130, 140))), r"No object was found"),
}


def list_sentences(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("gsv3d: ")]


def run(capsys, *arguments: str | Path) -> tuple[int, str]:
    code = main(["generate", *map(str, arguments), *FEW])
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return code, text


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_picture_that_cannot_be_used_is_named_with_the_reason(name, pipeline, tmp_path, capsys):
    data, reason = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    code, text = run(capsys, path, "--output", tmp_path / "out")
    assert code == 1
    first = list_sentences(text)[0]
    assert name in first and re.search(reason, first)
    assert first.rstrip().endswith(".") and first.count(". ") == 1  # what and where; what to do
    assert list((tmp_path / "out").iterdir()) == []
    assert not pipeline.calls


def test_the_others_go_on(pipeline, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (data, _) in BAD_FILES.items():
        (folder / name).write_bytes(data)
    save_picture(folder / "z_good.png")
    code, text = run(capsys, folder, "--output", tmp_path / "out")
    assert code == 1
    for name in BAD_FILES:
        assert any(name in line for line in list_sentences(text))
    assert (tmp_path / "out" / "z_good.glb").is_file()
    assert (tmp_path / "out" / "z_good.json").is_file()


def draw_good_variants() -> dict[str, Image.Image]:
    """Return unusual pictures that can be used; each shows the same brown ellipse on white."""
    image = Image.new("RGB", (64, 48), (255, 255, 255))
    ImageDraw.Draw(image).ellipse((10, 8, 50, 40), fill=(200, 80, 40))
    sixteen = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return {
        "cmyk.jpg": image.convert("CMYK"),
        "sixteen.png": sixteen,
        "gray.png": image.convert("L"),
        "palette.png": image.quantize(16),
        "rotated.jpg": image,
    }


@pytest.mark.parametrize("name", draw_good_variants())
def test_unusual_pictures_work(name, pipeline, tmp_path, capsys, monkeypatch):
    options = {}
    if name == "rotated.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif.tobytes()}
    draw_good_variants()[name].save(tmp_path / name, **options)
    seen = []
    whole_call = FakePipeline.__call__

    def spy(self, image, **arguments):
        seen.append(image)
        return whole_call(self, image, **arguments)

    monkeypatch.setattr(FakePipeline, "__call__", spy)
    code, text = run(capsys, tmp_path / name, "--output", tmp_path / "out")
    assert code == 0, text
    solid = seen[0][..., 3] > 127
    height, width = np.ptp(np.flatnonzero(solid.any(1))), np.ptp(np.flatnonzero(solid.any(0)))
    assert (height > width) == (name == "rotated.jpg")
    gray = name in ("sixteen.png", "gray.png")
    wanted = np.array([111.0] * 3 if gray else [200, 80, 40])  # ITU-R 601 luma of the color
    assert np.abs(seen[0][solid][:, :3].mean(axis=0) - wanted).max() < 12


def test_a_path_that_is_not_there(pipeline, tmp_path, capsys):
    code, text = run(capsys, tmp_path / "gone.png", "--output", tmp_path / "out")
    assert code == 1
    assert re.search(r"no file .*gone\.png", list_sentences(text)[0])


def test_a_folder_without_images(pipeline, tmp_path, capsys):
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "letter.txt").write_text("no picture")
    code, text = run(capsys, folder, "--output", tmp_path / "out")
    assert code == 1
    assert re.search(r"folder .*letters holds no pictures", list_sentences(text)[0])


def test_an_output_that_is_a_file(pipeline, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    code, text = run(capsys, save_picture(tmp_path / "a.png"), "--output", tmp_path / "out")
    assert code == 2
    assert "is a file, not a folder" in list_sentences(text)[0]
    assert (tmp_path / "out").read_text() == "in the way"
