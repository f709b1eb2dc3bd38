# SPDX-License-Identifier: Apache-2.0
"""Distill the decoder's geometry into the multi-view model (GSV3D, stage 2, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from gsv3d.errors import ModelError
from gsv3d.lab.training.batches import to_device
from gsv3d.lab.training.edm import NoiseSettings, karras_sigmas
from gsv3d.lab.training.fields import Positive, Views, Weight, Words
from gsv3d.lab.training.geometry_loss import GeometrySettings, compare_renders
from gsv3d.lab.training.log import on_white
from gsv3d.lab.training.samples import OrbitSamples
from gsv3d.lab.training.tasks.base import Setup, save_components
from gsv3d.lab.training.tasks.decoder import GeometryTask
from gsv3d.lab.training.tasks.multiview import decode_views, estimate_latents, sample_views
from gsv3d.multiview.conditioning import embed_for_cross_attention

SHOWN = 2
"""Number of objects of a drawn sample."""
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Linear layers of the spatial and temporal attentions."""


@dataclass(frozen=True)
class DistillSettings(GeometrySettings, NoiseSettings):
    """Options of the stage; see the two base classes for the others.

    Attributes:
        lora_rank: rank of the UNet's low-rank updates; 0 trains the whole UNet.
        lora_alpha: the scale of the updates is lora_alpha / lora_rank.
        lora_targets: names of the linear layers that get updates.
        train_decoder: train the decoder and its DINO too.
        train_unet: False trains the decoder alone, on the UNet's estimates: no distillation.
        geometry_weight: weight of L_3D, lambda.
        gate_full: noise level up to which L_3D has its full weight.
        gate_none: noise level from which on L_3D has no weight; between the two the weight falls
            linearly with the level's logarithm.
    """

    lora_rank: Annotated[int, Field(ge=0, le=65536)] = 16
    lora_alpha: Positive = 16.0
    lora_targets: Words = TARGETS
    train_decoder: bool = True
    train_unet: bool = True
    geometry_weight: Weight = 1.0
    gate_full: Positive = 1.0
    gate_none: Positive = 5.0
    num_input: Views = 1
    pixel_weight: Weight = 0.0


class DistillTask(GeometryTask):
    """L_2D + lambda * gate(sigma) * L_3D, through the decoder into the UNet.

    At a drawn noise level the decoder turns the UNet's estimated latents into Gaussians. These are
    rendered at input and novel views (color and depth), and the error is propagated back
    into the UNet (GSV3D, figure 1 b). The reference frame keeps its true latent, as it does in
    generation. At high noise levels the estimate is a blur of all that the object could be and
    cannot have the true surface, so ``gate`` fades L_3D out. Samples without a reference have no
    L_3D.

    Raises:
        ModelError: an option cannot be used.
    """

    name = "distill"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, SHOWN)
        self.settings = settings = setup.settings
        self.unet, self.image_encoder = (setup.modules[n] for n in ("unet", "image_encoder"))
        self.lora = settings.lora_rank > 0 and settings.train_unet
        if self.lora:
            add_lora(self.unet, settings.lora_rank, settings.lora_alpha, settings.lora_targets)
        trained = ["unet"] * settings.train_unet
        trained += ["decoder", "feature_encoder"] * settings.train_decoder
        self.modules = setup.to_train(*trained)
        frozen = {name: setup.frozen(name) for name in setup.modules if name not in trained}
        self.frozen = nn.ModuleDict(frozen)
        self.levels = settings.noise_levels()
        self.sigmas = karras_sigmas(settings.sample_steps, *setup.sigma_range)

    def gate(self, sigma: Tensor) -> Tensor:
        """Return the weight of L_3D in 0..1 at noise levels."""
        full, none = self.settings.gate_full, self.settings.gate_none
        return ((math.log(none) - sigma.log()) / math.log(none / full)).clamp(0, 1)

    def loss(self, batch: OrbitSamples) -> tuple[Tensor, dict[str, Tensor]]:
        pictures, encoded = self.encode(batch)
        latents = encoded * self.vae.config.scaling_factor
        with torch.no_grad():
            context = embed_for_cross_attention(self.image_encoder, pictures[:, -1])
        with torch.set_grad_enabled(self.settings.train_unet):
            estimated, squared, levels, kept = estimate_latents(
                self.unet, self.vae, self.levels, self.settings.drop_condition, batch,
                pictures[:, -1], encoded, context,
            )  # fmt: skip
        flat = (squared * self.levels.frame_weights(batch.pose)).mean()
        gates = self.gate(levels) * kept
        chosen = gates.nonzero()[:, 0].tolist()
        nothing = torch.full((), math.nan, device=self.device)
        if not chosen:
            # The same names at every step: several processes average them by name.
            missing = dict.fromkeys(("geometry", *self.geometry.names), nothing)
            if not self.settings.train_unet:  # the backward pass needs a gradient path
                flat = flat + sum(p.sum() for p in self.modules.parameters()) * 0
            return flat, {"flat": flat.detach()} | missing
        samples = batch[chosen]
        given = keep_reference(estimated[chosen], latents[chosen])
        decoded = self.decode(given, pictures[chosen], samples.cameras())
        totals, parts = self.geometry(decoded, samples)
        gate = gates[chosen].to(totals)
        loss = flat + self.settings.geometry_weight * (gate * totals).sum() / len(batch)
        solid = (gate * totals.detach()).sum() / gate.sum()
        return loss, {"flat": flat.detach(), "geometry": solid} | parts

    @torch.no_grad()
    def samples(self) -> dict[str, Tensor]:
        """Draw views and renders of Gaussians from the shown references."""
        shown = to_device(self.shown, self.device)
        pictures, encoded = self.encode(shown)
        context = embed_for_cross_attention(self.image_encoder, pictures[:, -1])
        reference = encoded[:, -1]
        latents = sample_views(
            self.unet, self.vae, self.sigmas, shown, pictures[:, -1], reference, context
        )
        views = torch.stack([on_white(pictures), decode_views(self.vae, latents)], dim=1)
        given = keep_reference(latents, encoded * self.vae.config.scaling_factor)
        decoded = self.decode(given, pictures, shown.cameras())
        return {"views": views.flatten(0, 1), "renders": compare_renders(decoded, shown)}

    def export(self, modules: nn.ModuleDict, directory: Path) -> None:
        if self.lora:
            save_lora(modules["unet"], directory / "lora")
            fused = {"unet": fuse_lora(modules["unet"])}
            modules = nn.ModuleDict({name: module for name, module in modules.items()} | fused)
        save_components(modules, directory)


def keep_reference(estimated: Tensor, true: Tensor) -> Tensor:
    """Replace the last frame, the reference, of (B, T, L, h, w) latents by the true one."""
    return torch.cat([estimated[:, :-1], true[:, -1:]], dim=1)


def add_lora(unet: nn.Module, rank: int, alpha: float, targets: Sequence[str] = TARGETS) -> None:
    """Freeze a network and add trainable low-rank updates to linear layers, zero at the start.

    Cross-attention sees a single token, the reference's embedding, so its queries and keys have no
    effect and get no updates.

    Args:
        unet: network to change in place.
        rank: rank of the updates, at least 1.
        alpha: the scale of the updates is alpha / rank.
        targets: endings of the layers' names.

    Raises:
        ModelError: no linear layer has such a name, or peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError(
            "LoRA needs the package peft, which is not installed.",
            "pip install peft, or set lora_rank to 0, which trains the whole UNet.",
        ) from error

    names = [
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear)
        and any(name == target or name.endswith(f".{target}") for target in targets)
        and not name.endswith(("attn2.to_q", "attn2.to_k"))
    ]
    if not names:
        raise ModelError(
            f"The UNet has no linear layer named {' or '.join(targets)}.",
            "Correct lora_targets in the configuration.",
        )
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0)
    inject_adapter_in_model(config, unet)


def save_lora(unet: nn.Module, directory: Path) -> None:
    """Write only the updates, in peft's layout: adapter_model.safetensors, adapter_config.json."""
    from peft import get_peft_model_state_dict

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(unet).items()
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    unet.peft_config["default"].save_pretrained(directory)


@torch.no_grad()
def fuse_state(unet: nn.Module) -> dict[str, Tensor]:
    """Return the state of an equivalent network without LoRA."""
    from peft.tuners.lora import LoraLayer

    state = {}
    layers = {name: m for name, m in unet.named_modules() if isinstance(m, LoraLayer)}
    for name, tensor in unet.state_dict().items():
        if ".lora_" in name:
            continue
        layer = name.split(".base_layer.")[0] if ".base_layer." in name else None
        if layer is not None and name.endswith("base_layer.weight"):
            tensor = tensor + layers[layer].get_delta_weight("default").to(tensor)
        state[name.replace(".base_layer.", ".")] = tensor
    return state


def fuse_lora(unet: nn.Module) -> nn.Module:
    """Return an equivalent network without LoRA; the given one stays as it is."""
    plain = type(unet).from_config(unet.config)
    plain.load_state_dict(fuse_state(unet))
    return plain.to(next(unet.parameters()).dtype).eval()
