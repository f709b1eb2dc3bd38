# SPDX-License-Identifier: Apache-2.0
"""Time one job, from picture to files, stage by stage.

Run: ``python benchmarks/job.py [--threads 2] [--runs 5] [--growth] [--busy 0 1 2 4]``

The first table has the stages of the first job of a process, its imports and the model included,
and the medians of later ones. The floor of a stage is what its arithmetic or its pixels take at
least: the model's multiplications at the rate of a large matrix product, or the arrays that the
stage reads and writes at the speed of a copy. Stages of neither kind have none.

``--growth`` times the mesh alone, with more Gaussians, voxels, faces and texels, each in a process
of its own. ``--busy`` times the whole command beside N processes that do nothing but use a core;
the bound is what fair shares of the cores would cost, and 30 % more: (1 + N / cores) * 1.3 times
the time without them.

CPU seconds are those of the process, user and system; beside other programs they say more than wall
seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsv3d.threads import let_threads_sleep, limit_threads, pause_collecting, usable_cores

PICTURE = Path(__file__).resolve().parent.parent / "examples" / "barrel.png"
STAGES = (
    "imports", "model", "preparing", "denoising", "decoding", "fusing", "simplifying", "unwrapping",
    "texturing", "files",
)  # fmt: skip
GROWTH: dict[str, list[dict[str, int]]] = {
    "Gaussians": [{"count": n} for n in (4_000, 40_000, 330_000)],
    "voxels": [{"voxels": n} for n in (58, 116, 232)],
    "faces": [{"faces": n} for n in (1_000, 5_000, 50_000)],
    "texture": [{"texture": n} for n in (512, 1024, 2048, 4096, 8192)],
    "all": [{"count": 330_000, "faces": 10_000, "texture": 2048}],
}
MEBI = 2**20


class Stages:
    """Wall and CPU seconds and the peak of memory by stage; a stage lasts until the next one."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}
        self._name, self._wall, self._cpu = "", 0.0, 0.0

    def enter(self, name: str) -> None:
        """Begin a stage, or go on with it; an empty name ends the last one."""
        from gsv3d.lab.evaluation.generating import PeakMemory

        if name == self._name:
            return
        if self._name:
            row = self.rows.setdefault(self._name, [0.0, 0.0, 0.0])
            row[0] += time.perf_counter() - self._wall
            row[1] += time.process_time() - self._cpu
            row[2] = max(row[2], PeakMemory().process_mib())
        self._name = name
        if name:
            PeakMemory().start()
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def run_job(pipeline: Any, stages: Stages) -> Any:
    """Run a job from the picture's file to the result's; return the result."""
    from gsv3d.generation import Observer, generate
    from gsv3d.preprocessing import load_image
    from gsv3d.results import write_results
    from gsv3d.settings import GenerationSettings

    class Watch(Observer):
        def progress(self, phase: str, step: int, of: int) -> None:
            stages.enter(phase)

    settings = GenerationSettings(previews=0)
    stages.enter("preparing")
    result = generate(pipeline, load_image(PICTURE), settings, Watch())
    stages.enter("files")
    with tempfile.TemporaryDirectory() as folder:
        write_results(
            result, Path(folder) / "job", formats=("glb", "ply"), settings=settings,
            model="blockout", image=PICTURE,
        )  # fmt: skip
    stages.enter("")
    return result


def show_stages(runs: int) -> None:
    """Print the stages of a first job and of later ones, beside their floors."""
    start, used = time.perf_counter(), time.process_time()
    with pause_collecting():
        from gsv3d import generation, pipeline  # noqa: F401 - as the command does
    from gsv3d.models import load_pipeline

    cold = Stages()
    cold.rows["imports"] = [time.perf_counter() - start, time.process_time() - used, 0.0]
    cold.enter("model")
    model = load_pipeline("blockout")
    model.set_progress_bar_config(disable=True)
    result = run_job(model, cold)
    warm = []
    for _ in range(runs):
        warm.append(Stages())
        run_job(model, warm[-1])
    floors = find_floors(model, result)
    print("| stage | first: s | CPU s | later: s | CPU s | floor: CPU s | peak MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    totals = [0.0] * 4
    for name in STAGES:
        later = [stages.rows.get(name, [0.0] * 3) for stages in warm]
        medians = [statistics.median(column) for column in zip(*later, strict=True)]
        cells = [*cold.rows[name][:2], *medians[:2]]
        totals = [a + b for a, b in zip(totals, cells, strict=True)]
        floor, peak = floors.get(name), max(cold.rows[name][2], medians[2])
        print(
            f"| {name} | " + " | ".join(f"{value:.2f}" for value in cells)
            + f" | {'' if floor is None else f'{floor:.3f}'} | {peak:.0f} |"
        )  # fmt: skip
    print("| all | " + " | ".join(f"{value:.2f}" for value in totals) + " | | |")


def find_floors(pipeline: Any, result: Any) -> dict[str, float]:
    """Return the least seconds of those stages that have a floor."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from gsv3d.meshing import MeshSettings
    from gsv3d.meshing.views import surround_with_cameras

    side = 1024
    matrix = torch.rand(side, side)
    flops_per_s = 2 * side**3 / time_best(lambda: matrix @ matrix)
    block = np.zeros(64 * MEBI, np.uint8)
    bytes_per_s = 2 * block.nbytes / time_best(block.copy)  # read and written
    flops = {}
    for kind in ("np", "latent"):  # with and without the views' pictures
        with FlopCounterMode(display=False) as counter:
            pipeline(result.prepared, output_type=kind)
        flops[kind] = counter.get_total_flops()
    # Of each view five numbers a pixel, written and read; of each voxel a distance.
    voxels, pixels = MeshSettings.voxels, round(MeshSettings.view_pixels * MeshSettings.voxels)
    views = 2 * len(surround_with_cameras(1.0, 1)) * pixels**2 * 5 * 4
    texels = 2 * result.mesh.texture.nbytes
    return {
        "denoising": flops["np"] / flops_per_s,
        "fusing": (views + voxels**3 * 4) / bytes_per_s,
        "texturing": texels / bytes_per_s,
        "files": texels / bytes_per_s,
    }


def time_best(work: Callable[[], Any], times: int = 5) -> float:
    """Return the CPU seconds of the fastest of some calls."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def multiply_gaussians(gaussians: Any, count: int) -> Any:
    """Return ``count`` Gaussians of the same look; each becomes several smaller ones."""
    import torch

    if count <= len(gaussians):
        return gaussians
    draw = torch.Generator().manual_seed(0)
    chosen = torch.arange(count) % len(gaussians)
    many = gaussians.filter(chosen)
    share = (len(gaussians) / count) ** 0.5
    apart = torch.randn(count, 3, generator=draw) * many.scales * (1 - share**2) ** 0.5
    return replace(many, means=many.means + apart, scales=many.scales * share)


def time_mesh(
    path: Path, count: int = 0, faces: int = 5000, texture: int = 1024, voxels: int = 116
) -> list[float]:
    """Return wall and CPU seconds of a second mesh, and the process's peak in MiB, of both."""
    from gsv3d.gaussians import Gaussians
    from gsv3d.lab.evaluation.generating import PeakMemory
    from gsv3d.meshing import MeshSettings, extract_mesh

    gaussians = multiply_gaussians(Gaussians.load_ply(path), count)
    for _ in range(2):  # the first one loads compiled code
        start, used = time.perf_counter(), time.process_time()
        extract_mesh(gaussians, faces, texture, settings=MeshSettings(voxels=voxels))
    return [
        time.perf_counter() - start, time.process_time() - used, PeakMemory().process_mib(),
    ]  # fmt: skip


def show_growth() -> None:
    """Print how the mesh's time grows with each of its sizes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "gsv3d", "generate", str(PICTURE), "--output", folder],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (cloud,) = Path(folder).glob("*.ply")
        print("| | s | CPU s | peak MiB |\n| --- | ---: | ---: | ---: |")
        for sizes in (sizes for rows in GROWTH.values() for sizes in rows):
            command = [sys.executable, __file__, "--mesh", str(cloud), json.dumps(sizes)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            wall, cpu, peak = json.loads(output)
            label = ", ".join(f"{name} {value:,}" for name, value in sizes.items())
            print(f"| {label} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |", flush=True)


@contextmanager
def keep_busy(count: int) -> Iterator[None]:
    """Keep ``count`` processes computing for as long as the block lasts."""
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def time_command() -> tuple[float, float]:
    """Return wall seconds and CPU seconds of one whole command."""
    import psutil

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gsv3d", "generate", str(PICTURE), "--output", folder]
        start, process = time.perf_counter(), psutil.Popen(command, stdout=subprocess.DEVNULL)
        used = 0.0
        while process.poll() is None:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                break
            used = times.user + times.system
            time.sleep(0.02)
        if process.wait():
            sys.exit("The job failed.")
        return time.perf_counter() - start, used


def show_busy(counts: list[int], runs: int) -> None:
    """Print the whole command's time beside busy processes."""
    cores = usable_cores()
    print(f"{cores} cores; median of {runs}\n")
    print("| busy processes | seconds | CPU seconds | times the quiet one | bound |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    quiet = None
    for count in counts:
        with keep_busy(count):
            times = [time_command() for _ in range(runs)]
        wall, used = (statistics.median(column) for column in zip(*times, strict=True))
        quiet = wall if quiet is None else quiet
        bound = (1 + count / cores) * 1.3
        print(
            f"| {count} | {wall:.1f} | {used:.1f} | {wall / quiet:.2f} | {bound:.2f} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--growth", action="store_true", help="time larger meshes instead")
    parser.add_argument("--busy", type=int, nargs="+", metavar="N", help="time beside processes")
    parser.add_argument("--mesh", nargs=2, metavar=("PLY", "SIZES"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help="that compute (all usable cores but one)")
    args = parser.parse_args()
    let_threads_sleep()
    limit_threads(args.threads)
    if args.mesh:
        print(json.dumps(time_mesh(Path(args.mesh[0]), **json.loads(args.mesh[1]))))
    elif args.growth:
        show_growth()
    elif args.busy:
        show_busy(args.busy, args.runs)
    else:
        show_stages(args.runs)


if __name__ == "__main__":
    main()
