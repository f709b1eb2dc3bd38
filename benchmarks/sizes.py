# SPDX-License-Identifier: Apache-2.0
"""Compare sizes of the multi-view model's pictures, latents and networks in the same time.

    python benchmarks/sizes.py props/index.json --output runs/sizes --minutes 6

Every size trains an autoencoder and a UNet from scratch for the same minutes each on the same
objects, on one thread. The model then draws views of dev objects (part "a" of them, as in
``ablations.py``) in two steps. They are compared with the true views as pictures of 64 px on white,
whatever the model's size is. The reconstruction of the true views tells the autoencoder's share
of the error. An interrupted run goes on when run again.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from gsv3d.lab.datasets.objects import ObjectFile, find_objects
from gsv3d.lab.evaluation.image_metrics import Views, compare_views
from gsv3d.lab.evaluation.protocol import choose_objects, choose_part
from gsv3d.lab.training.bank import BankSettings, OrbitBank
from gsv3d.lab.training.config import ModelConfig, read_config
from gsv3d.lab.training.edm import karras_sigmas, sample_latents
from gsv3d.lab.training.filling import BankFactory, Drawing
from gsv3d.lab.training.hints import make_hints
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.sources import OrbitBatch, OrbitSource
from gsv3d.lab.training.stages import make_task
from gsv3d.multiview.conditioning import Condition, embed_for_cross_attention, encode_reference

CPU = torch.device("cpu")
COMPARED = 64
"""Side of the compared pictures in pixels."""
STEPS = 2
AT_ONCE = 4


@dataclass(frozen=True)
class Size:
    """One size of the model.

    Attributes:
        name: name in the table.
        autoencoder: name of its autoencoder, which sizes may share.
        base: configuration that it starts from.
        changes: changed fields of components.
    """

    name: str
    autoencoder: str
    base: str = "blockout"
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def config(self) -> ModelConfig:
        base = read_config(self.base)
        components = copy.deepcopy(base.components)
        for component, fields in self.changes.items():
            components[component] |= fields
        # With their own schedules, the schedules would be compared too.
        stages = {stage: read_config("blockout").stages[stage] for stage in base.stages}
        return replace(base, components=components, stages=stages)


def _change_unet(widths: list[int], heads: list[int]) -> dict[str, dict[str, Any]]:
    return {"unet": {"block_out_channels": widths, "num_attention_heads": heads}}


SIZES = (
    Size("64 px, latents 8x8x8, widths 96, 160", "8x8x8"),
    Size("the same, widths 64, 96", "8x8x8", changes=_change_unet([64, 96], [2, 3])),
    Size("the same, widths 128, 192", "8x8x8", changes=_change_unet([128, 192], [4, 6])),
    Size(
        "64 px, latents 16x16x4, widths 96, 160",
        "16x16x4",
        changes={
            "vae": {
                "latent_channels": 4, "block_out_channels": [32, 64, 128],
                "down_block_types": ["DownEncoderBlock2D"] * 3,
                "up_block_types": ["UpDecoderBlock2D"] * 3,
            },
            "unet": {"sample_size": 16, "in_channels": 8, "out_channels": 4},
        },
    ),
    Size("128 px, latents 16x16x8, widths 96, 160", "16x16x8", base="blockout-128"),
)  # fmt: skip


def draw_bank(
    objects: tuple[ObjectFile, ...], size: int, folder: Path, workers: int, orbit: str = "static"
) -> OrbitBank:
    """Return orbits of the unchanged objects, with hints; draw those that are missing."""
    settings = BankSettings(size=size, orbit_views=16, variants=1, orbit=orbit, hints=True)
    factory = BankFactory(folder, objects, settings)
    with Drawing(factory, workers, lambda text: print(text, flush=True)) as drawing:
        drawing.wait()
        return drawing.bank()


def train(size: Size, bank: OrbitBank, output: Path, minutes: float) -> list[Path]:
    """Train both stages, and return their folders."""
    config = size.config()
    folders = [output.parent / f"autoencoder-{size.autoencoder}", output]
    for stage, folder in zip(("autoencoder", "multiview"), folders, strict=True):
        if (folder / ("vae" if stage == "autoencoder" else "unet")).is_dir():
            continue
        print(f"== {size.name}: {stage}", flush=True)
        schedule = replace(
            config.schedule(stage), minutes=minutes, steps=10**9, save_every=500, log_every=50
        )
        task = make_task(config, stage, bank, CPU, folders[:1], output=folder)
        trainer = Trainer(task, schedule, folder, 0, CPU)
        if trainer.checkpoint_path.exists():
            trainer.resume()
        trainer.run()
    return folders


@torch.no_grad()
def measure(size: Size, bank: OrbitBank, folders: list[Path]) -> dict[str, float]:
    """Return the values of ``COLUMNS`` for a trained size."""
    config = size.config()
    task = make_task(config, "multiview", bank, CPU, folders)
    unet, encoder, vae = task.modules["unet"], task.modules["image_encoder"], task.vae
    unet.eval(), encoder.eval()
    scheduler = config.components["scheduler"]
    sigmas = karras_sigmas(STEPS, float(scheduler["sigma_min"]), float(scheduler["sigma_max"]))
    source = OrbitSource(bank, config.num_frames, vae.config.in_channels)
    rows = []
    for start in range(0, len(bank), AT_ONCE):
        batch = _draft_unchanged(source, range(start, min(start + AT_ONCE, len(bank))))
        assert batch.pictures is not None
        modes = encode_reference(vae, batch.pictures.flatten(0, 1))
        modes = modes.unflatten(0, batch.pictures.shape[:2])
        context = embed_for_cross_attention(encoder, batch.reference)
        torch.manual_seed(start)
        hints = make_hints(unet, vae, batch, batch.reference, modes[:, -1])
        condition = Condition(modes[:, -1], context, hints)
        drawn = sample_latents(unet, batch.pose, condition, sigmas)
        true = _reduce(batch.pictures)
        again = _reduce(_decode(vae, modes * vae.config.scaling_factor))
        found = _reduce(_decode(vae, drawn))
        for i in range(len(true)):
            rebuilt = compare_views(_split(again[i]), _split(true[i]))
            # The last view is the reference, which the model was given.
            scores = compare_views(_split(found[i, :-1]), _split(true[i, :-1]))
            rows.append([s.mean() for s in (rebuilt.psnr, scores.psnr, scores.mask_iou)])
    log = (folders[1] / "log.csv").read_text(encoding="utf-8").splitlines()
    orbits = int(log[-1].split(",")[0]) * config.schedule("multiview").batch_size
    count = sum(p.numel() for p in unet.parameters()) / 1e6
    means = torch.tensor(rows).mean(dim=0).tolist()
    return dict(zip(COLUMNS, (count, orbits, *means), strict=True))


COLUMNS = ("UNet, M", "orbits seen", "reconstruction, dB", "views, dB", "views, mask IoU")


def _draft_unchanged(source: OrbitSource, indices: range) -> OrbitBatch:
    """Return unchanged orbits, with the first view of each as the reference."""
    from gsv3d.lab.training.samples import Change, Chosen

    step = source.orbits.settings.orbit_views // source.num_frames
    frames = [*range(step, step * source.num_frames, step), 0]
    orbits = [source.orbits[i] for i in indices]
    chosen = [Chosen(frames, [], o.azimuths_deg[frames], o.elevations_deg[frames]) for o in orbits]
    return source.draft(list(indices), chosen, [Change()] * len(orbits)).made()


def _decode(vae: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents to (B, T, C, H, W) in -1..1."""
    flat = latents.flatten(0, 1) / vae.config.scaling_factor
    return vae.decode(flat).sample.unflatten(0, latents.shape[:2])


def _reduce(pictures: torch.Tensor) -> torch.Tensor:
    """Reduce (B, T, 4, H, W) in -1..1 to a side of ``COMPARED`` pixels, in 0..1."""
    flat = F.adaptive_avg_pool2d(pictures.flatten(0, 1), COMPARED)
    return ((flat + 1) / 2).clamp(0, 1).unflatten(0, pictures.shape[:2])


def _split(pictures: torch.Tensor) -> Views:
    """Split (T, 4, H, W) in 0..1 into color on white and mask."""
    array = pictures.permute(0, 2, 3, 1).double().numpy()
    return Views(array[..., :3], array[..., 3] > 0.5)


def format_table(results: dict[str, dict[str, float]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| size | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for name, row in results.items():
        cells = (f"{row[COLUMNS[0]]:.1f}", f"{row[COLUMNS[1]]:.0f}", f"{row[COLUMNS[2]]:.2f}",
                 f"{row[COLUMNS[3]]:.2f}", f"{row[COLUMNS[4]]:.3f}")  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", type=Path, help="index.json with the splits train and dev")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0, help="of each of the two stages")
    parser.add_argument("--limit", type=int, default=800, help="train objects")
    parser.add_argument("--count", type=int, default=60, help="dev objects; half are measured")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train_objects = tuple(find_objects([args.objects], "train"))
    # Evenly spaced, so that all packs are among them.
    train_objects = train_objects[:: max(1, len(train_objects) // args.limit)]
    found = find_objects([args.objects], "dev")
    dev_objects = tuple(choose_part(choose_objects(found, args.count, 0), "a", 0))
    results: dict[str, dict[str, float]] = {}
    for number, size in enumerate(SIZES):
        folder = args.output / f"size-{number}"
        record = folder / "measured.json"
        if not record.exists():
            pixels = size.config().image_size
            drawn = draw_bank(train_objects, pixels, args.output / f"train-{pixels}", args.workers)
            folders = train(size, drawn, folder, args.minutes)
            dev = draw_bank(dev_objects, pixels, args.output / f"dev-{pixels}", args.workers)
            record.write_text(json.dumps(measure(size, dev, folders)), encoding="utf-8")
        results[size.name] = json.loads(record.read_text(encoding="utf-8"))
        print(format_table(results), flush=True)
    (args.output / "sizes.md").write_text(format_table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
