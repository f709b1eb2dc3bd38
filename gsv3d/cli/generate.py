# SPDX-License-Identifier: Apache-2.0
"""``gsv3d generate``: pictures, or words, to Gaussians and textured meshes."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsv3d.cli import references
from gsv3d.cli.many import Generator, Tally, Work, generate_on_ray, leave_out_done
from gsv3d.cli.naming import expand_inputs, name_picture, name_results
from gsv3d.cli.options import (
    add_cutout,
    add_formats,
    add_machine,
    add_memory,
    add_mesh,
    add_output,
    add_views,
    check_cutout,
    describe_unsure_cutout,
    read_consistency,
    read_numbers,
)
from gsv3d.errors import GSV3DError, OutputError, OutputNameError, out_of_memory
from gsv3d.threads import limit_threads, pause_collecting

if TYPE_CHECKING:
    from PIL import Image

    from gsv3d.cli.progress import ImageProgress

DESCRIPTION = (
    "Make Gaussians and a textured mesh of each picture, or of a picture that a text-to-image "
    "model makes of words. A picture that can't be used is named with the reason, and the others "
    "go on; the exit code is 1 then."
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("generate", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        type=Path,
        help="pictures, or folders of pictures; results of earlier runs are left out",
    )
    references.add_options(parser)
    add_output(parser, "results")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip pictures and words whose results are already in DIR",
    )
    parser.add_argument(
        "--ray",
        metavar="HOST:PORT",
        help="use the machines of a Ray cluster, one picture for each card or processor (with"
        " --threads N for each N processors)",
    )
    parser.add_argument(
        "--model", default="blockout", help="a name of 'gsv3d models', or a folder (%(default)s)"
    )
    parser.add_argument("--steps", type=int, help="denoising steps (the model's own)")
    add_mesh(parser)
    parser.add_argument(
        "--elevation",
        type=_angle_or("auto"),
        default="auto",
        metavar="DEG",
        help="degrees that the camera stood above the horizon; auto estimates it (%(default)s)",
    )
    parser.add_argument(
        "--mirror",
        type=_angle_or("auto", "off"),
        default="auto",
        metavar="DEG",
        help="azimuth of a vertical mirror plane of the object, degrees counter-clockwise seen from"
        " above, 0 toward the camera; auto looks for one, off uses none (%(default)s)",
    )
    parser.add_argument(
        "--backs",
        choices=("model", "picture"),
        default="model",
        help="unseen sides show the model's own views (model), or the picture as if seen through"
        " (picture) (%(default)s)",
    )
    add_views(parser)
    parser.add_argument(
        "--azimuths",
        type=read_numbers,
        metavar="DEG,…",
        help="angles of the views, instead of --orbit: growing from 0 to less than 360,"
        " counter-clockwise seen from above, then 0, the picture's own (evenly spaced)",
    )
    parser.add_argument(
        "--elevations",
        type=read_numbers,
        metavar="DEG,…",
        help="angles of the views, instead of --orbit: -90 to 90, the picture's own last (those of"
        " the model's orbit). Write --elevations=-5,… where the first is negative",
    )
    parser.add_argument(
        "--refine",
        action="store_true",
        help="fit the decoder's Gaussians to the model's own views; those of a model without a"
        " decoder are fitted in any case",
    )
    add_formats(parser)
    add_cutout(parser)
    add_machine(parser)
    add_memory(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Return 0, or 1 if a picture failed."""
    limit_threads(args.threads)  # before torch is imported
    with pause_collecting():
        from gsv3d import generation, pipeline  # noqa: F401 - what is heavy
        from gsv3d.cli.progress import ImageProgress
        from gsv3d.outputs import make_folder
        from gsv3d.settings import GenerationSettings

    try:
        settings = GenerationSettings(
            steps=args.steps,
            seed=args.seed,
            faces=args.faces,
            texture_size=args.texture_size,
            elevation=None if args.elevation == "auto" else args.elevation,
            mirror=args.mirror,
            backs=args.backs,
            refine=args.refine,
            previews=0,
            cutout=args.cutout,
            orbit=args.orbit,
            frames=args.frames,
            azimuths=args.azimuths,
            elevations=args.elevations,
            consistency=read_consistency(args.consistency),
        )
    except ValueError as error:
        raise GSV3DError(str(error)) from error
    wishes = references.list_wishes(args)
    check_cutout(args.cutout)
    images, problems = expand_inputs(args.images)
    output = make_folder(args.output)
    tally = Tally(len(images) + len(wishes) + len(problems))
    if args.resume:
        images, wishes = leave_out_done(images, output), references.leave_out_done(wishes, output)
        tally.there = tally.inputs - len(images) - len(wishes) - len(problems)
    prompts = [wish.prompt for wish in wishes]
    names = name_results(images, output, prompts, args.overwrite)
    wished = name_results(images, output, prompts, overwrite=True)
    for problem in problems:
        print(f"gsv3d: {problem}", file=sys.stderr)
    taken = sum(name != wish for name, wish in zip(names, wished, strict=True))
    if taken:
        print(
            f"gsv3d: {taken} {'name is' if taken == 1 else 'names are'} taken in {output}. "
            "Those results get a number; --overwrite replaces what is there.",
            file=sys.stderr,
        )
    made, lost = references.make_references(
        wishes, [output / name for name in names[len(images) :]], args
    )
    if args.reference_only:
        return 1 if lost else 0
    work = [(image, output / name) for image, name in zip(images, names, strict=False)] + made

    tally.failed = len(problems) + lost
    generator = Generator(args.model, args.device, args.memory, settings, args.formats)
    with ImageProgress(len(work)) as progress:
        make = _generate_here if args.ray is None else _generate_there
        make(work, generator, args, progress, tally)
    if tally.inputs > 1:
        print(tally.table(), file=sys.stderr)
    if tally.failed:
        print(f"gsv3d: {tally.failed} of {tally.inputs} inputs could not be used.", file=sys.stderr)
    return 1 if tally.failed else 0


def _generate_there(
    work: Work,
    generator: Generator,
    args: argparse.Namespace,
    progress: ImageProgress,
    tally: Tally,
) -> None:
    """Generate on a cluster."""
    from gsv3d.preprocessing import is_unsure
    from gsv3d.results import list_endings

    endings = list_endings(args.formats)
    for image, files, certainty, error in generate_on_ray(
        work, generator, args.ray, endings, args.overwrite, args.threads
    ):
        progress.start(image.name, "writing")
        if error is not None:
            tally.failed += 1
            progress.fail(name_picture(GSV3DError(error), image))
            continue
        if is_unsure(certainty):
            progress.remark(describe_unsure_cutout(image, certainty))
        tally.made += 1
        progress.finish(image, files)


def _generate_here(
    work: Work,
    generator: Generator,
    args: argparse.Namespace,
    progress: ImageProgress,
    tally: Tally,
) -> None:
    """Generate in this process."""
    from gsv3d.preprocessing import load_image

    for image, target in work:
        loading_model = False
        try:
            progress.start(image.name)
            picture = load_image(image)
            if generator.pipeline is None:  # not before a picture needs it
                loading_model = True
                generator.load()
                loading_model = False
            files = _generate(generator, image, picture, target, args, progress)
            tally.made += 1
            progress.finish(image, files)
        except Exception as error:
            told = (
                error if isinstance(error, GSV3DError) else out_of_memory(error, args.texture_size)
            )
            if told is None and loading_model:
                raise
            if told is None:
                traceback.print_exc()
                told = GSV3DError(
                    f"This failed by a fault of GSV3D ({type(error).__name__}: {error}).",
                    "Please report it with the lines above.",
                )
            # A model that is missing and a disk that is full concern every picture.
            full = isinstance(told, OutputError) and not isinstance(told, OutputNameError)
            if loading_model or full:
                raise told from error
            tally.failed += 1
            progress.fail(name_picture(told, image))
            del told  # its traceback would keep the arrays of the job


def _generate(
    generator: Generator,
    image: Path,
    picture: Image.Image,
    target: Path,
    args: argparse.Namespace,
    progress: ImageProgress,
) -> list[Path]:
    """Run one job and write its files; the .json comes last and says that all are there."""
    from gsv3d.cli.progress import WEIGHTS
    from gsv3d.generation import generate, list_phases
    from gsv3d.outputs import free_target
    from gsv3d.preprocessing import is_unsure
    from gsv3d.results import list_endings

    pipeline, settings = generator.pipeline, generator.settings
    progress.weights = {name: WEIGHTS[name] for name in list_phases(pipeline, settings)}
    result = generate(pipeline, picture, settings, progress)
    if is_unsure(result.certainty):
        progress.remark(describe_unsure_cutout(image, result.certainty))
    with free_target(target, list_endings(args.formats), args.overwrite) as free:
        return generator.write(result, image, free)


def _angle_or(*words: str) -> Callable[[str], float | str]:
    def read(text: str) -> float | str:
        if text in words:
            return text
        try:
            return float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} must be degrees, or {' or '.join(words)}."
            ) from None

    return read
