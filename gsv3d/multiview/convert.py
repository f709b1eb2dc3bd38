# SPDX-License-Identifier: Apache-2.0
"""SV3D's published files to a model's folder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import __version__ as diffusers_version
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from gsv3d.errors import ModelError
from gsv3d.multiview import names
from gsv3d.multiview.tensors import GET_AGAIN, Made, read_shapes, write_tensors
from gsv3d.multiview.unet import SV3DUNetSpatioTemporalConditionModel
from gsv3d.outputs import check_room, make_folder, whole_folder

IMAGE_SIZE, LATENT_SIZE, NUM_FRAMES, NUM_STEPS, MAX_GUIDANCE = 576, 72, 21, 50, 2.5
"""Values of SV3D that its files do not hold."""

FRAMING = 0.9
"""Share of the picture that SV3D's objects fill: they were rendered as near as they fit (SV3D,
appendix B), and the script of SV4D frames pictures at 0.917 for the same model."""

UNET_HEAD, CLIP_HEAD = 64, 80
"""Channels of one attention head, which shapes do not tell."""

VERSIONS = {256: "u", 1280: "p"}
"""SV3D_u or SV3D_p, by how many numbers condition a frame: cond_aug alone, or with two angles."""

SCHEDULER = {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "beta_schedule": "scaled_linear",
}

DESCRIPTIONS = {
    "p": "SV3D_p: 21 views at 576 px, from the elevation asked for.",
    "u": "SV3D_u: 21 views at 576 px, from the picture's own elevation.",
}

Progress = Callable[[int, int], None]
"""Told of bytes written, and of all bytes to write; may raise to end the conversion."""


@dataclass(frozen=True)
class Component:
    """A network of the model: its folder and file, its configuration and its tensors."""

    folder: str
    weights: str
    save_config: Callable[[Path], Any]
    tensors: list[Made]


def convert(
    source: Path,
    target: Path,
    version: str | None = None,
    progress: Progress = lambda *_: None,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write SV3D's UNet, CLIP tower and VAE as a folder in diffusers' layout, in float16.

    One tensor at a time is in memory. The folder appears when it is complete.

    Args:
        source: ``sv3d_p.safetensors`` or ``sv3d_u.safetensors``.
        target: the folder; it must not exist.
        version: "p" or "u", where it must be that one.
        progress: told how far it is.
        texts: contents of files to put beside the model, by their names.

    Returns:
        "p" or "u".

    Raises:
        ModelError: the file is not SV3D's, is damaged, or is of the other version.
        OutputError: the disk has no room, or the folder cannot be written.
    """
    shapes = read_shapes(source)
    found = find_version(source, shapes)
    if version not in (None, found):
        raise ModelError(
            f"{source} is SV3D_{found}, not SV3D_{version}: it was trained"
            f" {'with' if found == 'p' else 'without'} the cameras of its views.",
            f"Give sv3d_{version}.safetensors, or convert it as what it is.",
        )
    components = plan(source, shapes)
    make_folder(target.parent)
    total = sum(made.size for component in components for made in component.tensors)
    check_room(f"{target} needs", total, target.parent)
    with whole_folder(target) as partial:
        written = 0

        def told(count: int) -> None:
            nonlocal written
            written += count
            progress(written, total)

        for component in components:
            folder = partial / component.folder
            component.save_config(folder)
            write_tensors(folder / component.weights, component.tensors, source, told)
        EulerDiscreteScheduler(**SCHEDULER).save_pretrained(partial / "scheduler")
        (partial / "model_index.json").write_text(json.dumps(_index(), indent=2), "utf-8")
        for name, text in {"description.txt": DESCRIPTIONS[found] + "\n", **texts}.items():
            (partial / name).write_text(text, "utf-8")
    return found


def find_version(source: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    """Return "p" or "u", by how many numbers condition a frame.

    Raises:
        ModelError: it is no file of SV3D.
    """
    for part, prefix in names.PREFIXES.items():
        if not any(name.startswith(prefix) for name in shapes):
            raise ModelError(
                f"{source} is no file of SV3D: {part} ('{prefix}...') is not in it.", GET_AGAIN
            )
    width = _shape(source, shapes, f"{names.UNET}label_emb.0.0.weight")[-1]
    if width not in VERSIONS:
        raise ModelError(
            f"{source} is no file of SV3D: its frames are conditioned by {width} numbers, and"
            f" SV3D's by {' or '.join(map(str, VERSIONS))}.",
            GET_AGAIN,
        )
    return VERSIONS[width]


def plan(source: Path, shapes: dict[str, tuple[int, ...]]) -> list[Component]:
    """Return the networks of a file, and what each of their tensors is made of.

    Raises:
        ModelError: tensors are missing, of another shape, or cannot be placed.
    """
    unet, vae, clip = _networks(source, shapes)
    levels = len(vae.config["block_out_channels"])

    def tensors(module: nn.Module, source_of: Callable[[str], str | None]) -> list[Made]:
        state = module.state_dict().items()
        return [Made(name, tuple(value.shape), source_of(name)) for name, value in state]

    components = [
        Component("unet", "diffusion_pytorch_model.safetensors", unet.save_config,
                  tensors(unet, names.of_unet)),
        Component("vae", "diffusion_pytorch_model.safetensors", vae.save_config,
                  tensors(vae, lambda name: names.of_vae(name, levels))),
        Component("image_encoder", "model.safetensors", clip.config.save_pretrained,
                  tensors(clip, names.of_clip)),
    ]  # fmt: skip
    made = [one for component in components for one in component.tensors if one.source is not None]
    used = {str(one.source) for one in made}
    missing = sorted(used - shapes.keys())
    if missing:
        raise ModelError(f"{source} lacks {_listed(missing)}.", GET_AGAIN)
    extra = sorted(n for n in shapes.keys() - used if not names.LEFT_OVER.fullmatch(n))
    if extra:
        raise ModelError(f"{source} has {_listed(extra)}, for which SV3D has no place.", GET_AGAIN)
    wrong = sorted({str(one.source) for one in made if not one.fits(shapes[str(one.source)])})
    if wrong:
        raise ModelError(f"{source} has {_listed(wrong)} of another shape than SV3D's.", GET_AGAIN)
    return components


def _networks(
    source: Path, shapes: dict[str, tuple[int, ...]]
) -> tuple[SV3DUNetSpatioTemporalConditionModel, AutoencoderKL, CLIPVisionModelWithProjection]:
    """Make the three networks, without weights, as large as the file's shapes say."""

    def shape(name: str) -> tuple[int, ...]:
        return _shape(source, shapes, name)

    inputs = f"{names.UNET}input_blocks"
    widths = [shape(f"{inputs}.{block}.0.in_layers.2.weight")[0] for block in (1, 4, 7, 10)]
    encoder = f"{names.ENCODER}encoder.down"
    channels = [shape(f"{encoder}.{level}.block.0.conv1.weight")[0] for level in range(4)]
    latent_channels = shape(f"{names.UNET}out.2.weight")[0]
    visual = f"{names.CLIP}visual."
    layer = re.compile(re.escape(visual) + r"transformer\.resblocks\.(\d+)\.")
    width, _, patch, _ = shape(f"{visual}conv1.weight")
    side = math.isqrt(shape(f"{visual}positional_embedding")[0] - 1)
    with torch.device("meta"):
        unet = SV3DUNetSpatioTemporalConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=2 * latent_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(widths),
            projection_class_embeddings_input_dim=shape(f"{names.UNET}label_emb.0.0.weight")[1],
            cross_attention_dim=shape(
                f"{inputs}.1.1.transformer_blocks.0.attn2.to_k.weight"
            )[1],
            num_attention_heads=tuple(max(1, w // UNET_HEAD) for w in widths),
            num_frames=NUM_FRAMES,
        )  # fmt: skip
        vae = AutoencoderKL(
            latent_channels=latent_channels,
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            layers_per_block=2,
            sample_size=IMAGE_SIZE,
            scaling_factor=0.18215,
            force_upcast=True,
        )
        config = CLIPVisionConfig(
            image_size=side * patch,
            patch_size=patch,
            hidden_size=width,
            intermediate_size=shape(f"{visual}transformer.resblocks.0.mlp.c_fc.weight")[0],
            num_hidden_layers=len({m.group(1) for n in shapes if (m := layer.match(n))}),
            num_attention_heads=max(1, width // CLIP_HEAD),
            projection_dim=shape(f"{visual}proj")[1],
            hidden_act="gelu",
            architectures=["CLIPVisionModelWithProjection"],
        )
        clip = CLIPVisionModelWithProjection(config)
    return unet, vae, clip


def _index() -> dict[str, Any]:
    """Return the pipeline's index, which diffusers reads first."""
    return {
        "_class_name": "GSV3DPipeline",
        "_diffusers_version": diffusers_version,
        "vae": ["diffusers", "AutoencoderKL"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "feature_encoder": [None, None],
        "unet": ["gsv3d.multiview.unet", "SV3DUNetSpatioTemporalConditionModel"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "decoder": [None, None],
        "num_inference_steps": NUM_STEPS,
        "max_guidance_scale": MAX_GUIDANCE,
        "orbit": "static",
        "depth_prior": 0.0,
        "shape_prior": 0.0,
        "framing": FRAMING,
    }


def _shape(source: Path, shapes: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ModelError(f"{source} lacks 1 tensor: {name}.", GET_AGAIN)
    return shapes[name]


def _listed(tensors: Sequence[str]) -> str:
    """Return how many tensors there are, with the names of the first three."""
    first = ", ".join(tensors[:3])
    rest = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    return f"{len(tensors)} tensor{'s' * (len(tensors) > 1)}: {first}{rest}"
