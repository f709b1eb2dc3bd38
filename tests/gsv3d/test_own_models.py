# SPDX-License-Identifier: Apache-2.0
"""Models of your own: added, converted and removed by ``gsv3d models``."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from gsv3d.cli import main
from gsv3d.models import available, find, load_pipeline
from tests import tiny
from tests.gsv3d.multiview import published

pytestmark = pytest.mark.usefixtures("own_models")


def test_a_model_is_added_under_a_name_once(own_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.tiny_pipeline().save_pretrained(folder)
    assert main(["models", "add", "props", "--from", str(folder)]) == 0
    assert find("props") == own_models / "props"
    assert [p.name for p in own_models.iterdir()] == ["props"]


@pytest.mark.parametrize(
    ("folder", "name", "words"),
    [
        ("model", "blockout", "a model 'blockout' already"),
        ("model", "../props", "cannot be called"),
        ("nothing", "props", "holds no GSV3D model"),
    ],
)
def test_a_model_that_cannot_be_added_is_named(
    tmp_path: Path, own_models: Path, capsys: Any, folder: str, name: str, words: str
) -> None:
    tiny.tiny_pipeline().save_pretrained(tmp_path / "model")
    assert main(["models", "add", name, "--from", str(tmp_path / folder)]) == 2
    assert words in capsys.readouterr().err
    assert not list(own_models.glob("*"))


def test_a_published_file_becomes_a_model(
    own_models: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsv3d.multiview.convert.UNET_HEAD", 32)
    path = published.write_weights(tmp_path / "sv3d_u ü.safetensors", "u")
    assert main(["models", "convert", str(path), "orbit", "--version", "p"]) == 2
    assert "is SV3D_u, not SV3D_p" in capsys.readouterr().err
    assert not list(own_models.glob("*"))
    assert main(["models", "convert", str(path), "orbit"]) == 0
    assert f"The model 'orbit' is in {own_models / 'orbit'}" in capsys.readouterr().out
    pipeline = load_pipeline("orbit", device="cpu")
    assert not pipeline.unet.posed and pipeline.image_size == 576 and pipeline.num_frames == 21
    assert main(["models", "info", "orbit"]) == 0
    said = capsys.readouterr().out
    assert "SV3D_u: 21 views" in said and "(21 views at 576 px, 50 steps)" in said
    assert "not for every commercial use" in said
    (orbit,) = (model for model in available() if model.name == "orbit")
    assert orbit.change == "remove"
    for name, words in (("orbit", "a model 'orbit' already"), ("a b", "cannot be called 'a b'")):
        assert main(["models", "convert", str(path), name]) == 2
        assert words in capsys.readouterr().err


def test_only_models_of_ones_own_are_removed(
    own_models: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.tiny_pipeline().save_pretrained(own_models / "props")
    (tmp_path / "outside").mkdir()
    for name, words in (
        ("blockout", "comes with the package and stays"),
        ("nothing", "no model 'nothing' in"),
        ("../outside", "no model '../outside' in"),
    ):
        assert main(["models", "remove", name]) == 2
        assert words in capsys.readouterr().err

    def held(*paths: Path) -> None:
        raise PermissionError(errno.EACCES, "The process cannot access the file")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", held)
        assert main(["models", "remove", "props"]) == 2
        assert "cannot be deleted (The process cannot access the file)" in capsys.readouterr().err
    assert (own_models / "props" / "unet").is_dir()
    assert main(["models", "remove", "props"]) == 0
    assert not list(own_models.glob("*")) and (tmp_path / "outside").is_dir()
