# SPDX-License-Identifier: Apache-2.0
"""Finding models, and what is said when one is not there or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gsv3d.cli import main
from gsv3d.devices import choose_device
from gsv3d.errors import ModelError
from gsv3d.models import CHECKPOINTS, available, find, load_pipeline
from tests import tiny


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for models of one's own, not the user's."""
    folder = tmp_path / "own models ü"
    folder.mkdir()
    monkeypatch.setenv("GSV3D_MODELS", str(folder))
    return folder


def test_models_of_ones_own_are_listed_by_their_folders_names(own_models: Path) -> None:
    for name in ("my-props.v2", "not a wire name", "blockout"):
        tiny.tiny_pipeline().save_pretrained(own_models / name)
    (own_models / "empty").mkdir()
    installed = {model.name: model.path for model in available() if model.installed}
    assert installed == {
        "blockout": CHECKPOINTS / "blockout",
        "my-props.v2": own_models / "my-props.v2",
    }
    assert load_pipeline("my-props.v2", device="cpu").num_frames == 4


def test_a_model_is_added_under_a_name_once(own_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.tiny_pipeline().save_pretrained(folder)
    assert main(["models", "--add", str(folder), "--name", "props"]) == 0
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
def test_a_model_that_cannot_be_added(
    tmp_path: Path, own_models: Path, capsys: Any, folder: str, name: str, words: str
) -> None:
    tiny.tiny_pipeline().save_pretrained(tmp_path / "model")
    assert main(["models", "--add", str(tmp_path / folder), "--name", name]) == 2
    assert words in capsys.readouterr().err
    assert not list(own_models.iterdir())


def test_the_shipped_model_is_installed_and_small() -> None:
    models = {model.name: model for model in available()}
    blockout = models["blockout"]
    assert blockout.installed and blockout.path == CHECKPOINTS / "blockout"
    size = sum(f.stat().st_size for f in blockout.path.rglob("*") if f.is_file())
    assert size <= 48e6
    assert (blockout.path / "README.md").is_file(), "a model goes with its card"
    assert not models["gsv3d-576"].installed and models["gsv3d-576"].how_to_get


def test_a_model_that_could_be_had_says_how() -> None:
    with pytest.raises(ModelError, match="not installed. Train one"):
        find("gsv3d-576")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match="no model 'blackout'. Installed: blockout"):
        find("blackout")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs model_index.json"):
        find(str(tmp_path))


def test_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    """Cut short, of another configuration, or with a component gone: words, not a traceback."""
    folder = tmp_path / "a model with spaces and Umläuten"
    tiny.tiny_pipeline().save_pretrained(folder)
    assert load_pipeline(str(folder), device="cpu").num_frames == 4

    weights = next((folder / "unet").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pipeline(str(folder), device="cpu")
    weights.write_bytes(whole)

    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pipeline(str(folder), device="cpu")


@pytest.mark.parametrize("shown", [True, False])
def test_loading_draws_no_bars_and_leaves_the_users_setting(
    shown: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    folder = tmp_path / "model"
    tiny.tiny_pipeline().save_pretrained(folder)
    monkeypatch.setattr(of_diffusers, "_tqdm_active", shown)
    heard = []

    def hook(factory: Any, arguments: Any, options: Any) -> Any:
        heard.append(options)
        return factory(*arguments, **options)

    before = of_transformers.set_tqdm_hook(hook)
    try:
        capfd.readouterr()
        load_pipeline(str(folder), device="cpu")
        (folder / "unet" / "config.json").unlink()
        with pytest.raises(ModelError):
            load_pipeline(str(folder), device="cpu")
        said = capfd.readouterr()
        assert "%|" not in said.err + said.out and "Loading" not in said.err + said.out
        assert of_diffusers.is_progress_bar_enabled() is shown
        assert of_transformers.set_tqdm_hook(hook) is hook and not heard
    finally:
        of_transformers.set_tqdm_hook(before)


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ModelError, match="no kind of device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ModelError, match="not there"):
        choose_device("cuda:77")
    with pytest.raises(ModelError, match="does not run on 'meta'"):
        choose_device("meta")
