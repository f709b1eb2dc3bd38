# SPDX-License-Identifier: Apache-2.0
"""Reading ``transforms.json`` and its pictures, whole and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gsv3d.errors import GSV3DError
from gsv3d.lifting.transforms import read_capture
from tests.gsv3d.lifting.captures import describe_cameras, write_capture
from tests.gsv3d.lifting.scenes import look_around, paint_ball, see_gaussians


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_capture(
        tmp_path / "eine Schüssel", see_gaussians(paint_ball(), look_around(3, 24))
    )


def change_file(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "transforms.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    how(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_cameras_and_pictures_are_read(folder: Path) -> None:
    capture = read_capture(folder)
    cameras = look_around(3, 24)
    torch.testing.assert_close(capture.cameras.viewmats, cameras.viewmats, atol=1e-5, rtol=0)
    torch.testing.assert_close(capture.cameras.Ks, cameras.Ks, atol=1e-3, rtol=0)
    pictures = list(capture.load())
    assert [p.shape for p in pictures] == [(24, 24, 4)] * 3
    alpha = see_gaussians(paint_ball(), cameras).alpha[1].numpy()
    assert np.abs(pictures[1][..., 3] / 255 - alpha).max() < 0.01


def test_nerfstudio_keeps_the_lens_in_pixels_and_a_frame_has_its_own(folder: Path) -> None:
    def lens(values: dict[str, Any]) -> None:
        del values["camera_angle_x"]
        values.update(fl_x=30.0, fl_y=31.0, cx=11.0, cy=12.5, w=24, h=24, camera_model="OPENCV")
        values.update(k1=0.0, p2=0)
        values["frames"][1].update(fl_x=40)

    change_file(folder, lens)
    Ks = read_capture(folder).cameras.Ks
    assert Ks[0].tolist() == [[30, 0, 11], [0, 31, 12.5], [0, 0, 1]]
    assert Ks[1, 0, 0] == 40


def test_endings_may_be_missing_and_slashes_be_those_of_windows(folder: Path) -> None:
    def rename(values: dict[str, Any]) -> None:
        values["frames"][0]["file_path"] = "images/view 0"
        values["frames"][1]["file_path"] = "images\\view 1.png"
        values["frames"][2]["transform_matrix"] = values["frames"][2]["transform_matrix"][:3]

    change_file(folder, rename)
    assert [p.name for p in read_capture(folder).pictures] == [f"view {i}.png" for i in range(3)]


def test_a_mask_cuts_an_opaque_picture_out(folder: Path) -> None:
    path = folder / "images" / "view 0.png"
    Image.open(path).convert("RGB").save(path)
    mask = np.zeros((24, 24), np.uint8)
    mask[5:9, 6:12] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    change_file(folder, lambda values: values["frames"][0].update(mask_path="mask.png"))
    assert (next(read_capture(folder).load())[..., 3] == mask).all()


def spoil_first(values: dict[str, Any]) -> dict[str, Any]:
    return values["frames"][0]


FAULTS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda v: v.pop("frames"), "has no cameras: 'frames' is missing or empty"),
    (lambda v: v.update(frames=[]), "has no cameras"),
    (lambda v: v.update(frames=v["frames"][:1]), "has one picture only"),
    (lambda v: v["frames"].append(7), "Frame 4 of .* is not an object"),
    (lambda v: spoil_first(v).update(file_path="gone"), "Frame 1 .*gone, which is not there"),
    (lambda v: spoil_first(v).update(file_path="images"), "images, which is not there"),
    (lambda v: spoil_first(v).update(file_path=""), "'file_path' names no file"),
    (lambda v: spoil_first(v).update(file_path="a\0b"), "'file_path' names no file"),
    (lambda v: spoil_first(v).update(mask_path="none.png"), "'mask_path' names .*none.png"),
    (lambda v: spoil_first(v).pop("transform_matrix"), "not four rows of four numbers"),
    (lambda v: spoil_first(v).update(transform_matrix=[[1, 2], [3]]), "not four rows"),
    (lambda v: spoil_first(v).update(transform_matrix="x"), "not four rows"),
    (lambda v: spoil_first(v)["transform_matrix"][0].__setitem__(0, float("nan")), "not four rows"),
    (lambda v: spoil_first(v).update(transform_matrix=(2 * np.eye(4)).tolist()), "not of length 1"),
    (
        lambda v: spoil_first(v).update(transform_matrix=np.diag([1.0, 1, -1, 1]).tolist()),
        "mirrors the picture",
    ),
    (lambda v: v.pop("camera_angle_x"), "neither 'camera_angle_x' nor 'fl_x'"),
    (lambda v: v.update(camera_angle_x=0), "no usable focal length: camera_angle_x is 0"),
    (lambda v: v.update(camera_angle_x="wide"), "'camera_angle_x' is not a number"),
    (lambda v: v.update(fl_x=-3), "no usable focal length: fl_x is -3"),
    (lambda v: v.update(k1=0.2), "distorted lens: k1 is 0.2"),
    (lambda v: v.update(camera_model="OPENCV_FISHEYE"), "model OPENCV_FISHEYE, not a pinhole"),
    (lambda v: v.update(w=4000), "pictures of another size: w is 4000"),
]


@pytest.mark.parametrize("fault, message", FAULTS, ids=[message for _, message in FAULTS])
def test_faults_are_named(folder: Path, fault, message: str) -> None:
    change_file(folder, fault)
    with pytest.raises(GSV3DError, match=message) as caught:
        read_capture(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\0", "[" * 5000])
def test_what_is_no_json_object_is_named(folder: Path, text: str) -> None:
    (folder / "transforms.json").write_text(text, encoding="utf-8")
    with pytest.raises(GSV3DError, match="cannot be read|is not a JSON object"):
        read_capture(folder)


def test_a_folder_without_cameras_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / (300 * "a")):  # the second name no file can have
        with pytest.raises(GSV3DError, match="There is no transforms.json in"):
            read_capture(folder)


def spoil_picture(folder: Path, rgba: np.ndarray) -> str:
    Image.fromarray(rgba).save(folder / "images" / "view 1.png")
    with pytest.raises(GSV3DError) as caught:
        list(read_capture(folder).load())
    return str(caught.value)


def test_pictures_that_cannot_be_used_are_named(folder: Path) -> None:
    nothing = np.zeros((24, 24, 4), np.uint8)
    assert "view 1.png shows no object" in spoil_picture(folder, nothing)
    assert "view 1.png has no background" in spoil_picture(folder, nothing + 255)
    assert "view 1.png has 30 x 24 pixels, but the first picture has 24 x 24" in spoil_picture(
        folder, np.zeros((24, 30, 4), np.uint8)
    )
    (folder / "images" / "view 0.png").write_bytes(b"no picture")
    with pytest.raises(GSV3DError, match="view 0.png"):
        read_capture(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = ("frames", "camera_angle_x", "fl_x", "fl_y", "cx", "w", "k1", "camera_model")
FRAME_KEYS = ("file_path", "mask_path", "transform_matrix", "fl_x")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON), st.dictionaries(st.sampled_from(FRAME_KEYS), JSON)
)
def test_whatever_stands_there_is_read_or_named(folder: Path, top: dict, frame: dict) -> None:
    values = describe_cameras(look_around(3, 24)) | top
    if isinstance(values["frames"], list) and values["frames"]:
        values["frames"] = [{**f, **frame} if isinstance(f, dict) else f for f in values["frames"]]
    (folder / "transforms.json").write_text(json.dumps(values), encoding="utf-8")
    try:
        cameras = read_capture(folder).cameras
    except GSV3DError as error:
        assert "\n" not in str(error)
    else:
        assert torch.isfinite(cameras.viewmats).all() and torch.isfinite(cameras.Ks).all()
