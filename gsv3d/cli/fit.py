# SPDX-License-Identifier: Apache-2.0
"""``gsv3d fit``: pictures with cameras to Gaussians and a textured mesh."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gsv3d.cli.options import add_formats, add_machine, add_mesh, add_output
from gsv3d.errors import GSV3DError, out_of_memory
from gsv3d.filenames import safe_stem
from gsv3d.threads import limit_threads, pause_collecting

DESCRIPTION = (
    "Fit Gaussians to pictures of one object with cameras, and make a textured mesh of them. The "
    "folder holds transforms.json as nerfstudio and instant-ngp read it, and pictures without "
    "background or with masks. The results have the frame and the scale of the cameras."
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("fit", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with transforms.json")
    add_output(parser, "results")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="reduce larger pictures to this many pixels, 32 to 2048 (128, on a card 576)",
    )
    add_mesh(parser)
    add_formats(parser)
    add_machine(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Return 0."""
    limit_threads(args.threads)  # before torch is imported
    with pause_collecting():
        from gsv3d import generation  # noqa: F401 - what is heavy
        from gsv3d.outputs import make_folder
        from gsv3d.settings import GenerationSettings

    try:
        GenerationSettings(seed=args.seed, faces=args.faces, texture_size=args.texture_size)
        if args.size is not None and not 32 <= args.size <= 2048:
            raise ValueError(f"size must be 32..2048, not {args.size}.")
    except ValueError as error:
        raise GSV3DError(str(error)) from error
    output = make_folder(args.output)
    try:
        return _run(args, output)
    except Exception as error:
        told = None if isinstance(error, GSV3DError) else out_of_memory(error, args.texture_size)
        if told is None:
            raise
        raise told from error


def _run(args: argparse.Namespace, output: Path) -> int:
    from gsv3d.cli.progress import ImageProgress
    from gsv3d.devices import choose_device
    from gsv3d.lifting import LiftSettings, crop, lift_to_mesh
    from gsv3d.lifting.job import PHASES
    from gsv3d.lifting.transforms import read_capture
    from gsv3d.outputs import free_target
    from gsv3d.results import list_endings, write_lifted

    device = choose_device(args.device)
    size = args.size or (576 if device.type == "cuda" else 128)
    capture = read_capture(args.folder)
    target = output / safe_stem(args.folder.resolve().name)
    weights = dict(zip(PHASES, (85, 6, 3, 3, 3), strict=True))
    with ImageProgress(1, weights) as progress:
        progress.start(str(args.folder))
        views = crop(capture.load(), capture.cameras, size).to(device)
        settings = LiftSettings(seed=args.seed).up_to(views.cameras.width)
        lifted = lift_to_mesh(views, settings, args.faces, args.texture_size, progress.progress)
        with free_target(target, list_endings(args.formats), args.overwrite) as free:
            files = write_lifted(
                lifted,
                free,
                formats=args.formats,
                settings=settings,
                folder=args.folder,
                device=str(device),
            )
        progress.finish(args.folder, files)
    return 0
