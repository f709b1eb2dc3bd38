# SPDX-License-Identifier: Apache-2.0
"""Making a stage's task of folders and options: components found, mistakes refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsv3d.errors import DataError, ModelError
from gsv3d.lab.training.config import build, read_config
from gsv3d.lab.training.stages import CLASSES, make_task
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


def with_options(stage: str, **options):
    return replace(
        tiny.CONFIG, stages=tiny.CONFIG.stages | {stage: tiny.CONFIG.stages[stage] | options}
    )


def test_a_stage_starts_from_the_components_that_are_there(model: Path, orbits) -> None:
    task = make_task(tiny.CONFIG, "multiview", orbits, CPU, start=[model])
    started = task.modules["unet"].state_dict()
    saved = CLASSES["unet"].from_pretrained(model / "unet").state_dict()
    assert all(torch.equal(started[name], tensor) for name, tensor in saved.items())
    by_init = make_task(with_options("multiview", init=str(model)), "multiview", orbits, CPU)
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
    unet = tiny.CONFIG.components["unet"] | {"block_out_channels": [32, 64]}
    other = replace(tiny.CONFIG, components=tiny.CONFIG.components | {"unet": unet})
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
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ModelError, match=words):
        make_task(with_options(stage, **options), stage, orbits, CPU, start=[model])


def test_a_scheduler_without_its_noise_levels_is_named(model: Path, orbits) -> None:
    scheduler = {k: v for k, v in tiny.CONFIG.components["scheduler"].items() if k != "sigma_max"}
    config = replace(tiny.CONFIG, components=tiny.CONFIG.components | {"scheduler": scheduler})
    with pytest.raises(ModelError, match="no field 'components.scheduler.sigma_max'"):
        make_task(config, "multiview", orbits, CPU, start=[model])


def test_an_autoencoder_without_what_its_latents_are_normalized_by(orbits) -> None:
    vae = tiny.CONFIG.components["vae"] | {"use_quant_conv": False}
    config = replace(tiny.CONFIG, components=tiny.CONFIG.components | {"vae": vae})
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
