# SPDX-License-Identifier: Apache-2.0
"""Count the work of training a configuration, and work out hours and money.

    python benchmarks/training_cost.py gsv3d-576 --rate 715e12 --share 0.05 0.30 --price 2.5

The floating point operations of the matrix products, convolutions and attentions of every stage's
step are counted with torch's counter on tensors without memory, forward and backward, including
what activation checkpointing computes twice. Rendering is no matrix product and not counted. Hours
are that work over ``rate`` times ``share``: the card's rate of plain matrix products, and the share
of it that training reaches, which a run's own log says (column ``mfu`` of ``log.csv``).

With ``--data``, a folder of shards, the loader is measured too: seconds of one core that reading,
decoding and changing a sample takes, and the cores that keep a card busy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from gsv3d.cameras import orbit, static_azimuths_deg
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.batches import Source
from gsv3d.lab.training.config import ModelConfig, build, read_config
from gsv3d.lab.training.edm import denoise
from gsv3d.lab.training.filling import unpack_shards
from gsv3d.lab.training.machine import checkpoint_activations, quick_attention
from gsv3d.lab.training.sources import OrbitSource, PictureSource, ViewSource
from gsv3d.lab.training.tasks.distill import TARGETS, add_lora
from gsv3d.multiview.conditioning import (
    Condition,
    embed_for_cross_attention,
    embed_for_decoder,
    encode_reference,
    pose_ids,
)
from gsv3d.multiview.hints import Hints

STAGES = ("autoencoder", "multiview", "decoder", "distill")


class Work:
    """One sample of every stage, on a configuration's networks.

    Args:
        config: configuration of the model.
        stage: stage whose networks are trained.
    """

    def __init__(self, config: ModelConfig, stage: str) -> None:
        self.config, self.frames = config, config.num_frames
        names = ("vae", "unet", "image_encoder", "feature_encoder", "decoder")
        # Without values: fresh weights could not be drawn without memory.
        with torch.device("meta"):
            self.networks = nn.ModuleDict({name: build(config, name) for name in names})
            self._prepare(stage)
        self.channels = config.components["vae"]["in_channels"]
        elevations = [10.0] * self.frames
        azimuths = static_azimuths_deg(self.frames)
        self.pose = pose_ids(azimuths, elevations)[None]
        self.cameras = orbit(azimuths, elevations, size=config.image_size)

    def place(self) -> None:
        """Replace the weights by tensors on the CPU, made in the torch mode that is active."""
        for module in self.networks.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    empty = torch.empty(weight.shape)
                    module._parameters[name] = nn.Parameter(empty, weight.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)

    def pictures(self, count: int) -> Tensor:
        size = self.config.image_size
        return torch.zeros(count, self.channels, size, size)

    def latents(self) -> Tensor:
        """Return (1, T, L, h, w) latents, all 0."""
        size = self.config.components["unet"]["sample_size"]
        channels = self.config.components["vae"]["latent_channels"]
        return torch.zeros(1, self.frames, channels, size, size)

    def _prepare(self, stage: str) -> None:
        """Set which networks are trained, as the stage's task does."""
        options = self.config.options(stage)
        along = options.get("train_decoder", False)
        trained = {
            "autoencoder": {"vae": True},
            "multiview": {"unet": True, "image_encoder": options.get("train_image_encoder", True)},
            "decoder": {
                "decoder": True,
                "feature_encoder": options.get("train_feature_encoder", True),
            },
            "distill": {"unet": True, "decoder": along, "feature_encoder": along},
        }[stage]
        self.networks.requires_grad_(False)
        for name, learns in trained.items():
            self.networks[name].requires_grad_(learns)
        rank = options.get("lora_rank", 16)
        if stage == "distill" and rank:
            add_lora(self.networks["unet"], rank, 1.0, options.get("lora_targets", TARGETS))
        self.networks.train()
        if self.config.schedule(stage).checkpointing:
            checkpointed = {name: self.networks[name] for name in trained if trained[name]}
            checkpoint_activations(nn.ModuleDict(checkpointed))

    def autoencoder(self) -> None:
        vae = self.networks["vae"]
        vae(self.pictures(1)).sample.sum().backward()

    def encode(self) -> None:
        with torch.no_grad():
            encode_reference(self.networks["vae"], self.pictures(self.frames))

    def multiview(self) -> None:
        if self.config.options("multiview").get("latents", "none") == "none":
            self.encode()
        self.estimate().sum().backward()

    def estimate(self) -> Tensor:
        context = embed_for_cross_attention(self.networks["image_encoder"], self.pictures(1))
        latents = self.latents()
        sigma = torch.ones(1)
        reference, unknown = latents[:, 0], torch.full((1,), torch.nan)
        condition = Condition(reference, context, Hints(reference, unknown, unknown))
        return denoise(self.networks["unet"], latents, sigma, self.pose, condition)

    def decoder(self) -> None:
        self.encode()
        self.decode(self.latents()).sum().backward()

    def decode(self, latents: Tensor) -> Tensor:
        features = embed_for_decoder(self.networks["feature_encoder"], self.pictures(1))
        return self.networks["decoder"](latents, self.cameras, features).means

    def distill(self) -> None:
        self.encode()
        self.decode(self.estimate()).sum().backward()


def count_operations(config: ModelConfig, stage: str) -> int:
    """Count the FLOPs of one sample of a stage."""
    work = Work(config, stage)
    with FakeTensorMode(allow_non_fake_inputs=True):
        work.place()
        # The counter does not know the CPU's fused attention, but its plain products.
        with quick_attention(torch.device("cpu")), FlopCounterMode(display=False) as counter:
            step: Callable[[], None] = partial(getattr(Work, stage), work)
            step()
    return counter.get_total_flops()


def time_loader(config: ModelConfig, stage: str, orbits: OrbitBank) -> float:
    """Return the seconds of one core that a stage's loader takes for a sample."""
    frames = config.num_frames
    channels = config.components["vae"]["in_channels"]
    source: Source
    if stage == "autoencoder":
        source = PictureSource(orbits, channels)
    elif stage == "multiview":
        source = OrbitSource(orbits, frames, channels)
    else:
        source = ViewSource(orbits, frames, config.options(stage).get("num_novel", 2))
    found = []
    for seed in range(4):
        started = time.process_time()
        source.draw(1, seed, 0.0)
        found.append(time.process_time() - started)
    return min(found[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a configuration's name, or a .yaml file")
    parser.add_argument("--rate", type=float, required=True, help="FLOP/s of plain matrix products")
    parser.add_argument(
        "--share", type=float, nargs="+", required=True, help="of it that training reaches"
    )
    parser.add_argument("--price", type=float, default=0.0, help="of the hardware for an hour")
    parser.add_argument("--data", type=Path, help="shards of the size: measure the loader")
    args = parser.parse_args()
    config = read_config(args.config)
    shares = [f"hours at {share:.0%} | cost" for share in args.share]
    print("| stage | TFLOP a sample | samples | EFLOP | " + " | ".join(shares) + " |")
    print("| --- |" + " ---: |" * (3 + 2 * len(shares)))

    def cells(operations: float) -> str:
        hours = [operations / (args.rate * share) / 3600 for share in args.share]
        return " | ".join(f"{own:,.1f} | {own * args.price:,.0f}" for own in hours)

    together = 0.0
    for stage in STAGES:
        schedule = config.schedule(stage)
        each, samples = count_operations(config, stage), schedule.steps * schedule.batch_size
        together += each * samples
        print(
            f"| {stage} | {each / 1e12:.4g} | {samples:,} | {each * samples / 1e18:.4g} |"
            f" {cells(each * samples)} |"
        )
    print(f"| together | | | {together / 1e18:.4g} | {cells(together)} |")
    if args.data is None:
        return
    torch.set_num_threads(1)
    started = time.process_time()
    orbits = unpack_shards(args.data, args.data)
    seconds = (time.process_time() - started) / len(orbits)
    print(f"\nUnpacking took {seconds:.2f} core s an orbit (if it was not done before).")
    shares = [f"cores a card at {share:.0%}" for share in args.share]
    print("\n| stage | loader, core s a sample | " + " | ".join(shares) + " |")
    print("| --- |" + " ---: |" * (1 + len(shares)))
    for stage in STAGES:
        seconds, each = time_loader(config, stage, orbits), count_operations(config, stage)
        cores = [f"{seconds * args.rate * share / each:.2g}" for share in args.share]
        print(f"| {stage} | {seconds:.2f} | {' | '.join(cores)} |")


if __name__ == "__main__":
    main()
