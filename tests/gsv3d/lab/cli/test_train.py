# SPDX-License-Identifier: Apache-2.0
"""``gsv3d train``: the stages in a row on tiny data, and its complaints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from gsv3d.cli import main
from tests import tiny


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(tiny.CONFIG)))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tiny.write_orbit(tiny.ball_orbit(), tmp_path / "data")
    return tmp_path / "data"


def test_stages_train_resume_and_assemble(tmp_path: Path, config: Path, data: Path) -> None:
    def train(stage: str, *more: str) -> int:
        return main(
            ["train", stage, "--config", str(config), "--data", str(data), "--device", "cpu",
             "--output", str(tmp_path / stage), *more]
        )  # fmt: skip

    vae = ["--vae", str(tmp_path / "autoencoder" / "vae")]
    assert train("autoencoder", "--steps", "1") == 0
    assert train("autoencoder", "--steps", "2", "--resume") == 0
    assert train("multiview", "--steps", "1", *vae) == 0
    assert train("decoder", "--steps", "1", "--sample-every", "1", *vae) == 0
    folders = [str(tmp_path / stage) for stage in ("autoencoder", "multiview", "decoder")]
    assert train("distill", "--steps", "1", "--from", *folders) == 0
    assert (tmp_path / "distill" / "lora" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "decoder" / "samples" / "renders-0000001.png").is_file()
    assert any((tmp_path / "decoder" / "tensorboard").iterdir())
    assert len((tmp_path / "autoencoder" / "log.csv").read_text().splitlines()) == 3
    curves = tmp_path / "curves.png"
    assert main(["train", "plot", str(tmp_path / "autoencoder"), "--output", str(curves)]) == 0
    assert curves.read_bytes().startswith(b"\x89PNG")
    stages = [*folders, str(tmp_path / "distill")]
    model = tmp_path / "model"
    assert main(["train", "assemble", "--config", str(config), "--stages", *stages,
                 "--output", str(model)]) == 0  # fmt: skip
    assert (model / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("stage", "more", "words"),
    [
        ("autoencoder", ["--data", "{empty}"], "no rendered orbits"),
        ("autoencoder", ["--config", "nothing"], "no configuration 'nothing'"),
        ("autoencoder", ["--learning-rate", "7"], "learning_rate"),
        ("autoencoder", ["--resume"], "resume"),
        ("decoder", ["--vae", "{empty}"], "No AutoencoderKL"),
        ("multiview", [], "needs a trained 'vae'"),
        ("distill", ["--from", "{empty}"], "needs a trained 'unet'"),
        ("autoencoder", ["--batch-size", "0"], "0 as 'batch_size', which must be greater"),
        ("autoencoder", ["--tracker", "abacus"], "no tracker 'abacus'"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, config: Path, data: Path, capsys, stage: str, more: list[str], words: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = {"--config": str(config), "--data": str(data), "--device": "cpu"}
    given = [word.format(empty=empty) for word in more]
    for name, value in arguments.items():
        if name not in given:
            given += [name, value]
    assert main(["train", stage, *given, "--output", str(tmp_path / "out")]) != 0
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
