# SPDX-License-Identifier: Apache-2.0
"""Read the list of sources of ``gsv3d gather``: repositories, licenses, authors, packs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsv3d.errors import DataError
from gsv3d.lab.datasets.mesh_files import describe_damage

SOURCES = Path(__file__).with_name("sources.json")
"""The list that ships with the package."""

FORMAT = "gsv3d-sources/1"

LICENSES = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}
"""Licenses that are taken, and their texts' addresses."""

IN_FILE = "in file"
"""A source's license if every file names its own, with its author, in ``asset.extras``."""


@dataclass(frozen=True)
class Pack:
    """A group of a source's objects.

    Attributes:
        name: name of the pack; the objects' files begin with it.
        take, leave: patterns of paths to take, and to leave out of those.
        up: axis that points up, "y" or "z".
        srgb_factors: True if the colors of materials are sRGB values, though the format has linear
            ones: older exports of Kenney's would look washed out.
        at_most: number of objects to keep, spread evenly over the paths; None for all.
        kept_out: True if new objects are compared with these, but these are not taken.
    """

    name: str
    take: tuple[str, ...]
    leave: tuple[str, ...] = ()
    up: str = "y"
    srgb_factors: bool = False
    at_most: int | None = None
    kept_out: bool = False


@dataclass(frozen=True)
class Source:
    """A repository at a commit, under one license.

    Attributes:
        repository: owner/name.
        commit: full hash.
        license: a key of ``LICENSES``, or ``IN_FILE``; empty if all packs are kept out.
        author: author of the objects; empty if every file names its own, or all are kept out.
        claim: text that the license rests on.
        packs: packs in it.
    """

    repository: str
    commit: str
    license: str
    author: str
    claim: str
    packs: tuple[Pack, ...]


def read_sources(path: Path) -> list[Source]:
    """Read a list of sources.

    Raises:
        DataError: it cannot be read, or says something that is not allowed.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        sources = [_read_source(entry) for entry in document["sources"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error}" if type(error) is ValueError else describe_damage(error)
        raise DataError(
            f"{path} is not a list of sources: {reason}.",
            f"See {SOURCES.name} in the package for its form.",
        ) from error
    names = [pack.name for source in sources for pack in source.packs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two packs with the name {twice[0]}.")
    return sources


def _read_source(entry: dict[str, Any]) -> Source:
    packs = tuple(
        Pack(**pack | {"take": tuple(pack["take"]), "leave": tuple(pack.get("leave", ()))})
        for pack in entry.pop("packs")
    )
    source = Source(packs=packs, **entry)
    if not re.fullmatch("[0-9a-f]{40}", source.commit):
        raise ValueError(f"{source.repository} has no full hash as its commit")
    if not all(pack.kept_out for pack in packs):
        if source.license != IN_FILE and source.license not in LICENSES:
            raise ValueError(f"{source.repository} has the license {source.license!r}")
        if not source.claim or (source.license != IN_FILE and not source.author):
            raise ValueError(f"{source.repository} has no claim or no author")
    for pack in packs:
        if not re.fullmatch(r"[a-z0-9_]+", pack.name):
            raise ValueError(f"a pack of {source.repository} has the name {pack.name!r}")
        if pack.up not in ("y", "z"):
            raise ValueError(f"the pack {pack.name} has the up axis {pack.up!r}")
    return source
