# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings and lists that the interface shows: ``Scene.gsv3d`` and ``WindowManager.gsv3d``.

The settings are saved with the file. The lists are those of this Blender; ``session`` writes them
as jobs change, never while drawing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import session, splat_view
from .jobs import JobState
from .translations import CONTEXT, interface

MAX_SEED = 2**31 - 1
MAX_PROMPT = 1000


def _known_models(_self: Any, _context: Any, _edit_text: str) -> Iterable[tuple[str, str]]:
    """Yield names, and what stands beside them in the menu: those that are installed first."""
    for model in sorted(session.get().models(), key=lambda model: not model.installed):
        yield model.name, "" if model.installed else interface("not installed")


def _show_splats(settings: Any, _context: Any) -> None:
    splat_view.show(settings.id_data, settings.splats_in_view)


_STEPS = {"DRAFT": 2, "NORMAL": 0, "HIGH": 50}
"""Denoising steps; 0 for the model's own, which are 2 of ``blockout``: no more than a draft's."""


def steps_of(settings: Any) -> int:
    """Return the denoising steps of the quality that is set; 0 leaves it to the model."""
    return _STEPS.get(settings.quality, settings.steps)


def _steps_were_set(settings: Any, _context: Any) -> None:
    named = (name for name, steps in _STEPS.items() if steps == settings.steps)
    settings.quality = next(named, "CUSTOM")


def _frames_were_set(settings: Any, _context: Any) -> None:
    if settings.frames == 1:  # the picture's own alone
        settings.frames = 2


class GSV3D_PG_settings(bpy.types.PropertyGroup):
    """What to generate, and from what."""

    source: EnumProperty(  # type: ignore[valid-type]
        name="Reference",
        description="Where the reference picture comes from",
        items=(
            ("SELECTED", "Selected", "The selected image empties"),
            ("IMAGE", "Image", "An image of this file"),
            ("FILE", "File", "A picture file"),
            ("WORDS", "Words", "A picture made of words"),
        ),
        translation_context=CONTEXT,
    )
    prompt: StringProperty(  # type: ignore[valid-type]
        name="Words",
        description="The object in words, e.g. a wooden barrel",
        maxlen=MAX_PROMPT,
    )
    prompt_seed: IntProperty(  # type: ignore[valid-type]
        name="Picture Seed",
        description="Number that the picture depends on besides the words",
        min=0,
        max=MAX_SEED,
    )
    imagined: PointerProperty(  # type: ignore[valid-type]
        name="Picture", description="The picture the object is made of", type=bpy.types.Image
    )
    image: PointerProperty(  # type: ignore[valid-type]
        name="Image", description="The reference picture", type=bpy.types.Image
    )
    filepath: StringProperty(  # type: ignore[valid-type]
        name="File", description="The reference picture's file", subtype="FILE_PATH"
    )
    folder: StringProperty(  # type: ignore[valid-type]
        name="Folder", description="Folder with one picture per object", subtype="DIR_PATH"
    )
    skip_done: BoolProperty(  # type: ignore[valid-type]
        name="Skip Done",
        description="Leave out pictures that have their result in this scene",
        default=True,
    )
    batch_source: EnumProperty(  # type: ignore[valid-type]
        name="Pictures",
        description="Where a batch takes its pictures from",
        items=(
            ("SELECTED", "Selected", "All selected image empties", "EMPTY_DATA", 0),
            ("FOLDER", "Folder", "All pictures of a folder", "FILE_FOLDER", 1),
        ),
    )
    model: StringProperty(  # type: ignore[valid-type]
        name="Model",
        description="Which model makes the object",
        default="blockout",
        search=_known_models,
    )
    seed: IntProperty(  # type: ignore[valid-type]
        name="Seed",
        description="Number that the object depends on besides picture and settings",
        min=0,
        max=MAX_SEED,
    )
    use_random_seed: BoolProperty(  # type: ignore[valid-type]
        name="Random Seed", description="Take a new seed for every object"
    )
    seeds: IntProperty(  # type: ignore[valid-type]
        name="Variants",
        description="How many objects are made of a picture, side by side, each with the next seed",
        default=1,
        min=1,
        max=8,
    )
    quality: EnumProperty(  # type: ignore[valid-type]
        name="Quality",
        description="How long the model works on an object",
        items=(
            ("DRAFT", "Draft", "As fast as possible"),
            ("NORMAL", "Standard", "As the model is meant to be used"),
            (
                "HIGH",
                "High",
                "Slower, for large models; the shipped one gains nothing by it",
            ),
            ("CUSTOM", "Custom", "The number of steps under Advanced"),
        ),
        default="NORMAL",
    )
    refine: BoolProperty(  # type: ignore[valid-type]
        name="Refine",
        description="Fit the splats to the model's own views, which takes longer",
    )
    steps: IntProperty(  # type: ignore[valid-type]
        name="Steps",
        description="Number of denoising steps; 0 leaves it to the model",
        min=0,
        max=200,
        update=_steps_were_set,
    )
    faces: IntProperty(  # type: ignore[valid-type]
        name="Faces",
        description="The most triangles the mesh may have",
        default=5000,
        min=100,
        max=500_000,
        soft_max=50_000,
    )
    texture_size: IntProperty(  # type: ignore[valid-type]
        name="Texture",
        description="Width and height of the texture in pixels",
        default=1024,
        min=64,
        max=4096,
        subtype="PIXEL",
    )
    size: EnumProperty(  # type: ignore[valid-type]
        name="Size",
        description="How large an object made of a picture in the scene is",
        items=(
            ("PICTURE", "As Shown", "As large as the picture in the scene shows it"),
            ("HEIGHT", "Height", "As high as set below"),
        ),
    )
    height: FloatProperty(  # type: ignore[valid-type]
        name="Height",
        description="Height of the object",
        default=1.0,
        min=0.001,
        soft_max=100.0,
        unit="LENGTH",
        subtype="DISTANCE",
    )
    auto_elevation: BoolProperty(  # type: ignore[valid-type]
        name="Estimate Elevation",
        description="Estimate from the picture how far it looks down on the object",
        default=True,
    )
    mirror: EnumProperty(  # type: ignore[valid-type]
        name="Mirror",
        description="Use the mirrored picture as a second one, of the object's other side",
        items=(
            ("AUTO", "Auto", "Look for a vertical mirror plane, and mirror if there is one"),
            ("OFF", "Off", "The object is no mirror image of itself"),
            ("PLANE", "Angle", "The mirror plane stands at the angle below"),
        ),
    )
    plane: FloatProperty(  # type: ignore[valid-type]
        name="Plane (°)",
        description="Angle of the mirror plane seen from above: 0 points to the camera, 45 to its"
        " right, 90 runs across the picture",
        default=45.0,
        min=0.0,
        max=180.0,
    )
    orbit: EnumProperty(  # type: ignore[valid-type]
        name="Orbit",
        description="Where the views stand that the model draws around the object",
        items=(
            ("MODEL", "Model's Own", "Where the model was made to draw them"),
            ("STATIC", "Level", "All as far above the object as the picture"),
            ("SINE", "Up and Down", "Up to 30 degrees above and below the picture, once around"),
            ("DYNAMIC", "Moving", "Up and down at random, drawn by the seed"),
        ),
    )
    frames: IntProperty(  # type: ignore[valid-type]
        name="Views",
        description="How many views the model draws, at least 2; 0 leaves it to the model",
        min=0,
        max=84,
        update=_frames_were_set,
    )
    elevation: FloatProperty(  # type: ignore[valid-type]
        name="Elevation (°)",
        description="Angle by which the picture looks down on the object: 0 is level",
        default=10.0,
        min=-30.0,
        max=80.0,
    )
    again: EnumProperty(  # type: ignore[valid-type]
        name="Again",
        description="Where another result of the same picture goes",
        items=(
            ("BESIDE", "Beside", "Beside the ones that are there"),
            ("REPLACE", "Replace", "In the place of the last one: its transform, parent and name"),
        ),
    )
    splats_in_view: BoolProperty(  # type: ignore[valid-type]
        name="Splats in the View",
        description="Draw splats in 3D views as they are, not as the ellipsoids that renders show",
        default=True,
        update=_show_splats,
    )
    after_mesh: EnumProperty(  # type: ignore[valid-type]
        name="Splats",
        description="What becomes of the splats when the mesh is there",
        items=(
            ("HIDE", "Hide", "Keep them, hidden, at the same place"),
            ("SHOW", "Show", "Keep them in view at the same place"),
            ("REMOVE", "Remove", "Only the mesh stays"),
        ),
    )


class GSV3D_PG_job(bpy.types.PropertyGroup):
    """A row of the list. ``name`` comes with every property group."""

    job_id: StringProperty()  # type: ignore[valid-type]
    state: StringProperty()  # type: ignore[valid-type]
    text: StringProperty()  # type: ignore[valid-type]

    @property
    def icon(self) -> str:
        return {
            JobState.WAITING.value: "SORTTIME",
            JobState.QUEUED.value: "SORTTIME",
            JobState.RUNNING.value: "PLAY",
            JobState.CANCELLING.value: "CANCEL",
            JobState.ARRIVED.value: "IMPORT",
            JobState.DONE.value: "CHECKMARK",
            JobState.FAILED.value: "ERROR",
            JobState.CANCELLED.value: "X",
        }.get(self.state, "QUESTION")


class GSV3D_PG_runtime(bpy.types.PropertyGroup):
    """The list of jobs as the interface sees it."""

    jobs: CollectionProperty(type=GSV3D_PG_job, options={"SKIP_SAVE"})  # type: ignore[valid-type]
    job_index: IntProperty(options={"SKIP_SAVE"})  # type: ignore[valid-type]


CLASSES = (GSV3D_PG_settings, GSV3D_PG_job, GSV3D_PG_runtime)


def attach() -> None:
    bpy.types.Scene.gsv3d = PointerProperty(type=GSV3D_PG_settings)
    bpy.types.WindowManager.gsv3d = PointerProperty(type=GSV3D_PG_runtime)


def detach() -> None:
    del bpy.types.Scene.gsv3d
    del bpy.types.WindowManager.gsv3d
