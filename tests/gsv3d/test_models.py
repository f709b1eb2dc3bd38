# SPDX-License-Identifier: Apache-2.0
"""Models that are found, and errors for those that are missing or damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gsv3d.cli import main
from gsv3d.errors import GSV3DError, ModelError
from gsv3d.lifting.settings import OF_A_MODEL
from gsv3d.models import CHECKPOINTS, available, find, load_pipeline, memory_for, read_license
from tests import tiny

pytestmark = pytest.mark.usefixtures("own_models")


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


def save_without_decoder(folder: Path) -> Path:
    pipeline = tiny.tiny_pipeline()
    pipeline.register_modules(decoder=None, feature_encoder=None)
    pipeline.save_pretrained(folder)
    return folder


def test_a_model_without_a_decoder_is_one(own_models: Path, capsys: Any) -> None:
    save_without_decoder(own_models / "views")
    tiny.tiny_pipeline().save_pretrained(own_models / "whole")
    decoders = {model.name: model.decoder for model in available() if model.installed}
    assert decoders == {"blockout": True, "views": False, "whole": True}
    pipeline = load_pipeline("views", device="cpu")
    assert pipeline.decoder is None and pipeline.feature_encoder is None
    assert main(["models", "info", "views"]) == 0
    said = capsys.readouterr().out
    assert "only views; Gaussians are fitted to them (4 views at 32 px, 3 steps)" in said
    # One that names a decoder and has lost it is damaged, not without.
    shutil.rmtree(own_models / "whole" / "decoder")
    assert "whole" not in {model.name for model in available()}


def test_without_a_decoder_a_prop_is_fitted(
    own_models: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_without_decoder(own_models / "views")
    few = replace(OF_A_MODEL, count=250, most=250, stages=((32, 20),))
    monkeypatch.setattr("gsv3d.lifting.model_views.OF_A_MODEL", few)
    Image.fromarray(tiny.picture()).save(tmp_path / "picture.png")
    options = ["--model", "views", "--device", "cpu", "--output", str(tmp_path / "out")]
    options += ["--faces", "100", "--texture-size", "32"]
    assert main(["generate", str(tmp_path / "picture.png"), *options]) == 0
    assert "  fitting\n" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "picture.json").read_text(encoding="utf-8"))
    assert record["gaussians_made_by"] == "fit" and record["timings"]["fitting"] > 0
    assert 100 < record["gaussians"] <= 250


def test_models_info_describes_a_model(capsys: Any) -> None:
    assert main(["models", "info", "blockout"]) == 0
    said = capsys.readouterr().out
    assert "views and Gaussians (8 views at 64 px, 2 steps)" in said
    assert "apache-2.0" in said and str(CHECKPOINTS / "blockout") in said
    assert main(["models", "info", "blockout", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["pixels"] == 64 and record["decoder"] is True and record["gigabytes"] < 0.05
    assert main(["models", "info", "sv3d-p"]) == 0
    assert "'gsv3d models add sv3d-p' fetches it" in capsys.readouterr().out
    assert main(["models", "info", "nothing"]) == 2
    assert "There are: blockout" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_the_list_for_programs(before: bool, capsys: Any) -> None:
    assert main(["models", "--json", "list"] if before else ["models", "list", "--json"]) == 0
    records = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert list(records) == ["blockout", "sv3d-p", "sv3d-u", "gsv3d-576"]
    assert records["blockout"]["decoder"] and not records["sv3d-u"]["decoder"]
    assert records["blockout"]["license"] == "apache-2.0"
    assert "not for every commercial use" in records["sv3d-p"]["license"]
    assert [r["change"] for r in records.values()] == ["", "add", "add", ""]


@pytest.mark.parametrize(
    ("files", "license"),
    [
        ({}, ""),
        ({"README.md": "---\ntags: [a]\nlicense: mit\n---\n# It\n"}, "mit"),
        ({"README.md": "# It\n\nlicense: none\n"}, ""),
        ({"LICENSE.md": "\n# **MY LICENSE** of 2026\n\nYou may.\n"}, "MY LICENSE of 2026"),
        ({"README.md": "---\nlicense: mit\n---\n", "LICENSE": "MIT License\n"}, "mit"),
    ],
)
def test_the_license_of_a_model(tmp_path: Path, files: dict[str, str], license: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert read_license(tmp_path) == license


def test_the_shipped_model_is_installed_and_small() -> None:
    models = {model.name: model for model in available()}
    blockout = models["blockout"]
    assert blockout.installed and blockout.path == CHECKPOINTS / "blockout"
    size = sum(f.stat().st_size for f in blockout.path.rglob("*") if f.is_file())
    assert size <= 48e6
    assert (blockout.path / "README.md").is_file(), "a model goes with its card"
    assert not models["gsv3d-576"].installed and models["gsv3d-576"].how_to_get


def test_the_memory_a_model_needs_is_twice_its_weights(own_models: Path) -> None:
    tiny.tiny_pipeline().save_pretrained(own_models / "props")
    by_name = {model.name: model for model in available()}
    loaded = load_pipeline("props", device="cpu")
    networks = [part for part in loaded.components.values() if isinstance(part, torch.nn.Module)]
    state = [tensor for network in networks for tensor in network.state_dict().values()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert memory_for(by_name["props"]) == pytest.approx(2 * weights, rel=0.1)
    assert memory_for(by_name["sv3d-p"]) == 0, "it is not there"


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
    """Cut a file of the model short, or write something else into it."""
    folder = tmp_path / "a model with spaces and Umläuten"
    tiny.tiny_pipeline().save_pretrained(folder)
    assert load_pipeline(str(folder), device="cpu").num_frames == 4
    damages = [(path, path.read_bytes()[:-10]) for path in folder.glob("*/*.safetensors")]
    damages += [(path, b"5") for path in folder.glob("**/*.json")]
    assert len(damages) == 12
    for path, damaged in damages:
        whole = path.read_bytes()
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_pipeline(str(folder), device="cpu")
        path.write_bytes(whole)


def test_memory_that_runs_out_is_no_damage(tmp_path: Path, monkeypatch: Any) -> None:
    tiny.tiny_pipeline().save_pretrained(tmp_path / "model")

    def from_pretrained(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("gsv3d.pipeline.GSV3DPipeline.from_pretrained", from_pretrained)
    with pytest.raises(GSV3DError, match="memory of this computer was not enough"):
        load_pipeline(str(tmp_path / "model"), device="cpu")


def test_odd_files_of_a_model_hide_no_other(own_models: Path, capsys: Any) -> None:
    """List a model whose description is not UTF-8, license a folder, and index without classes."""
    tiny.tiny_pipeline().save_pretrained(own_models / "odd")
    (own_models / "odd" / "description.txt").write_bytes("Möbel".encode("latin-1"))
    (own_models / "odd" / "LICENSES").mkdir()
    tiny.tiny_pipeline().save_pretrained(own_models / "wrong")
    for value in (5, True, {"a": 1}):
        index = json.loads((own_models / "odd" / "model_index.json").read_text())
        text = json.dumps(index | {"decoder": value})
        (own_models / "wrong" / "model_index.json").write_text(text)
        models = {model.name: model for model in available()}
        assert models["odd"].installed and models["odd"].license == ""
        assert models["odd"].description == "M\ufffdbel"
    (own_models / "odd" / "unet" / "config.json").write_text('{"sample_size": "x"}')
    (own_models / "odd" / "vae" / "config.json").write_text('{"block_out_channels": 5}')
    assert main(["models", "info", "odd"]) == 0
    assert "(None views at None px" in capsys.readouterr().out


@pytest.mark.parametrize("name", [300 * "a", "~nobody-of-this-name/model"])
def test_a_name_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(ModelError, match=f"There is no model '{name}'"):
        find(name)


def test_a_package_that_lacks_its_models_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("gsv3d.models.CHECKPOINTS", tmp_path / "gone")
    with pytest.raises(ModelError, match="Install the package again"):
        find("blockout")


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


def test_a_model_of_full_size_wants_a_card(own_models: Path, monkeypatch: Any) -> None:
    tiny.tiny_pipeline().save_pretrained(own_models / "large")
    monkeypatch.setattr("gsv3d.models.FULL_SIZE_BYTES", 1000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="made for a graphics card.*many hours. .* --device cpu"):
        load_pipeline("large")
    assert load_pipeline("large", device="cpu", memory="8").num_frames == 4
