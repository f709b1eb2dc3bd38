# SPDX-License-Identifier: Apache-2.0
"""Compare a decoder with a feature volume to one without, both trained on true views.

    python benchmarks/volume.py props/index.json --start blockout --output runs/volume --minutes 6

Both arms start from the same decoder's weights, those of the volume being fresh, and see the same
batches for the same minutes on one thread. Dev objects (part "a" of them, as in ``ablations.py``)
are then decoded from the latents of their true views. Measured are the depth error of the Gaussians
at the views' pixels, and renders at novel views. An interrupted run goes on when run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from sizes import draw_bank

from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.evaluation.protocol import choose_objects, choose_part
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.config import ModelConfig, build, read_config
from gsv3d.lab.training.geometry_loss import COLOR_WEIGHT
from gsv3d.lab.training.loop import Trainer
from gsv3d.lab.training.stages import CLASSES, make_task
from gsv3d.models import find, load_component, silent_bars

CPU = torch.device("cpu")
COLUMNS = ("decoder, M", "orbits seen", "depth off, extents", "novel views, dB", "masks, MSE")
NOVEL = 4


def make_config(size: int) -> ModelConfig:
    """Return ``blockout`` with ``size`` voxels along a side, 0 for no volume."""
    base = read_config("blockout")
    decoder = base.components["decoder"] | {"volume_size": size}
    return replace(base, components=base.components | {"decoder": decoder})


def save_start(config: ModelConfig, start: Path, folder: Path) -> Path:
    """Save the decoder to start from, with a fresh volume if there is one; return its folder."""
    if (folder / "decoder").is_dir():
        return folder
    torch.manual_seed(0)
    with silent_bars():
        trained = load_component(CLASSES["decoder"], start / "decoder")
    decoder = build(config, "decoder")
    assert isinstance(decoder, torch.nn.Module)
    own = {k: v for k, v in trained.state_dict().items() if not k.startswith(("volume.", "join."))}
    missing = decoder.load_state_dict(own, strict=False).missing_keys
    if missing:
        # The head's depth would be added to the volume's.
        with torch.no_grad():
            decoder.head.out.weight[:1].zero_()
            decoder.head.out.bias[:1].zero_()
    decoder.save_pretrained(folder / "decoder")
    return folder


def train(config: ModelConfig, bank: OrbitBank, folder: Path, start: Path, minutes: float) -> int:
    """Train the decoder stage, and return the number of orbits it saw."""
    schedule = replace(
        config.schedule("decoder"), minutes=minutes, steps=10**9, warmup=50, bf16=True,
        save_every=200, log_every=20,
    )  # fmt: skip
    folders = [start, save_start(config, start, folder / "start")]
    trainer = Trainer(make_task(config, "decoder", bank, CPU, folders), schedule, folder, 0, CPU)
    if trainer.checkpoint_path.exists():
        trainer.resume()
    if not (folder / "feature_encoder").is_dir():
        trainer.run()
    return trainer.step * schedule.batch_size


@torch.no_grad()
def measure(config: ModelConfig, bank: OrbitBank, folder: Path, start: Path) -> list[float]:
    """Return the decoder's parameters in millions, depth error, and novel views' PSNR and MSE."""
    task = make_task(config, "decoder", bank, CPU, [start, folder])
    task.modules.eval()
    task.source = replace(task.source, num_novel=NOVEL)
    rows = []
    for seed in range(len(bank)):
        batch = task.source.draw(2, seed)
        pictures, latents = task.encode(batch)
        decoded = task.decode(latents, pictures, batch.cameras())
        pixels = task.geometry.pixel_loss(decoded, batch)["pixel_depth"] / 2
        renders = task.geometry.render_loss(decoded, batch)
        psnr = -10 * (renders["render_color"] / COLOR_WEIGHT).log10()
        rows.append(torch.stack([pixels.mean(), psnr.mean(), renders["render_mask"].mean()]))
    count = sum(p.numel() for p in task.modules["decoder"].parameters()) / 1e6
    return [count, *torch.stack(rows).mean(dim=0).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", type=Path, help="index.json with the splits train and dev")
    parser.add_argument("--start", default="blockout", help="name or folder of a model")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0, help="of each arm")
    parser.add_argument("--limit", type=int, default=800, help="train objects")
    parser.add_argument("--count", type=int, default=60, help="dev objects; half are measured")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = find(args.start)
    found = tuple(find_objects([args.objects], "train"))
    drawn = found[:: max(1, len(found) // args.limit)]
    bank = draw_bank(drawn, 64, args.output / "train", args.workers)
    chosen = choose_objects(find_objects([args.objects], "dev"), args.count, 0)
    dev = draw_bank(tuple(choose_part(chosen, "a", 0)), 64, args.output / "dev", args.workers)
    print("| decoder | " + " | ".join(COLUMNS) + " |\n| --- |" + " ---: |" * len(COLUMNS))
    for name, size in (("without a volume", 0), ("24 voxels a side", 24)):
        config, folder = make_config(size), args.output / f"volume-{size}"
        record = folder / "measured.json"
        if not record.exists():
            orbits = train(config, bank, folder, start, args.minutes)
            count, *rest = measure(config, dev, folder, start)
            record.write_text(json.dumps([count, orbits, *rest]), encoding="utf-8")
        count, orbits, depth, psnr, mask = json.loads(record.read_text(encoding="utf-8"))
        print(f"| {name} | {count:.2f} | {orbits} | {depth:.4f} | {psnr:.2f} | {mask:.4f} |")


if __name__ == "__main__":
    main()
