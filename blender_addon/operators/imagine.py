# SPDX-License-Identifier: GPL-3.0-or-later
"""Imagine: a picture made of words, which the artist sees before it becomes an object."""

from __future__ import annotations

import random
import re
from typing import Any

import bpy

from .. import preferences, session
from ..importers.picture import is_of
from ..problems import Problem
from ..properties import MAX_SEED
from ..requests import Target, Words
from . import common

_NAME_CHARACTERS = 48


class GSV3D_OT_imagine(bpy.types.Operator):
    """Draw a picture of the words, and another one with every press"""

    bl_idname = "gsv3d.imagine"
    bl_label = "Imagine Picture from Words"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Say on the grayed button what is missing."""
        typed = context.scene is not None and context.scene.gsv3d.prompt.strip()
        missing = "" if typed else "Type what you want to see"
        return common.may_press(cls, missing)

    def execute(self, context: bpy.types.Context) -> set[str]:
        problem = text_problem()
        if problem is not None:
            raise problem
        settings = context.scene.gsv3d
        prompt = settings.prompt.strip()
        settings.prompt_seed = _next_seed(settings, prompt)
        model = preferences.text_model()
        common.ensure_backend()
        session.get().jobs.submit(
            Words(prompt, model.name, model.steps, model.guidance, settings.prompt_seed),
            Target(name_of_words(prompt), **common.place_in(context.scene)),
        )
        return {"FINISHED"}


def text_problem() -> Problem | None:
    """Return why no picture can be made of words; empty if the add-on knows no reason."""
    connected = session.get().backend.connected
    if connected is not None and not connected.makes_pictures:
        return Problem(
            "This backend is older than the add-on and makes no pictures of words.",
            "Update GSV3D in the backend's Python, then press Stop and Start.",
        )
    elsewhere = connected.text_model if connected else preferences.starts_elsewhere()
    if preferences.names_text_model() or elsewhere:
        return None
    return Problem(
        "There is no text-to-image model to draw the words with.",
        "Choose the folder or the id of a diffusers pipeline as Text to Image in "
        "Preferences > Add-ons > GSV3D.",
    )


def name_of_words(prompt: str) -> str:
    """Return the name of a picture and its object: letters, digits and single spaces."""
    words = " ".join(re.sub(r"[^\w.-]+", " ", prompt).split())
    return words[:_NAME_CHARACTERS].strip(" .-") or "Words"


def _next_seed(settings: Any, prompt: str) -> int:
    """Return the seed that is set, or another if its picture is there or being made."""
    if settings.use_random_seed:
        return random.randint(0, MAX_SEED)
    asked = [job.request for job in session.get().book.active()]
    seed = settings.prompt_seed
    while is_of(settings.imagined, prompt, seed) or any(
        isinstance(words, Words) and (words.prompt, words.seed) == (prompt, seed) for words in asked
    ):
        seed = (seed + 1) % (MAX_SEED + 1)
    return seed


CLASSES = (GSV3D_OT_imagine,)
