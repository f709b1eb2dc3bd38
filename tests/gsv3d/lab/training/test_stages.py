# SPDX-License-Identifier: Apache-2.0
"""A stage's task of folders and options; changes that resuming accepts or refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from gsv3d.cli import main
from gsv3d.errors import DataError, ModelError
from gsv3d.lab.training.config import STAGES, ModelConfig, build, read_config
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.stages import CLASSES, describe_configuration, make_task
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def orbits():
    return tiny.bank_of(tiny.ball_orbit())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Return a folder with all components."""
    folder = tmp_path_factory.mktemp("modèle")
    tiny.tiny_pipeline(3).save_pretrained(folder)
    return folder


def with_stage(stage: str, **changes: Any) -> ModelConfig:
    fields = tiny.CONFIG.stages[stage] | changes
    return replace(tiny.CONFIG, stages=tiny.CONFIG.stages | {stage: fields})


def with_component(component: str, **changes: Any) -> ModelConfig:
    fields = tiny.CONFIG.components[component] | changes
    return replace(tiny.CONFIG, components=tiny.CONFIG.components | {component: fields})


def test_a_stage_starts_from_the_components_that_are_there(model: Path, orbits) -> None:
    task = make_task(tiny.CONFIG, "multiview", orbits, CPU, start=[model])
    started = task.modules["unet"].state_dict()
    saved = CLASSES["unet"].from_pretrained(model / "unet").state_dict()
    assert all(torch.equal(started[name], tensor) for name, tensor in saved.items())
    by_init = make_task(with_stage("multiview", init=str(model)), "multiview", orbits, CPU)
    assert torch.equal(by_init.modules["unet"].conv_in.weight, started["conv_in.weight"])
    fresh = make_task(tiny.CONFIG, "multiview", orbits, CPU, vae=model / "vae")
    assert not torch.equal(fresh.modules["unet"].conv_in.weight, started["conv_in.weight"])


def test_the_number_of_views_may_change_from_what_was_trained(model: Path, tmp_path: Path) -> None:
    config = replace(tiny.CONFIG, num_frames=8)
    task = make_task(config, "distill", tiny.bank_of(tiny.ball_orbit()), CPU, start=[model])
    task.modules["unet"].save_pretrained(tmp_path)
    assert CLASSES["unet"].from_pretrained(tmp_path).config.num_frames == 8


def test_orbits_with_too_few_views_are_refused_before_anything_is_trained(model: Path) -> None:
    orbits = tiny.bank_of(tiny.ball_orbit(views=3))
    for stage in ("multiview", "decoder", "distill"):
        with pytest.raises(DataError, match="orbits have 3 views each, fewer than the 4 asked for"):
            make_task(tiny.CONFIG, stage, orbits, CPU, start=[model])
    make_task(tiny.CONFIG, "autoencoder", orbits, CPU)


def test_what_other_stages_train_must_be_there(model: Path, orbits, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs a trained 'vae'.*--vae or --from"):
        make_task(tiny.CONFIG, "decoder", orbits, CPU)
    with pytest.raises(ModelError, match="needs a trained 'unet', which was looked for in"):
        make_task(tiny.CONFIG, "distill", orbits, CPU, start=[tmp_path], vae=model / "vae")
    assert make_task(tiny.CONFIG, "distill", orbits, CPU, start=[model]).lora


def test_a_component_of_another_size_is_refused(model: Path, orbits) -> None:
    other = with_component("unet", block_out_channels=[32, 64])
    with pytest.raises(ModelError, match=r"'unet' in .* another configuration than 'tiny': its '"):
        make_task(other, "multiview", orbits, CPU, start=[model])


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        ("decoder", {"color": 1}, "'tiny' has an unknown field 'stages.decoder.color'"),
        ("decoder", {"blur": "1e-1"}, "'stages.decoder.blur', .* a valid number.* 1.0e-4"),
        ("distill", {"train_decoder": 1}, "'stages.distill.train_decoder', .* a valid boolean"),
        ("multiview", {"latents": "tape"}, "'tape' as .* must be 'none', 'memory' or 'disk'"),
        ("decoder", {"lpips_weight": 1.0}, "the package lpips is missing"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    model: Path, orbits, monkeypatch, stage: str, options: dict, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ModelError, match=words):
        make_task(with_stage(stage, **options), stage, orbits, CPU, start=[model])


def test_a_scheduler_without_its_noise_levels_is_named(model: Path, orbits) -> None:
    scheduler = {k: v for k, v in tiny.CONFIG.components["scheduler"].items() if k != "sigma_max"}
    config = replace(tiny.CONFIG, components=tiny.CONFIG.components | {"scheduler": scheduler})
    with pytest.raises(ModelError, match="no field 'components.scheduler.sigma_max'"):
        make_task(config, "multiview", orbits, CPU, start=[model])


def test_an_autoencoder_without_what_its_latents_are_normalized_by(orbits) -> None:
    config = with_component("vae", use_quant_conv=False)
    with pytest.raises(ModelError, match="false as 'components.vae.use_quant_conv', .* be true"):
        make_task(config, "autoencoder", orbits, CPU)


def test_the_full_size_is_sv3ds() -> None:
    """Compare with the parameters in the files of SV3D_p, CLIP ViT-H and SD 2.1's autoencoder."""
    config = read_config("gsv3d-576")
    counts = {
        "unet": 1_525_278_442, "image_encoder": 632_076_800, "vae": 83_653_863,
        "feature_encoder": 86_580_480,
    }  # fmt: skip
    with torch.device("meta"):
        for name, count in counts.items():
            assert sum(p.numel() for p in build(config, name).parameters()) == count
        grid = build(config, "decoder").gaussian_grid
    assert config.num_frames * grid**2 == 331_776
    decoder, distill = config.schedule("decoder"), config.schedule("distill")
    assert (decoder.steps, decoder.batch_size, decoder.learning_rate) == (80_000, 128, 1e-5)
    assert (distill.steps, distill.batch_size, distill.learning_rate) == (40_000, 32, 1e-5)


@pytest.fixture(scope="module")
def runs(model: Path, orbits, tmp_path_factory) -> Path:
    """Write checkpoints of stages before their first step, which is enough to compare."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in STAGES:
        trainer_of(tiny.CONFIG, stage, orbits, model, folder).save()
    return folder


def trainer_of(config: ModelConfig, stage: str, orbits, model: Path, folder: Path) -> Trainer:
    start = {"start": [model]} if stage == "distill" else {"vae": model / "vae"}
    task = make_task(config, stage, orbits, CPU, output=folder / stage, **start)
    return Trainer(task, config.schedule(stage), folder / stage, 0, CPU)


REFUSED = [
    ("autoencoder", with_component("vae", norm_num_groups=2), "components.vae.norm_num_groups"),
    ("autoencoder", with_stage("autoencoder", kl_weight=0.5), "stages.autoencoder.kl_weight"),
    ("multiview", with_component("unet", num_attention_heads=[4, 4]), "num_attention_heads"),
    ("multiview", with_component("vae", scaling_factor=0.5), "components.vae.scaling_factor"),
    ("multiview", with_component("scheduler", sigma_max=700.0), "scheduler.sigma_max"),
    ("multiview", with_stage("multiview", log_sigma_mean=1.5), "multiview.log_sigma_mean"),
    ("multiview", replace(tiny.CONFIG, num_frames=8), "'num_frames' was 4 and is 8"),
    ("decoder", with_component("decoder", scale_max=0.06), "scale_max' was 0.08 and is 0.06"),
    ("decoder", with_component("feature_encoder", hidden_act="relu"), "hidden_act"),
    ("decoder", with_stage("decoder", depth_weight=0.0), "stages.decoder.depth_weight"),
    ("distill", with_stage("distill", lora_alpha=4.0), "lora_alpha' was 16.0 and is 4.0"),
    ("distill", with_component("decoder", offset_max=0.01), "components.decoder.offset_max"),
    ("distill", with_component("image_encoder", hidden_act="gelu"), "image_encoder.hidden_act"),
]


@pytest.mark.parametrize(("stage", "config", "words"), REFUSED)
def test_another_configuration_of_the_same_shapes_is_refused(
    stage: str, config: ModelConfig, words: str, model: Path, orbits, runs: Path
) -> None:
    trainer = trainer_of(config, stage, orbits, model, runs)
    with pytest.raises(ModelError, match="made with another configuration: ") as error:
        trainer.resume()
    assert words in error.value.message and str(runs / stage) in error.value.message


LATER = {
    "steps": 99, "batch_size": 4, "learning_rate": 0.01, "warmup": 3, "ema": 0.5, "minutes": 1.0,
    "save_every": 7, "log_every": 3, "sample_every": 5, "workers": 1, "bf16": True,
}  # fmt: skip
ALLOWED = [
    *((stage, with_stage(stage, schedule=LATER)) for stage in STAGES),
    ("multiview", with_stage("multiview", latents="memory", variants=1, sample_steps=3)),
    # Fields that are now given, with their defaults.
    ("multiview", with_stage("multiview", drop_condition=0.1)),
    ("decoder", with_component("decoder", offset_max=0.03, volume_size=0)),
    # Fields of other stages, or of the pipeline alone.
    ("decoder", with_stage("multiview", log_sigma_mean=1.5)),
    ("decoder", with_component("scheduler", sigma_max=700.0)),
    ("autoencoder", with_component("decoder", scale_max=0.06)),
    ("autoencoder", replace(tiny.CONFIG, num_frames=8)),
    ("distill", replace(tiny.CONFIG, name="other", num_inference_steps=9, depth_prior=1.0)),
]


@pytest.mark.parametrize(("stage", "config"), ALLOWED)
def test_changes_that_do_not_concern_the_weights_are_accepted(
    stage: str, config: ModelConfig, model: Path, orbits, runs: Path
) -> None:
    trainer_of(config, stage, orbits, model, runs).resume()


def test_the_description_is_json_in_the_files_header(runs: Path) -> None:
    with safe_open(runs / "decoder" / "checkpoint.safetensors", framework="pt") as file:
        stored = json.loads(file.metadata()["facts"])["configuration"]
    assert stored["components.decoder.scale_max"] == 0.08
    assert stored["components.decoder.offset_max"] == 0.03  # the class's own default
    assert stored["stages.decoder.num_novel"] == 2
    assert stored["num_frames"] == 4
    assert not [name for name in stored if "schedule" in name or "multiview" in name]
    assert stored == json.loads(json.dumps(describe_configuration(tiny.CONFIG, "decoder")))


def test_a_stage_that_was_run_is_refused_before_anything_is_read(
    runs: Path, tmp_path: Path, capsys
) -> None:
    output = runs / "autoencoder"
    before = (output / "checkpoint.safetensors").read_bytes()
    words = ["train", "autoencoder", "--data", str(tmp_path / "none"), "--output", str(output)]
    assert main([*words, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "an earlier run" in error and "Add --resume" in error and "Traceback" not in error
    assert (output / "checkpoint.safetensors").read_bytes() == before
    # In another folder, or with --resume, the missing data are named.
    for more in (["--output", str(tmp_path / "new")], ["--resume"]):
        assert main([*words, "--device", "cpu", *more]) == 2
        assert "an earlier run" not in capsys.readouterr().err
