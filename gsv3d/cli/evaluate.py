# SPDX-License-Identifier: Apache-2.0
"""``gsv3d evaluate``: a model against the true objects and against baselines."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.datasets.objects import find_objects
from gsv3d.errors import GSV3DError, OutputError
from gsv3d.evaluation.protocol import EvaluationSettings, choose_objects
from gsv3d.meshing.mesh import TexturedMesh

DESCRIPTION = (
    "Measure a model on 3D objects: unseen views, surfaces and volumes of its meshes, beside the "
    "reference picture extruded to a slab, an ellipsoid and nothing. Goes on where it stopped."
)


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    default = EvaluationSettings()
    parser = subparsers.add_parser("evaluate", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a model's name or folder; none: baselines alone"
    )
    parser.add_argument(
        "--objects", nargs="+", required=True, metavar="OBJECT", help="files, folders, index.json"
    )
    parser.add_argument("--name", help="the model's name in the report (that of its folder)")
    parser.add_argument("--report", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", help="only this split of an index.json")
    parser.add_argument("--count", type=int, default=default.count, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="(%(default)s)")
    parser.add_argument("--steps", type=int, help="denoising steps (the model's own number)")
    parser.add_argument("--faces", type=int, default=default.faces, help="(%(default)s)")
    parser.add_argument(
        "--texture-size", type=int, default=default.texture_size, help="(%(default)s)"
    )
    parser.add_argument("--size", type=int, default=default.size, help="of the views (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="Blender processes (%(default)s)")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 if an object failed; 2 if nothing could be done."""
    from gsv3d.cli.render import require_blender
    from gsv3d.evaluation.report import write_report
    from gsv3d.evaluation.runner import (
        BASELINES,
        folder_digest,
        prepare_folder,
        run_evaluation,
    )

    try:
        settings = EvaluationSettings(
            split=args.split,
            count=args.count,
            seed=args.seed,
            size=args.size,
            steps=args.steps,
            faces=args.faces,
            texture_size=args.texture_size,
        )
        if args.workers < 1:
            raise ValueError(f"workers is {args.workers}, but must be at least 1.")
        objects = choose_objects(find_objects(args.objects, args.split), args.count, args.seed)
        require_blender()
        generator, digest, name = None, "", None
        if args.model:
            from gsv3d.models import find

            folder = find(args.model)
            name, digest = args.name or folder.name, folder_digest(folder)
            if name in (*BASELINES, "empty"):
                raise ValueError(f"'{name}' is a baseline's name; give the model another --name.")
            generator = _Generator(args.model, args.device, settings)
        evaluation = prepare_folder(args.report, settings, objects, name, digest)
        failures = run_evaluation(evaluation, generator, _Progress(), args.workers)
        print("\n" + write_report(evaluation))
    except (GSV3DError, ValueError) as error:
        print(f"gsv3d evaluate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"gsv3d evaluate: {OutputError(f'{error}.')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    for reason in failures.values():
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


class _Generator:
    """Loads the model when the first mesh is needed, not when all are there."""

    def __init__(self, model: str, device: str, settings: EvaluationSettings) -> None:
        from gsv3d.generation import GenerationSettings

        self._model, self._device = model, device
        self._settings = settings
        self._make = GenerationSettings
        self._pipeline: Any = None
        self._job(0.0)  # a bad setting is named before anything is rendered

    def _job(self, elevation: float) -> Any:
        return self._make(
            steps=self._settings.steps,
            seed=self._settings.seed,
            faces=self._settings.faces,
            texture_size=self._settings.texture_size,
            elevation=elevation,
            previews=0,
        )

    def __call__(
        self, reference: np.ndarray, elevation: float
    ) -> tuple[TexturedMesh, dict[str, float]]:
        from PIL import Image

        from gsv3d.generation import generate
        from gsv3d.models import load_pipeline

        if self._pipeline is None:
            self._pipeline = load_pipeline(self._model, self._device)
        result = generate(self._pipeline, Image.fromarray(reference), self._job(elevation))
        return result.mesh, result.timings


class _Progress:
    """A line every few seconds, with the time left of the phase."""

    def __init__(self) -> None:
        self._phase, self._started, self._last = "", 0.0, 0.0

    def __call__(self, phase: str, done: int, of: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started, self._last = phase, now, 0.0
        if now - self._last > 5 or done == of:
            self._last = now
            left = (now - self._started) / done * (of - done)
            print(f"{phase}: {done}/{of}, {int(left // 60)}:{int(left % 60):02d} left", flush=True)
