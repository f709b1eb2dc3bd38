# SPDX-License-Identifier: Apache-2.0
"""Every kind of picture file ends as the same 8-bit sRGB with alpha."""

from __future__ import annotations

import io
import os
import socket
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from gsv3d.errors import ImageError
from gsv3d.preprocessing import load_image


def colors() -> np.ndarray:
    """(32, 48, 3): red, green, blue and white quarters."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:] = (200, 30, 20), (20, 180, 40)
    picture[16:, :24], picture[16:, 24:] = (30, 40, 190), (240, 240, 240)
    return picture


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgba(data: bytes) -> np.ndarray:
    image = load_image(data)
    assert image.mode == "RGBA"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "TGA", "GIF", "PPM"])
def test_formats_without_loss_give_the_pixels(kind):
    found = rgba(encoded(Image.fromarray(colors()), kind))
    np.testing.assert_array_equal(found[..., :3], colors())
    assert (found[..., 3] == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_formats_with_loss_give_nearly_the_pixels(kind):
    found = rgba(encoded(Image.fromarray(colors()), kind, quality=95))
    middles = found[8::16, 12::24, :3]
    np.testing.assert_allclose(middles, colors()[8::16, 12::24], atol=6)


def test_alpha_is_kept_straight():
    picture = np.dstack([colors(), np.full((32, 48), 77, np.uint8)])
    np.testing.assert_array_equal(rgba(encoded(Image.fromarray(picture))), picture)


def test_gray_and_gray_with_alpha():
    gray = colors()[..., 0]
    found = rgba(encoded(Image.fromarray(gray)))
    np.testing.assert_array_equal(found[..., :3], np.repeat(gray[..., None], 3, axis=2))
    both = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(gray)])
    np.testing.assert_array_equal(rgba(encoded(both))[..., 3], gray)


def test_sixteen_bit_gray_keeps_its_brightness():
    ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = rgba(encoded(Image.fromarray(ramp), kind))
        np.testing.assert_allclose(found[..., 0], ramp / 257.0, atol=0.51)
    dark = np.full((32, 48), 200, np.uint16)  # nearly black, not 200 of 255
    assert rgba(encoded(Image.fromarray(dark)))[..., 0].max() <= 1


def test_floating_point_tiff():
    values = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (32, 1))
    found = rgba(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(found[..., 1], values * 255, atol=0.51)


def test_palette_with_a_transparent_entry():
    image = Image.fromarray(colors()).quantize(8)
    key = int(np.asarray(image)[2, 2])
    found = rgba(encoded(image, transparency=key))
    assert found[2, 2, 3] == 0 and found[30, 40, 3] == 255
    np.testing.assert_allclose(found[30, 40, :3], (240, 240, 240), atol=2)


def test_one_bit():
    found = rgba(encoded(Image.fromarray(colors()[..., 0] > 100)))
    assert found[2, 2, 0] == 255 and found[2, 40, 0] == 0


def test_cmyk_jpeg_has_the_right_colors():
    image = Image.fromarray(colors()).convert("CMYK")
    found = rgba(encoded(image, "JPEG", quality=95))
    np.testing.assert_allclose(found[8::16, 12::24, :3], colors()[8::16, 12::24], atol=8)


def test_an_embedded_profile_is_heeded():
    """A linear-light gray of 55 is an sRGB gray of about 128."""
    linear = _linear_profile()
    picture = np.full((32, 32, 3), 55, np.uint8)
    found = rgba(encoded(Image.fromarray(picture), icc_profile=linear))
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(found[..., :3], expected, atol=2)


def test_a_broken_profile_is_ignored():
    found = rgba(encoded(Image.fromarray(colors()), icc_profile=b"no profile" * 20))
    np.testing.assert_array_equal(found[..., :3], colors())


def _linear_profile() -> bytes:
    """sRGB's own profile with its tone curves replaced by straight lines (count 0: identity)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * i
        if data[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
            data[offset : offset + 12] = b"curv" + bytes(8)
    return bytes(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # How a viewer turns the stored picture upright, from the EXIF standard's table.
    upright = colors()
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    np.testing.assert_array_equal(rgba(data)[..., :3], upright)


def test_paths_with_spaces_and_umlauts(tmp_path):
    path = tmp_path / "Meine Fässer" / "faß 1.png"
    path.parent.mkdir()
    path.write_bytes(encoded(Image.fromarray(colors())))
    assert load_image(path).size == (48, 32)
    assert load_image(str(path)).size == (48, 32)


def gray_profile(gamma: float) -> bytes:
    """An ICC profile (version 2) of gray with a gamma, made by hand after ICC.1:2001-04."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"gray\0" + bytes(78)
    text += bytes(-len(text) % 4)
    tags, body, offset = b"", b"", 128 + 4 + 3 * 12
    for name, data in ((b"wtpt", white), (b"kTRC", curve), (b"desc", text)):
        tags += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


def srgb(linear: float) -> float:
    """0..1 to 0..255 (IEC 61966-2-1)."""
    return 255 * (12.92 * linear if linear < 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "TIFF16", "TIFF"])
def test_a_profile_of_gray_is_heeded(mode):
    profile, value = gray_profile(1.0), 55
    gray = Image.new("L", (32, 32), value)
    alpha = Image.linear_gradient("L").resize((32, 32))
    if mode == "1":
        found = rgba(encoded(gray.point(lambda v: 255).convert("1"), icc_profile=profile))
        np.testing.assert_array_equal(found, 255)
        return
    if mode == "LA":
        found = rgba(encoded(Image.merge("LA", [gray, alpha]), icc_profile=profile))
        np.testing.assert_array_equal(found[..., 3], np.asarray(alpha))
    elif mode == "I;16":
        deep = Image.fromarray(np.full((32, 32), value * 257, np.uint16))
        found = rgba(encoded(deep, icc_profile=profile))
    elif mode == "TIFF16":
        deep = np.full((32, 32), value * 257, np.uint16)
        found = rgba(tiff(deep, photometric="minisblack", iccprofile=profile))
    else:
        found = rgba(encoded(gray, "TIFF" if mode == "TIFF" else "PNG", icc_profile=profile))
    np.testing.assert_allclose(found[..., :3], srgb(value / 255), atol=2)


@pytest.mark.parametrize("transparent", [None, "one", "many"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_profile_of_a_palette_is_heeded(transparent, kind):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 55, 120, 200, 9, 9, 9])
    image.paste(2, (0, 0, 8, 8))
    options = {"icc_profile": _linear_profile()}
    if transparent and kind == "PNG":
        options["transparency"] = 2 if transparent == "one" else bytes([255, 90, 0])
    found = rgba(encoded(image, kind, **options))
    np.testing.assert_allclose(
        found[20, 20, :3], [srgb(55 / 255), srgb(120 / 255), srgb(200 / 255)], atol=2
    )
    if transparent and kind == "PNG":
        assert found[2, 2, 3] == 0 and found[20, 20, 3] == (255 if transparent == "one" else 90)
    else:
        assert (found[..., 3] == 255).all()


def test_a_profile_of_another_kind_of_picture_is_ignored():
    found = rgba(encoded(Image.fromarray(colors()), icc_profile=gray_profile(1.0)))
    np.testing.assert_array_equal(found[..., :3], colors())
    gray = np.full((32, 32), 55, np.uint8)  # a colored profile says how gray looks, too
    found = rgba(encoded(Image.fromarray(gray), icc_profile=_linear_profile()))
    np.testing.assert_allclose(found[..., :3], srgb(55 / 255), atol=2)


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def shades() -> np.ndarray:
    """(32, 48, 3) in 0..1, from black to white."""
    return np.linspace(0, 1, 32 * 48 * 3).reshape(32, 48, 3)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u2", "u4", "i2", ">u2"])
@pytest.mark.parametrize("layout", ["rgb", "rgba", "planar", "gray", "white is zero", "zip"])
def test_deep_tiffs_show_what_is_in_them(kind, layout):
    white = 1 if np.dtype(kind).kind == "f" else np.iinfo(kind).max
    values, expected, options = shades(), shades(), {"photometric": "rgb"}
    if layout == "rgba":
        values = np.dstack([values, values[..., 0]])
        options["extrasamples"] = ["unassalpha"]
    elif layout == "planar":
        values, options["planarconfig"] = values.transpose(2, 0, 1), "separate"
    elif layout == "gray":
        values, options = values[..., 0], {"photometric": "minisblack"}
        expected = np.repeat(values[..., None], 3, axis=-1)
    elif layout == "white is zero":
        values, options = 1 - values[..., 0], {"photometric": "miniswhite"}
        expected = np.repeat(1 - values[..., None], 3, axis=-1)
    elif layout == "zip":
        options["compression"] = "zlib"
    byteorder = ">" if kind[0] == ">" else "<"
    found = rgba(tiff((values * white).astype(kind), byteorder=byteorder, **options))
    np.testing.assert_allclose(found[..., :3], expected * 255, atol=0.6)
    alpha = values[..., 3] * 255 if layout == "rgba" else 255
    np.testing.assert_allclose(found[..., 3], alpha, atol=0.6)


def test_premultiplied_alpha_of_a_deep_tiff():
    picture = np.zeros((32, 32, 4), np.float32)
    picture[..., 3], picture[..., 0] = 0.5, 0.25
    picture[:4] = 0
    found = rgba(tiff(picture, photometric="rgb", extrasamples=["assocalpha"]))
    assert abs(found[20, 20] - [128, 0, 0, 128]).max() <= 1 and (found[:4] == 0).all()


def test_floats_over_white_are_cut_off():
    """A highlight leaves the rest as it is; floats that count to 255 are told apart from it."""
    values = shades().astype(np.float32)
    values[:4, :4] = 900.0
    values[5, 5] = np.nan
    found = rgba(tiff(values, photometric="rgb"))
    assert (found[:4, :4, :3] == 255).all() and (found[5, 5, :3] == 0).all()
    np.testing.assert_allclose(found[8:, :, :3], shades()[8:] * 255, atol=0.6)
    for white in (255, 65535):
        found = rgba(tiff((shades() * white).astype(np.float32), photometric="rgb"))
        np.testing.assert_allclose(found[..., :3], shades() * 255, atol=0.6)


@pytest.mark.parametrize("shape", ["gray", "rgb"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15])
def test_fewer_bits_in_samples_of_sixteen(bits, shape):
    values = shades() if shape == "rgb" else shades()[..., 0] / shades()[..., 0].max()
    data = tiff(
        np.round(values * (2**bits - 1)).astype(np.uint16),
        photometric="rgb" if shape == "rgb" else "minisblack",
    )
    expected = values if shape == "rgb" else np.repeat(values[..., None], 3, axis=-1)
    np.testing.assert_allclose(rgba(data)[..., :3], expected * 255, atol=1)


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    values = np.round(shades() * 9000).astype(np.uint16)
    found = rgba(tiff(values, photometric="rgb"))
    np.testing.assert_allclose(found[..., :3], shades() * 9000 / 257, atol=0.6)


def test_the_range_a_tiff_states_is_heeded():
    values = np.round(100 + shades() * 20000).astype(np.uint16)
    stated = [(340, "H", 3, (100,) * 3, True), (341, "H", 3, (20100,) * 3, True)]
    found = rgba(tiff(values, photometric="rgb", extratags=stated))
    np.testing.assert_allclose(found[..., :3], shades() * 255, atol=0.6)


def test_orientation_and_profile_of_a_deep_tiff():
    picture = np.full((32, 48, 3), 55 / 255, np.float32)
    picture[:, :4] = 1
    turned = [(274, "H", 1, 6, True)]  # the first row is the right side
    found = rgba(tiff(picture, photometric="rgb", iccprofile=_linear_profile(), extratags=turned))
    assert found.shape == (48, 32, 4) and (found[:4, :, :3] >= 254).all()
    np.testing.assert_allclose(found[8:, :, :3], srgb(55 / 255), atol=2)


def paged(*pages: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric="rgb", **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_the_largest_page_is_taken(kind):
    white = np.iinfo(kind).max if np.dtype(kind).kind == "u" else 1
    small = np.zeros((20, 24, 3), np.uint8)
    large = (shades() * white).astype(kind)
    for pages in ((small, large), (large, small), (small, small, large)):
        found = rgba(paged(*pages))
        np.testing.assert_allclose(found[..., :3], shades() * 255, atol=1)
    first = np.full((20, 24, 3), 7, np.uint8)
    assert rgba(paged(first, small))[0, 0, 0] == 7


def with_sub_pages(first: np.ndarray, *others: np.ndarray, **options) -> bytes:
    """A page whose SubIFDs are the others."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=options.pop("bigtiff", False)) as writer:
        writer.write(first, photometric="rgb", subifds=len(others), **options)
        for other in others:
            writer.write(other, photometric="rgb", subfiletype=int(other.size < first.size))
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_whole_picture_beneath_its_thumbnail_is_taken(kind, bigtiff):
    thumbnail, small = np.zeros((20, 24, 3), np.uint8), np.full((24, 24, 3), 7, np.uint8)
    large = (shades() * np.iinfo(kind).max).astype(kind)
    for others in ((large,), (small, large), (large, small)):
        found = rgba(with_sub_pages(thumbnail, *others, bigtiff=bigtiff))
        np.testing.assert_allclose(found[..., :3], shades() * 255, atol=1)
    found = rgba(with_sub_pages(large, thumbnail, bigtiff=bigtiff))
    np.testing.assert_allclose(found[..., :3], shades() * 255, atol=1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_picture_beneath_its_thumbnail_is_turned_as_that(kind):
    large = (shades() * np.iinfo(kind).max).astype(kind)
    turned = [(274, "H", 1, 6, True)]
    found = rgba(with_sub_pages(np.zeros((20, 24, 3), np.uint8), large, extratags=turned))
    np.testing.assert_allclose(found[..., :3], np.rot90(shades(), -1) * 255, atol=1)


def test_what_a_sensor_saw_is_not_taken_for_the_picture():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.zeros((20, 24, 3), np.uint8), photometric="rgb", subifds=2)
        writer.write(np.zeros((200, 200), np.uint16), photometric="cfa")
        writer.write((shades() * 255).astype(np.uint8), photometric="rgb")
    np.testing.assert_allclose(rgba(file.getvalue())[..., :3], shades() * 255, atol=1)


def test_a_tiff_that_is_whole_but_unknown_is_not_called_damaged():
    data = bytearray(tiff(shades().astype(np.float32), photometric="rgb"))
    at = data.index(struct.pack("<HHI", 259, 3, 1))  # the compression
    data[at + 8 : at + 10] = struct.pack("<H", 5)
    with pytest.raises(ImageError, match=r"of a kind .*32 bits a sample, floats, compression LZW"):
        load_image(bytes(data))


def test_a_tiff_whose_width_is_a_list_is_refused():
    data = bytearray(tiff(shades().astype(np.float32), photometric="rgb"))
    at = data.index(struct.pack("<HHI", 256, 4, 1))
    data[at + 4 : at + 12] = struct.pack("<II", 3, 8)  # three values, elsewhere in the file
    with pytest.raises(ImageError):
        load_image(bytes(data))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not read AVIF")
def test_a_damaged_avif_is_refused():
    data = bytearray(encoded(Image.new("RGBA", (32, 32), (200, 30, 20, 99)), "AVIF"))
    refused = 0
    for place in range(len(data) // 2, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        try:
            assert load_image(bytes(damaged)).mode == "RGBA"
        except ImageError:
            refused += 1
    assert refused


@pytest.mark.skipif(os.name != "posix", reason="named pipes have another form there")
def test_pipes_devices_and_sockets_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket is short, that of a test may not be.
        server.bind(os.path.relpath(tmp_path / "socket.png"))
        for path in (tmp_path / "pipe.png", tmp_path / "socket.png", "/dev/zero"):
            with pytest.raises(ImageError, match="is a device or a pipe"):
                load_image(path)


@pytest.mark.skipif(os.name != "nt", reason="devices have these names on Windows")
@pytest.mark.parametrize("name", ["NUL", "CON", r"\\.\pipe\gsv3d-none"])
def test_devices_of_windows_are_refused(name):
    with pytest.raises(ImageError):
        load_image(name)


_WHOLE = [
    *(encoded(Image.fromarray(colors()), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF")),
    encoded(Image.new("L", (32, 32), 55), icc_profile=gray_profile(1.0)),
    tiff(shades().astype(np.float32), photometric="rgb"),
    tiff((shades() * 4095).astype(np.uint16), photometric="rgb", compression="zlib"),
    paged(np.zeros((20, 24, 3), np.uint8), (shades() * 65535).astype(np.uint16)),
    with_sub_pages(np.zeros((20, 24, 3), np.uint8), (shades() * 255).astype(np.uint8)),
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, len(_WHOLE) - 1),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_give_a_picture_or_a_sentence(which, cut, changes):
    data = bytearray(_WHOLE[which])
    for where, value in changes:
        data[int(where * len(data))] = value
    data = data[: max(1, int(cut * len(data)))]
    try:
        assert load_image(bytes(data)).mode == "RGBA"
    except ImageError as error:
        assert error.message.endswith(".") and error.hint


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_sentence(data):
    with pytest.raises(ImageError):
        load_image(data)
