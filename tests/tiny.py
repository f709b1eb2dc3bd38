# SPDX-License-Identifier: Apache-2.0
"""The smallest configuration of the real classes, with fresh weights, and orbits to train it on."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsv3d.cameras import FOV_DEG, orbit
from gsv3d.gaussians import Gaussians
from gsv3d.lab.datasets.orbits import OrbitRecord
from gsv3d.lab.datasets.shards import write_record
from gsv3d.lab.training.bank import (
    BankSettings,
    Orbit,
    OrbitBank,
    make_record,
    open_arrays,
    prepare_bank,
)
from gsv3d.lab.training.config import ModelConfig, build
from gsv3d.lab.training.stages import CLASSES
from gsv3d.lab.training.tasks import Setup
from gsv3d.pipeline import GSV3DPipeline
from gsv3d.rendering import render

SIZE = 32

CONFIG = ModelConfig(
    name="tiny",
    description="The smallest of the real classes.",
    image_size=SIZE,
    num_frames=4,
    num_inference_steps=3,
    max_guidance_scale=1.5,
    components={
        "vae": {
            "in_channels": 4,
            "out_channels": 4,
            "latent_channels": 4,
            "block_out_channels": [8, 8, 16],
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": SIZE,
            "scaling_factor": 1.0,
        },
        "unet": {
            "sample_size": 8,
            "in_channels": 8,
            "out_channels": 4,
            "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
            "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
            "block_out_channels": [32, 32],
            "addition_time_embed_dim": 16,
            "projection_class_embeddings_input_dim": 80,
            "layers_per_block": 1,
            "cross_attention_dim": 16,
            "num_attention_heads": [2, 2],
        },
        "image_encoder": {
            "image_size": SIZE,
            "patch_size": 16,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 16,
        },
        "feature_encoder": {
            "image_size": SIZE,
            "patch_size": 16,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_ratio": 2,
        },
        "decoder": {
            "latent_channels": 4,
            "latent_size": 8,
            "patch_size": 1,
            "dim": 32,
            "num_layers": 2,
            "num_attention_heads": 2,
            "cross_attention_dim": 16,
            "upsample_stages": 1,
            "scale_min": 0.004,
            "scale_max": 0.08,
        },
        "scheduler": {
            "prediction_type": "v_prediction",
            "timestep_type": "continuous",
            "timestep_spacing": "leading",
            "steps_offset": 1,
            "use_karras_sigmas": True,
            "sigma_min": 0.02,
            "sigma_max": 80.0,
            "beta_schedule": "scaled_linear",
        },
    },
    stages={
        "autoencoder": {"schedule": {"steps": 4, "batch_size": 4, "save_every": 2}},
        "multiview": {"schedule": {"steps": 4, "batch_size": 2, "save_every": 2}},
        "decoder": {"schedule": {"steps": 4, "batch_size": 2, "save_every": 2}},
        "distill": {
            "lora_rank": 2,
            "sample_steps": 2,
            "schedule": {"steps": 4, "batch_size": 2, "save_every": 2},
        },
    },
)


def with_volume() -> ModelConfig:
    """Return ``CONFIG`` with a feature volume in its decoder."""
    decoder = CONFIG.components["decoder"] | {
        "volume_size": 8, "volume_dim": 4, "volume_samples": 8,
    }  # fmt: skip
    return replace(CONFIG, components=CONFIG.components | {"decoder": decoder})


def with_hints() -> ModelConfig:
    """Return ``CONFIG`` with a hinted UNet."""
    unet = CONFIG.components["unet"] | {"hinted": True, "in_channels": 12}
    return replace(CONFIG, components=CONFIG.components | {"unet": unet})


def tiny_pipeline(seed: int = 0, config: ModelConfig = CONFIG) -> GSV3DPipeline:
    """Return a pipeline with fresh weights."""
    torch.manual_seed(seed)
    modules = {name: build(config, name) for name in config.components}
    pipeline = GSV3DPipeline(
        num_inference_steps=CONFIG.num_inference_steps,
        max_guidance_scale=CONFIG.max_guidance_scale,
        **modules,
    )
    for module in modules.values():
        if isinstance(module, torch.nn.Module):
            module.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(seed: int = 0) -> np.ndarray:
    """Return a prepared (SIZE, SIZE, 4) uint8 picture: a disc with a gradient."""
    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1)
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[..., 0] = 255 * x
    rgba[..., 1] = 255 * y
    rgba[..., 2] = 40 * (seed % 5)
    rgba[..., 3] = 255 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)
    return rgba


def ball_orbit(name: str = "ball", views: int = 8, novel: int = 3, seed: int = 0) -> Orbit:
    """Return an orbit of a colored ellipsoid shell of Gaussians, as ``gsv3d render`` stores it."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(600, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gaussians = Gaussians.from_rgb(
        means=torch.tensor(directions * [0.3, 0.2, 0.45], dtype=torch.float32),
        quats=torch.tensor([[1.0, 0, 0, 0]]).expand(600, 4),
        scales=torch.full((600, 3), 0.03),
        opacities=torch.full((600,), 0.95),
        rgb=torch.tensor(directions * 0.5 + 0.5, dtype=torch.float32),
    )
    azimuths = [360.0 * i / views for i in range(views)] + rng.uniform(0, 360, novel).tolist()
    elevations = [10.0] * views + rng.uniform(-20, 60, novel).tolist()
    out = render(gaussians, orbit(azimuths, elevations, size=SIZE))
    alpha = out.alpha.clamp(0, 1)
    color = (out.color / alpha.clamp_min(1e-4)).clamp(0, 1)
    rgba = (torch.cat([color, alpha], -1) * 255).round().to(torch.uint8).numpy()
    depth = torch.where(alpha > 0.5, out.depth, 0.0)[..., 0]
    return Orbit(
        name=name,
        rgba=rgba,
        depth=depth.numpy().astype(np.float16),
        azimuths_deg=np.array(azimuths, np.float32),
        elevations_deg=np.array(elevations, np.float32),
        num_orbit=views,
        distance=2.35,
    )


def bank_of(*orbits: Orbit) -> OrbitBank:
    """Return a bank of orbits that are alike, in a folder that is deleted when the tests end."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    first = orbits[0]
    novel = len(first.rgba) - first.num_orbit
    settings = BankSettings(first.rgba.shape[1], first.num_orbit, novel, variants=1)
    names = [orbit.name for orbit in orbits]
    prepare_bank(folder, make_record(names, settings, first.distance))
    arrays = open_arrays(folder, "r+", settings)
    for name in arrays.keys() - {"done"}:
        arrays[name][:] = [getattr(orbit, name) for orbit in orbits]
    arrays["done"][:] = True
    return OrbitBank(folder)


def as_record(orbit_: Orbit) -> OrbitRecord:
    """Return an orbit as ``gsv3d render`` stores it."""
    size = orbit_.rgba.shape[1]
    cameras = orbit(orbit_.azimuths_deg.tolist(), orbit_.elevations_deg.tolist(), size=size)
    return OrbitRecord(
        name=orbit_.name,
        rgba=orbit_.rgba,
        depth=orbit_.depth.astype(np.float32),
        azimuths_deg=orbit_.azimuths_deg,
        elevations_deg=orbit_.elevations_deg,
        viewmats=cameras.viewmats.numpy(),
        intrinsics=cameras.Ks[0].numpy(),
        num_orbit=orbit_.num_orbit,
        orbit="static",
        distance=orbit_.distance,
        fov_deg=FOV_DEG,
        transform=np.eye(4),
        source={"pack": "tiny", "split": "train", "license": "CC0-1.0"},
        render={"light": "flat"},
    )


def write_orbit(orbit_: Orbit, folder: Path) -> Path:
    """Store an orbit in a shard of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{orbit_.name}-000000.tar"
    path.write_bytes(write_record(as_record(orbit_)))
    return path


def setup(
    orbits: OrbitBank,
    settings: Any,
    config: ModelConfig = CONFIG,
    device: torch.device | str = "cpu",
    **given: torch.nn.Module,
) -> Setup:
    """Return what a stage's task is made of: fresh components, but for those that are given."""
    fresh = {name: build(config, name) for name in CLASSES if name not in given}
    return Setup(fresh | given, orbits, config.num_frames, torch.device(device), settings)
