# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the backend and the places of their results, as plain data. No bpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .batch import read_picture
from .importers.placement import PicturePlane
from .pixels import Encoding

Picture = bytes | Path | Encoding
"""A picture file's bytes, or where they come from when they are sent.

So neither a folder's pictures nor those of jobs that are done lie in memory, and a PNG is made
beside Blender's main thread.
"""


def bytes_of(picture: Picture) -> bytes:
    """Return a picture's bytes; wait for one that is being made. Raises `Problem`."""
    if isinstance(picture, Path):
        return read_picture(picture)
    return picture if isinstance(picture, bytes) else picture.read()


@dataclass(frozen=True)
class Request:
    """An object that is asked for.

    Attributes:
        steps: denoising steps; 0 for the model's own number.
        elevation: degrees by which the picture looks down; None to have them estimated.
        mirror: "auto", "off" or "plane", which is the one at ``plane`` degrees.
        orbit: where the model's views stand; "model" for its own orbit.
        frames: how many views there are; 0 for the model's own number.
        azimuths, elevations: degrees of each view instead, the picture's own last.
        refine: True to have splats fitted to the views.
        batch: True for one of many pictures, which wait behind single ones.
    """

    image: Picture
    filename: str
    model: str = "blockout"
    steps: int = 0
    seed: int = 0
    faces: int = 5000
    texture_size: int = 1024
    elevation: float | None = None
    mirror: str = "auto"
    plane: float = 0.0
    orbit: str = "model"
    frames: int = 0
    azimuths: tuple[float, ...] = ()
    elevations: tuple[float, ...] = ()
    refine: bool = False
    files: tuple[str, ...] = ()
    batch: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Cutting:
    """A picture whose cut-out the artist wants to see."""

    image: Picture
    filename: str


@dataclass(frozen=True)
class Words:
    """A picture that is asked for in words; 0 steps and 0 guidance are the text model's own."""

    prompt: str
    text_model: str = ""
    steps: int = 0
    guidance: float = 0.0
    seed: int = 0

    @property
    def filename(self) -> str:
        """Return what sentences call it."""
        return self.prompt


AnyRequest = Request | Words | Cutting


def is_ready(request: AnyRequest) -> bool:
    """Return False while the PNG of a request is being made."""
    picture = None if isinstance(request, Words) else request.image
    return not isinstance(picture, Encoding) or picture.done


def is_batch(request: AnyRequest) -> bool:
    """Return True for one of many pictures."""
    return isinstance(request, Request) and request.batch


@dataclass(frozen=True)
class Target:
    """A place for results, in names and numbers, since Blender objects do not live long.

    Attributes:
        location: location in Blender units.
        yaw: radians about +Z.
        height: height in Blender units; None for as large as the picture shows the object.
        plane: the picture where it stands in the scene: the result stands at its lower edge, not at
            the location.
        source: a digest of the picture.
        replaces: True to take the place of the last result of the same picture.
        after_mesh: "HIDE", "SHOW" or "REMOVE", what becomes of the splats then.
        scene, collection: names; of an empty collection it is the scene's own.
        scene_uid, collection_uid: Blender's numbers of them, by which they are found after they
            were renamed; 0 for the collection that is made for the batch.
        batch: shared by jobs of one collection and, without pictures in the scene, one grid.
        slot: the place in the batch.
    """

    name: str
    location: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    height: float | None = 1.0
    plane: PicturePlane | None = None
    source: str = ""
    replaces: bool = False
    after_mesh: str = "HIDE"
    scene: str = ""
    scene_uid: int = 0
    collection: str = ""
    collection_uid: int = 0
    batch: str = ""
    slot: int = 0
