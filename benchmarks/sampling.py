# SPDX-License-Identifier: Apache-2.0
"""Time the drawing of views at full size, stage by stage, beside diffusers' own pipeline.

    python benchmarks/sampling.py --device cuda --memory 24 --output sampling-24.json
    python benchmarks/sampling.py --config blockout --frames 8 --steps 4 --device cpu

The networks are SV3D's with random weights: time and memory do not depend on their values. Ours is
``GSV3DPipeline`` without a decoder, as ``gsv3d models add sv3d-p`` makes it. Stock is diffusers'
``StableVideoDiffusionPipeline`` with the same autoencoder, CLIP tower and scheduler, and with its
own UNet of the same size, in the same process and precision; it draws both halves of the guidance
as one batch. Both decode one view at a time. Each runs once to warm up, then ``--repeats`` times,
of which the quickest counts. ``--memory`` really limits the card's memory to so many GB.

The floating point operations are those of the matrix products, convolutions and attentions of all
calls of our UNet, counted on tensors without memory. Their rate is given as a share of the rate of
plain matrix products, which is measured too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPImageProcessor

from gsv3d.devices import MEMORY, choose_device, choose_memory, place
from gsv3d.lab.training.config import ModelConfig, build, read_config
from gsv3d.lab.training.machine import count_flops, matrix_rate
from gsv3d.pipeline import GSV3DPipeline
from gsv3d.threads import limit_threads

CLIP_SIZE = 224
"""Pixels of the picture that the stock pipeline gives to CLIP."""


@dataclass
class Cost:
    """The figures of one call of a pipeline.

    Attributes:
        name: name of the pipeline.
        first_s: seconds to the end of the first step, encoding of the picture included.
        step_s: seconds of each further step.
        denoising_s: seconds of all steps.
        decoding_s: seconds from the last step to the end.
        total_s: seconds of the whole call.
        peak_gb: largest memory of the card that torch took, in GB; None on the CPU.
        share: share of the matrix rate that denoising reaches, by the work of our UNet; 0 with one
            step.
    """

    name: str
    first_s: float
    step_s: float
    denoising_s: float
    decoding_s: float
    total_s: float
    peak_gb: float | None
    share: float = 0.0


def match_sv3d(config: ModelConfig, frames: int) -> ModelConfig:
    """Return a configuration's networks, as SV3D and the stock pipeline need them alike."""
    parts = config.components
    changed = {
        "vae": parts["vae"] | {"in_channels": 3, "out_channels": 3},
        "image_encoder": parts["image_encoder"] | {"image_size": CLIP_SIZE},
    }
    return replace(config, num_frames=frames, components=parts | changed)


def make_ours(config: ModelConfig, dtype: torch.dtype) -> GSV3DPipeline:
    """Return our pipeline with fresh weights."""
    torch.manual_seed(0)
    names = ("vae", "image_encoder", "unet", "scheduler")
    pipeline = GSV3DPipeline(
        **{name: build(config, name) for name in names}, feature_encoder=None, decoder=None
    )
    return pipeline.to(dtype)


def make_stock(config: ModelConfig, dtype: torch.dtype) -> StableVideoDiffusionPipeline:
    """Return diffusers' pipeline with fresh weights."""
    torch.manual_seed(0)
    settings = config.components["unet"]
    width = 3 * settings["addition_time_embed_dim"]
    unet = UNetSpatioTemporalConditionModel(
        **settings
        | {"projection_class_embeddings_input_dim": width, "num_frames": config.num_frames}
    )
    parts = {name: build(config, name) for name in ("vae", "image_encoder", "scheduler")}
    processor = CLIPImageProcessor(size=CLIP_SIZE, crop_size=CLIP_SIZE)
    pipeline = StableVideoDiffusionPipeline(unet=unet, feature_extractor=processor, **parts)
    return pipeline.to(dtype)


def call_ours(pipeline: Any, picture: np.ndarray, steps: int, on_step: Callable[..., Any]) -> None:
    pipeline(
        picture, num_inference_steps=steps, max_guidance_scale=2.5,
        generator=torch.Generator().manual_seed(0), callback_on_step_end=on_step,
    )  # fmt: skip


def call_stock(pipeline: Any, picture: np.ndarray, steps: int, on_step: Callable[..., Any]) -> None:
    size = len(picture)
    pipeline(
        Image.fromarray(picture[..., :3]), height=size, width=size, num_inference_steps=steps,
        num_frames=pipeline.unet.config.num_frames, max_guidance_scale=2.5, decode_chunk_size=1,
        generator=torch.Generator().manual_seed(0), callback_on_step_end=on_step,
    )  # fmt: skip


def measure(name: str, call: Callable[..., None], device: torch.device, repeats: int) -> Cost:
    """Return the cost of the quickest of several calls, after one to warm up.

    Args:
        name: name of the pipeline.
        call: calls the pipeline; its argument is a function to call after each step.
        device: device that the pipeline runs on.
        repeats: number of calls that count.
    """
    best: Cost | None = None
    for turn in range(1 + repeats):
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        stamps = [_read_clock(device)]

        def note(*_: Any, stamps: list[float] = stamps) -> dict[str, Tensor]:
            stamps.append(_read_clock(device))
            return {}

        call(note)
        end = _read_clock(device)
        steps = len(stamps) - 1
        first = stamps[1] - stamps[0]
        step = (stamps[-1] - stamps[1]) / max(steps - 1, 1) if steps > 1 else first
        peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
        total = end - stamps[0]
        found = Cost(name, first, step, steps * step, end - stamps[-1], total, peak)
        if turn and (best is None or found.total_s < best.total_s):
            best = found
    assert best is not None
    return best


def count_work(config: ModelConfig, steps: int) -> int:
    """Return the floating point operations of our UNet in one call, guided."""
    with torch.device("meta"):
        unet = build(config, "unet")
    settings = config.components["unet"]
    size, channels = settings["sample_size"], settings["in_channels"]
    # The counter leaves out the processor's fused attention, and knows its matrix products.
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for module in unet.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = torch.nn.Parameter(torch.empty(weight.shape))
        sample = torch.empty(1, config.num_frames, channels, size, size)
        context = torch.empty(1, 1, settings["cross_attention_dim"])
        pose = torch.empty(1, config.num_frames, 3)
        once = count_flops(lambda: unet(sample, torch.empty(1), context, pose))
    return 2 * steps * once


def limit_memory(device: torch.device, gigabytes: int) -> None:
    """Let torch take no more than so many GB of a card's memory."""
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / whole), device.index or 0)


def _read_clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="gsv3d-576", help="a name of gsv3d/lab/training/configs"
    )
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--memory", choices=MEMORY[1:], help="GB, of ours and of the card")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--without-stock", action="store_true")
    parser.add_argument("--output", type=Path, help="a .json to write")
    args = parser.parse_args(arguments)
    limit_threads(args.threads)
    diffusers.utils.logging.set_verbosity_error()
    device = choose_device(args.device)
    on_card = device.type == "cuda"
    dtype = getattr(torch, args.precision or ("float16" if on_card else "float32"))
    if on_card and args.memory:
        limit_memory(device, int(args.memory))
    config = match_sv3d(read_config(args.config), args.frames)
    size = config.image_size
    picture = np.full((size, size, 4), 255, np.uint8)
    picture[size // 4 : -size // 4, size // 4 : -size // 4, :3] = 90

    flops, rate = count_work(config, args.steps), matrix_rate(device, on_card)
    print(f"{config.name}: {args.frames} views of {size} px, {args.steps} steps, {dtype}, {device}")
    print(f"{flops / 1e15:.4g} PFLOP; plain matrix products reach {rate / 1e12:.4g} TFLOP/s")
    rows = []
    for name, make, call in (("ours", make_ours, call_ours), ("stock", make_stock, call_stock)):
        if name == "stock" and args.without_stock:
            continue
        pipeline: Any = make(config, dtype)
        if name == "ours":
            gigabytes = choose_memory(args.memory or "24", device, 0)
            pipeline = place(pipeline, device, gigabytes)
        else:
            pipeline = pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        row = measure(
            name, lambda note, p=pipeline, c=call: c(p, picture, args.steps, note),
            device, args.repeats,
        )  # fmt: skip
        row.share = flops / row.denoising_s / rate
        rows.append(row)
        memory = "" if row.peak_gb is None else f", {row.peak_gb:.2f} GB at most"
        print(
            f"{name}: {row.total_s:.3g} s, of which a step {row.step_s:.3g}, decoding"
            f" {row.decoding_s:.3g}; {row.share:.0%} of the matrix rate{memory}",
            flush=True,
        )
        del pipeline
    if args.output:
        record = {
            "config": config.name, "frames": args.frames, "steps": args.steps,
            "precision": str(dtype), "device": str(device), "memory_gb": args.memory,
            "flop": flops, "matrix_flop_per_s": rate, "pipelines": [asdict(row) for row in rows],
        }  # fmt: skip
        args.output.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
