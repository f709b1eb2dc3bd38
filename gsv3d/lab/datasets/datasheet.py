# SPDX-License-Identifier: Apache-2.0
"""A data set's datasheet (Gebru et al., "Datasheets for Datasets", 2018), filled from its facts.

Its questions are those of the paper's seven sections that the records can answer; what a maker must
say by hand is said to be missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gsv3d._version import __version__


def write_datasheet(
    objects: Sequence[Mapping[str, Any]],
    shards: Mapping[str, int],
    settings: Mapping[str, Any],
    commands: Sequence[str],
    failures: Mapping[str, str],
) -> str:
    """The datasheet as Markdown.

    Args:
        objects: the JSON of every object in the shards.
        shards: sizes in bytes by file name.
        settings: that all were rendered with.
        commands: that were run.
        failures: why objects are missing, by name.
    """
    views = sum(item["views"] for item in objects)
    return "\n".join(
        [
            "# Datasheet",
            "",
            f"Written by gsv3d {__version__} from what is in the shards.",
            "",
            "## Motivation",
            "",
            "Orbits of 3D objects, rendered to train and measure models that turn one picture into "
            "views and 3D Gaussians. Who made the data set, and for whom, is not recorded here.",
            "",
            "## Composition",
            "",
            f"- {len(objects)} objects, {views} views of "
            f"{settings['size']} x {settings['size']} pixels, {len(shards)} shards, "
            f"{sum(shards.values()) / 1e6:.1f} MB",
            f"- of each object: {settings['orbit_views']} views on a {settings['orbit']} orbit and "
            f"{settings['novel_views']} from random directions; RGBA, depth, "
            + ("normals, " if settings["normals"] else "")
            + "cameras, a random background colour",
            f"- {_splits(objects)}",
            f"- {len(failures)} objects failed and are not in it; see the end",
            "",
            *_packs(objects),
            "## Collection",
            "",
            "The objects are 3D files; the command names where they were. Each was rendered with "
            f"Blender ({settings['engine']}, {settings['samples']} samples a pixel):",
            "",
            *(f"    {command}" for command in commands),
            "",
            "## Preprocessing",
            "",
            "Each object is turned about its vertical axis at random, centred and scaled to a "
            "largest extent of 1, or less where a view would have clipped it. "
            + _materials(settings)
            + _lights(objects),
            "",
            *_irregular(objects),
            "| setting | value |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in settings.items()),
            "",
            "## Uses",
            "",
            "Training and measuring models of single objects. The pictures show synthetic light on "
            "synthetic objects on nothing: they say little about photographs of scenes.",
            "",
            "## Distribution",
            "",
            _licences(objects),
            "",
            "## Maintenance",
            "",
            "The same command renders what is missing and nothing else; all random choices depend "
            "on the seed and the objects' names alone. How the files are laid out: docs/data.md of "
            "gsv3d.",
            "",
            *_failures(failures),
        ]
    )


def _source(item: Mapping[str, Any], key: str) -> str:
    return str(item["source"].get(key, "")) or "not recorded"


def _splits(objects: Sequence[Mapping[str, Any]]) -> str:
    where = defaultdict(set)
    for item in objects:
        where[_source(item, "pack")].add(_source(item, "split"))
    torn = sorted(pack for pack, splits in where.items() if len(splits) > 1)
    if torn:
        return f"packs that stand in more than one split: {', '.join(torn)}"
    return f"{len(where)} packs, none of which stands in two splits"


def _packs(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    facts = Counter(
        tuple(_source(item, key) for key in ("pack", "split", "license", "author"))
        for item in objects
    )
    rows = [f"| {' | '.join(row)} | {count} |" for row, count in sorted(facts.items())]
    return ["| pack | split | licence | author | objects |", "| --- " * 5 + "|", *rows, ""]


def _materials(settings: Mapping[str, Any]) -> str:
    text = "Materials are as in the files. "
    if settings["materials"] == "matt":
        text = "Of materials the base colour alone is kept, matt. "
    if settings["random_colours"]:
        text += "Objects without any colour were given a random one. "
    return text


def _lights(objects: Sequence[Mapping[str, Any]]) -> str:
    lights = Counter(str(item["render"]["light"]) for item in objects)
    return "Lights: " + ", ".join(f"{name} ({n})" for name, n in sorted(lights.items())) + "."


def _irregular(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    said = []
    textures = sum(bool(item["missing_textures"]) for item in objects)
    animated = sum(item["frame"] is not None for item in objects)
    if textures:
        said.append(f"- {textures} objects lack textures that their files name")
    if animated:
        said.append(f"- {animated} objects are animated and show their first frame")
    return [*said, ""] if said else []


def _licences(objects: Sequence[Mapping[str, Any]]) -> str:
    licences = Counter(_source(item, "license") for item in objects)
    named = ", ".join(f"{name} ({count})" for name, count in sorted(licences.items()))
    return f"Licences of the objects, which bind their renders too: {named}."


def _failures(failures: Mapping[str, str]) -> list[str]:
    if not failures:
        return []
    rows = [f"- {name}: {reason}" for name, reason in sorted(failures.items())]
    return ["## Objects that failed", "", *rows, ""]
