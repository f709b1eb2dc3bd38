# SPDX-License-Identifier: Apache-2.0
"""Every 3DGS PLY file that cannot be read or written is refused in one sentence."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsv3d.errors import DataError, GSV3DError, OutputError
from gsv3d.gaussians.ply import LeftOutWarning, read_ply, write_ply
from tests.disks import report_full
from tests.gsv3d.gaussians.test_ply import encode_ply, list_columns, make_arrays, read_bytes


def encode(count: int = 4, degree: int = 0) -> bytes:
    stream = io.BytesIO()
    write_ply(stream, make_arrays(count, degree))
    return stream.getvalue()


def drop_property(name: str) -> bytes:
    columns = list_columns(make_arrays(4, 1))
    del columns[name]
    return encode_ply(columns, ["f4"])


def encode_points() -> bytes:
    columns = {name: np.zeros(2) for name in ("x", "y", "z", "red", "green", "blue")}
    return encode_ply(columns, ["f4"])


HUGE = b"ply\nformat %s 1.0\nelement vertex 900000000000\n" + b"".join(
    b"property float %s\n" % name.encode() for name in list_columns(make_arrays(1, 0))
)

TEXT = encode_ply(list_columns(make_arrays(4, 0)), ["f4"], text=True)

BAD = {
    "empty": (b"", "is not a PLY file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a PLY file"),
    "no end of header": (b"ply\nformat ascii 1.0\n", "line 3: early end-of-file"),
    "endless header": (b"ply\n" + b"comment x\n" * 10_000, "line 10002: early end-of-file"),
    "one endless line": (b"ply\ncomment " + b"x" * 100_000, "line 2: early end-of-file"),
    "unknown format": (encode().replace(b"little", b"middle"), "line 2: don't understand format"),
    "no format": (b"ply\nelement vertex 0\nend_header\n", "line 2: expected one of {format"),
    "strange line": (encode().replace(b"property float y", b"prop float y"), "line 5: expected"),
    "unknown type": (encode().replace(b"float y", b"quad y"), "line 5: field type 'quad' not in"),
    "twice": (encode().replace(b"float y", b"float x"), "two properties with same name"),
    "count in words": (encode().replace(b"vertex 4", b"vertex x"), "expected integer count"),
    "negative count": (encode().replace(b"vertex 4", b"vertex -4"), "negative dimensions"),
    "no vertices": (encode().replace(b"vertex", b"points"), "lacks the element vertex"),
    "list": (
        encode().replace(b"float z", b"list uchar int z"),
        "cannot be read|lacks the property z",
    ),
    "too few": (encode().replace(b"vertex 4", b"vertex 5"), "row 4: early end-of-file"),
    "too many": (encode().replace(b"vertex 4", b"vertex 3"), "more follows than its header"),
    "truncated": (encode()[:-1], "row 3: early end-of-file"),
    "ascii, too few": (
        TEXT.replace(b"vertex 4", b"vertex 5"),
        "row 4: early end-of-file",
    ),
    "ascii, too many": (
        TEXT.replace(b"vertex 4", b"vertex 3"),
        "more follows than its header",
    ),
    "ascii, short line": (
        TEXT.rstrip().rpartition(b" ")[0] + b"\n",
        "row 3: property .* early end-of-line",
    ),
    "ascii, words": (
        TEXT[:-4] + b"abc\n",
        "row 3: property .* malformed input",
    ),
    "huge binary": (HUGE % b"binary_big_endian" + b"end_header\n" + bytes(99), "row 1: early end"),
    "huge ascii": (HUGE % b"ascii" + b"end_header\n" + b"1 " * 99, "allocate|early end"),
    "no opacity": (drop_property("opacity"), "lacks the property opacity"),
    "no rotation": (drop_property("rot_2"), "lacks the property rot_2"),
    "eight f_rest": (drop_property("f_rest_3"), "8 f_rest properties; it must have 0, 9, 24 or 45"),
    "gap in f_rest": (
        encode(degree=1).replace(b"f_rest_3\n", b"f_rest_9\n"),
        "lacks the property f_rest_3",
    ),
    "point cloud": (encode_points(), "lacks the property f_dc_0. It looks like a point cloud"),
    "compressed": (
        encode_points().replace(b"float x", b"float packed_position"),
        "lacks the property x. It is a compressed PLY",
    ),
    "nothing to draw": (
        encode_ply(list_columns(make_arrays(4, 0)) | {"y": np.full(4, np.nan)}, ["f4"]),
        "no Gaussian that can be drawn: the first is Gaussian 0, with y = nan",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_get_one_sentence(case: str, tmp_path: Path) -> None:
    data, expected = BAD[case]
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    with pytest.raises(DataError, match=expected) as caught:
        read_ply(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes in folders here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.ply")
    with pytest.raises(DataError, match="device or a pipe"):
        read_ply(tmp_path / "a.ply")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_ply(tmp_path / "none.ply")
    with pytest.raises(DataError, match="cannot be read"):
        read_ply(tmp_path)


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, make_arrays(3, 0))
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", report_full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_ply(path, make_arrays(9, 0))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        write_ply(tmp_path / "none" / "a.ply", make_arrays(3, 0))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("means", np.full((4, 3), np.nan), "means has values that are NaN"),
        ("scales", np.zeros((4, 3)), "scales has values of 0 or below"),
        ("opacities", np.full(4, 1.5), "opacities has values outside"),
        ("quats", np.ones((4, 3)), r"quats has shape \(4, 3\)"),
        ("sh", np.ones((4, 5, 3)), r"sh has shape \(4, 5, 3\)"),
        ("sh", None, "sh is missing"),
    ],
)
def test_arrays_that_cannot_be_written_are_refused(
    name: str, value: np.ndarray | None, message: str
) -> None:
    arrays = make_arrays(4, 0)
    del arrays[name]
    if value is not None:
        arrays[name] = value
    with pytest.raises(ValueError, match=message):
        write_ply(io.BytesIO(), arrays)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_never_end_in_anything_but_words(data: st.DataObject) -> None:
    text = data.draw(st.booleans())
    whole = bytearray(
        encode_ply(list_columns(make_arrays(3, 1)), ["f4"], text=True) if text else encode(3, 1)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "delete"])):
            case "flip":
                whole[at] = data.draw(st.integers(0, 255))
            case "cut" if at > 0:
                del whole[at:]
            case "insert":
                whole[at:at] = data.draw(st.binary(max_size=12))
            case "delete" if len(whole) > 20:
                del whole[at : at + data.draw(st.integers(1, 12))]
    check_reading(bytes(whole))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(
            ["format ascii 1.0", "format binary_little_endian 1.0", "element vertex 2",
             "element a 3", "element vertex 99999999999999999", "property float x",
             "property list uchar int x",
             "property double rot_0", "comment", "end_header", "", "property", "element vertex ٣"]
        ),
        max_size=12,
    ),
    st.binary(max_size=200),
)  # fmt: skip
def test_strange_headers_never_end_in_anything_but_words(lines: list[str], rest: bytes) -> None:
    check_reading("\n".join(["ply", *lines, "end_header\n"]).encode() + rest)


def check_reading(data: bytes) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftOutWarning)
            arrays = read_bytes(data)
    except GSV3DError as error:
        assert "\n" not in str(error)
        return
    for array in arrays.values():
        assert array.dtype == np.float32 and np.isfinite(array).all()
    assert (arrays["scales"] > 0).all()
    assert ((arrays["opacities"] >= 0) & (arrays["opacities"] <= 1)).all()
