# SPDX-License-Identifier: Apache-2.0
"""``gsv3d cutout``, and what ``gsv3d generate`` says of a cut-out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from gsv3d.cli import main
from tests.gsv3d.fake_pipeline import save_picture

FEW = ["--faces", "60", "--texture-size", "32", "--steps", "2", "--formats", "ply"]


@pytest.fixture
def unsure(monkeypatch, tmp_path):
    """Return the path of an opaque picture in which the network is unsure of the object."""

    def guess(rgb, cutout):
        y, x = np.mgrid[-1 : 1 : rgb.shape[0] * 1j, -1 : 1 : rgb.shape[1] * 1j]
        return np.where(x * x + y * y < 0.5, 0.7, 0.1), 0.6

    monkeypatch.setattr("gsv3d.preprocessing.framing.find_object", guess)
    path = tmp_path / "wiese.png"
    Image.new("RGB", (80, 60), (70, 120, 60)).save(path)
    return path


def test_a_folder_is_cut_out_and_a_bad_picture_named(tmp_path, capsys):
    folder, output = tmp_path / "Meine Bilder", tmp_path / "out put"
    save_picture(folder / "Fäßchen.png")
    (folder / "broken.png").write_bytes(b"no picture")
    assert main(["cutout", str(folder), "--output", str(output)]) == 1
    said = capsys.readouterr()
    assert "broken.png is not a picture" in said.err and "1 of 2 inputs" in said.err
    assert [path.name for path in output.iterdir()] == ["Fäßchen.png"]
    rgba = np.asarray(Image.open(output / "Fäßchen.png"))
    solid = rgba[..., 3] > 127
    np.testing.assert_array_equal(np.unique(rgba[solid][:, :3], axis=0), [[200, 80, 40]])
    original = np.asarray(Image.open(folder / "Fäßchen.png"))[..., 3] > 127
    assert solid.sum() == original.sum() and not solid[0].any() and not solid[:, -1].any()
    # The result is a picture like any other: cut out once more, it stays the same.
    again = tmp_path / "again"
    assert main(["cutout", str(output / "Fäßchen.png"), "--output", str(again)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(again / "Fäßchen.png")), rgba)


def test_an_unsure_cut_out_is_said(unsure, tmp_path, capsys):
    assert main(["cutout", str(unsure), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert said.count("is unsure") == 1 and "wiese.png" in said and "%)" in said


@pytest.mark.usefixtures("pipeline")
def test_generate_warns_of_an_unsure_cut_out_and_records_it(unsure, tmp_path, capsys):
    output = tmp_path / "out"
    clean = save_picture(tmp_path / "clean.png")
    assert main(["generate", str(unsure), str(clean), "--output", str(output), *FEW]) == 0
    said = capsys.readouterr().err
    assert said.count("is unsure") == 1 and "wiese.png" in said
    record = json.loads((output / "wiese.json").read_text(encoding="utf-8"))
    assert 0 < record["cutout_certainty"] < 0.85 and record["settings"]["cutout"] == "u2netp"
    record = json.loads((output / "clean.json").read_text(encoding="utf-8"))
    assert record["cutout_certainty"] is None


@pytest.mark.parametrize("command", ["cutout", "generate"])
def test_an_unknown_cutout_ends_before_any_work(command, tmp_path, capsys):
    picture = save_picture(tmp_path / "a.png")
    output = tmp_path / "out"
    options = ["--output", str(output), "--cutout", "nonsense"]
    assert main([command, str(picture), *options]) == 2
    assert "'nonsense'" in capsys.readouterr().err and not output.exists()
