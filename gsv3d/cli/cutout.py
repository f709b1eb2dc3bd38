# SPDX-License-Identifier: Apache-2.0
"""``gsv3d cutout``: the object of each picture as a PNG with a transparent background."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from gsv3d.cli.naming import expand_inputs, name_picture, name_results
from gsv3d.cli.options import add_cutout, add_output, check_cutout, describe_unsure_cutout
from gsv3d.errors import ImageError, out_of_memory

DESCRIPTION = (
    "Cut the object out of each picture and write it as a PNG with a transparent background: what "
    "'gsv3d generate' works with. A picture that can't be used is named with the reason, and the "
    "others go on; the exit code is 1 then."
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("cutout", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", type=Path, help="pictures, or folders of pictures"
    )
    add_output(parser, "cut-outs")
    add_cutout(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Return 0, or 1 if a picture failed."""
    from gsv3d.outputs import free_target, make_folder, write_atomic
    from gsv3d.preprocessing import cut_out, is_unsure, load_image

    check_cutout(args.cutout)
    images, problems = expand_inputs(args.images)
    output = make_folder(args.output)
    failed = [str(problem) for problem in problems]
    for message in failed:
        print(f"gsv3d: {message}", file=sys.stderr)
    names = name_results(images, output, overwrite=args.overwrite)
    for image, name in zip(images, names, strict=True):
        try:
            found = cut_out(load_image(image), args.cutout)
        except (ImageError, MemoryError) as error:
            failed.append(name_picture(out_of_memory(error) or error, image))
            print(f"gsv3d: {failed[-1]}", file=sys.stderr, flush=True)
            continue
        if is_unsure(found.certainty):
            print(f"gsv3d: {describe_unsure_cutout(image, found.certainty)}", file=sys.stderr)
        with free_target(output / name, [".png"], args.overwrite) as free:
            target = free.with_name(f"{free.name}.png")
            write_atomic(target, found.to_png())
        print(f"{image} -> {target}", flush=True)
    if failed:
        inputs = len(images) + len(problems)
        print(f"gsv3d: {len(failed)} of {inputs} inputs could not be used.", file=sys.stderr)
    return 1 if failed else 0
