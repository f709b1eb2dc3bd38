# SPDX-License-Identifier: Apache-2.0
"""The datasheet of a data set, and its packs and splits."""

from __future__ import annotations

from dataclasses import asdict

from gsv3d.lab.datasets.dataset import write_datasheet
from gsv3d.lab.datasets.orbits import OrbitSettings


def facts(pack: str, split: str = "train", license: str = "CC0-1.0", **more) -> dict:
    source = {"file": "a.glb", "pack": pack, "split": split, "license": license, "author": "Ann"}
    row = {"views": 20, "source": source, "render": {"light": "city"}}
    return row | {"missing_textures": [], "frame": None} | more


def sheet(objects: list[dict], failures: dict[str, str] | None = None) -> str:
    settings = asdict(OrbitSettings(random_colors=True))
    shards = {"train-a-000000.tar": 1_500_000}
    return write_datasheet(objects, shards, settings, ["gsv3d render x"], failures or {})


def test_packs_licenses_and_sizes_are_counted() -> None:
    text = sheet([facts("a"), facts("a"), facts("b", "dev", "CC-BY-4.0")])
    assert "3 objects, 60 views of 128 x 128 pixels, 1 shards, 1.5 MB" in text
    assert (
        "| a | train | CC0-1.0 | Ann | 2 |" in text and "| b | dev | CC-BY-4.0 | Ann | 1 |" in text
    )
    assert "2 packs, none of which stands in two splits" in text
    assert "CC-BY-4.0 (1), CC0-1.0 (2)" in text and "    gsv3d render x" in text
    assert "## Objects that failed" not in text and "animated" not in text


def test_a_pack_in_two_splits_is_named() -> None:
    assert "more than one split: b" in sheet([facts("a"), facts("b"), facts("b", "dev")])


def test_what_is_missing_is_said() -> None:
    text = sheet(
        [facts("a", license="", missing_textures=["x.png"]), facts("a", frame=3)], {"c": "too bad."}
    )
    assert "1 objects lack textures" in text and "1 objects are animated" in text
    assert "not recorded (1)" in text and "- c: too bad." in text and "1 objects failed" in text


def test_every_section_of_the_paper_is_there_even_without_objects() -> None:
    text = sheet([])
    for title in ("Motivation", "Composition", "Collection", "Preprocessing", "Uses",
                  "Distribution", "Maintenance"):  # fmt: skip
        assert f"## {title}" in text
