# SPDX-License-Identifier: Apache-2.0
"""Write what lies beside gathered objects: index, attributions, datasheet, what was left out."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsv3d.lab.datasets.dataset import DATASHEET, count_values, join_sections
from gsv3d.lab.gathering.repositories import HOST
from gsv3d.lab.gathering.selection import KEPT_OUT_LIMITS, OBJECTS, TRAIN_LIMITS, LeftOut
from gsv3d.lab.gathering.single_objects import Candidate
from gsv3d.lab.gathering.sources import LICENSES, Source
from gsv3d.outputs import write_atomic

INDEX, ATTRIBUTION, LEFT_OUT = "index.json", "ATTRIBUTION.md", "left_out.csv"

CHANGES = (
    "Changes to the objects: rigs shown at rest, node transforms baked, base color only, textures "
    "cropped and reduced to at most 256 px."
)


def write_files(
    output: Path,
    taken: Sequence[tuple[Candidate, dict[str, Any]]],
    left: Sequence[LeftOut],
    sources: Sequence[Source],
    command: str,
) -> None:
    """Write the index and the other files, and remove objects that the index does not list.

    Args:
        output: folder of the set.
        taken: objects that are taken, and their facts.
        left: objects that are left out.
        sources: all sources.
        command: command that gathers, for the datasheet.

    Raises:
        OutputError: a file cannot be written.
    """
    objects = [
        {
            "file": f"{item.name}.glb",
            "pack": item.pack.name,
            "object": item.name.split("__", 1)[1],
            "source_repo": item.source.repository,
            "source_commit": item.source.commit,
            "source_path": item.path,
            "license": item.source.license,
            "author": item.source.author,
            **facts,
            "split": "train",
        }
        for item, facts in taken
    ]
    used = {entry["source_repo"] for entry in objects}
    document = {
        "note": "Single objects, one self-contained GLB each: +Y up, original units, node "
        "transforms baked, base color only, textures cropped and at most 256 px. Licenses and "
        f"authors: {ATTRIBUTION}.",
        "sources": {s.repository: s.commit for s in sources if s.repository in used},
        "objects": objects,
    }
    files = {
        INDEX: json.dumps(document, indent=0, ensure_ascii=False) + "\n",
        ATTRIBUTION: write_attribution(objects, sources),
        DATASHEET: write_datasheet(objects, left, command),
        LEFT_OUT: write_left_out(left),
    }
    for name, text in files.items():
        write_atomic(output / name, text.encode())
    listed = {entry["file"] for entry in objects}
    for path in (output / OBJECTS).glob("*.glb"):
        if path.name not in listed:
            path.unlink()


def write_attribution(objects: Sequence[dict[str, Any]], sources: Sequence[Source]) -> str:
    """Write the authors and licenses as Markdown."""
    counts = Counter(
        (o["pack"], o["license"], o["author"], o["source_repo"], o["source_commit"])
        for o in objects
        if "title" not in o
    )
    rows = [
        f"| {pack} | {count} | {author} | {HOST}{repository} @ {commit[:10]} | {license} |"
        for (pack, license, author, repository, commit), count in sorted(counts.items())
    ]
    named = [
        f'- "{o["title"]}" by {o["author"]}, {o["license"]}'
        + (f", {o['url']}" if o.get("url") else "")
        for o in sorted(objects, key=lambda o: o["file"])
        if "title" in o
    ]
    claims = [
        f"- {source.repository} ({', '.join(pack.name for pack in packs)}): {source.claim}"
        for source in sources
        if (packs := [p for p in source.packs if any(o["pack"] == p.name for o in objects)])
    ]
    lines = [
        "# Authors and licenses of the objects",
        "",
        CHANGES,
        "",
        *(f"- {name}: {address}" for name, address in LICENSES.items()),
        "",
        "| pack | objects | author | source | license |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        *(["## Objects whose files name their authors", "", *named, ""] if named else []),
        "## What each license rests on",
        "",
        *claims,
    ]
    return "\n".join(lines) + "\n"


def write_datasheet(
    objects: Sequence[dict[str, Any]], left: Sequence[LeftOut], command: str
) -> str:
    """Write the datasheet as Markdown."""
    packs = len({o["pack"] for o in objects})
    alike = [item for item in left if item.like]
    reasons = Counter(item.why.rsplit(": ", 1)[-1].rstrip(".") for item in left if not item.like)
    triangles = sorted(o["triangles"] for o in objects) or [0]
    limits = {
        "to objects that are trained on": TRAIN_LIMITS,
        "to objects that are measured on": KEPT_OUT_LIMITS,
    }
    sections = {
        "Motivation": [
            "Single 3D objects to train models that turn one picture into views and 3D Gaussians."
        ],
        "Composition": [
            f"- {len(objects)} objects of {packs} packs, {sum(o['bytes'] for o in objects):,} "
            "bytes; all are of the split train",
            f"- triangles of an object: {triangles[0]:,} to {triangles[-1]:,}, median "
            f"{triangles[len(triangles) // 2]:,}",
            f"- colors: {count_values(o['colour'] for o in objects)}",
            f"- licenses: {count_values(o['license'] for o in objects)}",
        ],
        "Collection": [
            "Files of public git repositories at fixed commits; a license file there, or a "
            f"statement of the author, covers each ({ATTRIBUTION}).",
            "",
            f"    {command}",
        ],
        "Preprocessing": [
            CHANGES,
            f"Left out: {len(alike)} objects that are like others, and {len(left) - len(alike)} "
            f"for other reasons ({LEFT_OUT}).",
            "",
            *(f"- {count} objects: {reason}" for reason, count in reasons.most_common(8)),
            "",
            "Two objects are alike if the Chamfer distance of their surfaces, in units of their "
            "root mean square radius and least over turns, is below one limit; or below a second "
            "one, if their pictures differ by less than a third one (0 to 1):",
            "",
            *(
                f"- {kind}: {limit.shape}; {limit.similar_shape}, {limit.picture}"
                for kind, limit in limits.items()
            ),
        ],
        "Uses": [
            "To train. Nothing of it should be measured on: how it differs from what is measured "
            "on is known only for the sets that it was compared with."
        ],
        "Distribution": [
            f"Licenses of the objects bind their renders too. Name the authors ({ATTRIBUTION})."
        ],
        "Maintenance": ["The same command makes what is missing and nothing else."],
    }
    return join_sections("the records of its objects", sections)


def write_left_out(left: Sequence[LeftOut]) -> str:
    """Write the objects that are left out as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["pack", "source_repo", "source_path", "why", "like", "shape", "picture"])
    for item in left:
        one = item.candidate
        why = item.why.removeprefix(f"{one}: ")
        numbers = ["" if n is None else f"{n:.4f}" for n in (item.shape, item.picture)]
        rows.writerow([one.pack.name, one.source.repository, one.path, why, item.like, *numbers])
    return text.getvalue()
