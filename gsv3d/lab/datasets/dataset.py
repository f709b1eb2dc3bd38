# SPDX-License-Identifier: Apache-2.0
"""Make a data set: its shards, its record (dataset.json) and its DATASHEET.md.

The datasheet follows Gebru et al., "Datasheets for Datasets", 2018. Of the questions in the paper's
seven sections it answers those that the records can answer, and names what a person must add.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gsv3d._version import __version__
from gsv3d.errors import GSV3DError, OutputError
from gsv3d.lab.datasets.orbits import FORMAT, OrbitSettings
from gsv3d.lab.datasets.shards import SHARD_BYTES, ShardFolder, index_shards
from gsv3d.outputs import write_atomic

RECORD, DATASHEET = "dataset.json", "DATASHEET.md"


class Dataset:
    """A context manager around one run that renders into a folder.

    Args:
        directory: folder of the data set; made if missing.
        settings: settings of all its objects, those of earlier runs included.
        command: command that renders, for the datasheet.
        shard_bytes: approximate size of a shard in bytes.

    Attributes:
        folder: the shards; takes finished objects.
        recovered: sentences on damaged shards of earlier runs, set on entering.

    Raises:
        OutputError: the folder cannot be written, or holds objects of other settings.
    """

    def __init__(
        self,
        directory: Path,
        settings: OrbitSettings,
        command: str,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.settings, self._command = settings, command
        self.folder = ShardFolder(directory, shard_bytes)
        self.recovered: list[str] = []
        self._path = self.folder.directory / RECORD
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Dataset:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.folder)
            self._open_record()
            self.recovered = self.folder.recover()
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        # An error that ended the run must not be hidden by one of writing the record.
        with contextlib.suppress(GSV3DError) if error[0] else contextlib.nullcontext():
            self._save()
        self.folder.__exit__(*error)

    def _open_record(self) -> None:
        wanted = json.loads(json.dumps(asdict(self.settings)))
        self._record = {"format": FORMAT, "settings": wanted, "commands": [], "failures": {}}
        if self._path.exists():
            try:
                there = json.loads(self._path.read_text(encoding="utf-8"))
                before, kind = there["settings"], there["format"]
                commands, failures = list(there["commands"]), dict(there["failures"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OutputError(
                    f"{self._path} is not the record of a data set of this version ({error}).",
                    "Choose another folder.",
                ) from error
            key = next((key for key in wanted if before.get(key) != wanted[key]), None)
            if kind != FORMAT or key is not None:
                what = f"{key} = {before.get(key)}, not {wanted[key]}" if key else f"format {kind}"
                raise OutputError(
                    f"{self.folder.directory} holds orbits rendered with {what}.",
                    "Use the same settings or another folder.",
                )
            self._record.update(commands=commands, failures=failures)
        if self._command not in self._record["commands"]:
            self._record["commands"].append(self._command)
        self._save()

    def _save(self) -> None:
        text = json.dumps(self._record, indent=1, ensure_ascii=False)
        write_atomic(self._path, (text + "\n").encode())

    def note(self, name: str, failure: str | None) -> None:
        """Record why an object failed; None removes an earlier failure."""
        self._record["failures"].pop(name, None)
        if failure is not None:
            self._record["failures"][name] = failure

    def finish(self) -> None:
        """Pack the objects that wait into shards, and write the datasheet.

        Raises:
            OutputError: something cannot be written; running again goes on from there.
        """
        self.folder.pack()
        directory = self.folder.directory
        entries = index_shards(directory) if any(directory.glob("*.tar")) else []
        text = write_datasheet(
            [json.loads(entry.read_member("json")) for entry in entries],
            {path.name: path.stat().st_size for path in sorted(directory.glob("*.tar"))},
            self._record["settings"],
            self._record["commands"],
            self._record["failures"],
        )
        write_atomic(directory / DATASHEET, text.encode())


def write_datasheet(
    objects: Sequence[Mapping[str, Any]],
    shards: Mapping[str, int],
    settings: Mapping[str, Any],
    commands: Sequence[str],
    failures: Mapping[str, str],
) -> str:
    """Write the datasheet as Markdown.

    Args:
        objects: the JSON of every object in the shards.
        shards: sizes in bytes, by file name.
        settings: settings that all objects were rendered with.
        commands: commands that rendered them.
        failures: reasons why objects are missing, by the objects' names.
    """
    views = sum(item["views"] for item in objects)
    textures = sum(bool(item["missing_textures"]) for item in objects)
    animated = sum(item["frame"] is not None for item in objects)
    irregular = [
        *([f"- {textures} objects lack textures that their files name"] if textures else []),
        *([f"- {animated} objects are animated and show their first frame"] if animated else []),
    ]
    sections = {
        "Motivation": [
            "Orbits of 3D objects, rendered to train and measure models that turn one picture into "
            "views and 3D Gaussians. Who made the data set, and for whom, is not recorded here."
        ],
        "Composition": [
            f"- {len(objects)} objects, {views} views of "
            f"{settings['size']} x {settings['size']} pixels, {len(shards)} shards, "
            f"{sum(shards.values()) / 1e6:.1f} MB",
            f"- of each object: {settings['orbit_views']} views on a {settings['orbit']} orbit and "
            f"{settings['novel_views']} from random directions; RGBA, depth, "
            + ("normals, " if settings["normals"] else "")
            + "cameras, a random background color",
            f"- {_describe_splits(objects)}",
            f"- {len(failures)} objects failed and are not in it; see the end",
            "",
            *_tabulate_packs(objects),
        ],
        "Collection": [
            "The objects are 3D files; the command names where they were. Each was rendered with "
            f"Blender ({settings['engine']}, {settings['samples']} samples a pixel):",
            "",
            *(f"    {command}" for command in commands),
        ],
        "Preprocessing": [
            "Each object is turned about its vertical axis at random, centered and scaled to a "
            "largest extent of 1, or less where a view would have clipped it. "
            + _describe_materials(settings)
            + f"Lights: {count_values(str(item['render']['light']) for item in objects)}.",
            "",
            *([*irregular, ""] if irregular else []),
            "| setting | value |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in settings.items()),
        ],
        "Uses": [
            "Training and measuring models of single objects. The pictures show synthetic light on "
            "synthetic objects on nothing: they say little about photographs of scenes."
        ],
        "Distribution": [
            "Licenses of the objects, which bind their renders too: "
            f"{count_values(_read_source(item, 'license') for item in objects)}."
        ],
        "Maintenance": [
            "The same command renders what is missing and nothing else; all random choices depend "
            "on the seed and the objects' names alone. How the files are laid out: docs/data.md of "
            "gsv3d."
        ],
    }
    if failures:
        reasons = [f"- {name}: {reason}" for name, reason in sorted(failures.items())]
        sections["Objects that failed"] = reasons
    return join_sections("what is in the shards", sections)


def join_sections(origin: str, sections: Mapping[str, Sequence[str]]) -> str:
    """Join the sections of a datasheet.

    Args:
        origin: source of the datasheet's facts, for a sentence.
        sections: lines of each section, by its title.
    """
    lines = ["# Datasheet", "", f"Written by gsv3d {__version__} from {origin}.", ""]
    for title, content in sections.items():
        lines += [f"## {title}", "", *content, ""]
    return "\n".join(lines)


def count_values(values: Iterable[str]) -> str:
    """Name the values and how often each is there, sorted."""
    return ", ".join(f"{name} ({count})" for name, count in sorted(Counter(values).items()))


def _read_source(item: Mapping[str, Any], key: str) -> str:
    return str(item["source"].get(key, "")) or "not recorded"


def _describe_splits(objects: Sequence[Mapping[str, Any]]) -> str:
    where = defaultdict(set)
    for item in objects:
        where[_read_source(item, "pack")].add(_read_source(item, "split"))
    torn = sorted(pack for pack, splits in where.items() if len(splits) > 1)
    if torn:
        return f"packs that stand in more than one split: {', '.join(torn)}"
    return f"{len(where)} packs, none of which stands in two splits"


def _tabulate_packs(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    facts = Counter(
        tuple(_read_source(item, key) for key in ("pack", "split", "license", "author"))
        for item in objects
    )
    rows = [f"| {' | '.join(row)} | {count} |" for row, count in sorted(facts.items())]
    return ["| pack | split | license | author | objects |", "| --- " * 5 + "|", *rows]


def _describe_materials(settings: Mapping[str, Any]) -> str:
    text = "Materials are as in the files. "
    if settings["materials"] == "matt":
        text = "Of materials the base color alone is kept, matt. "
    if settings["random_colors"]:
        text += "Objects without any color were given a random one. "
    return text
