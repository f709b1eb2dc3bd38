# SPDX-License-Identifier: Apache-2.0
"""Gathering objects: from tiny git repositories to an index, without duplicates."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from gsv3d.cli import main
from gsv3d.errors import DataError
from gsv3d.lab.gathering import selection, single_objects
from gsv3d.lab.gathering.repositories import Repository, fetch, match, open_mirror
from gsv3d.lab.gathering.sources import FORMAT, SOURCES, read_sources
from gsv3d.lab.rasterizing.props import load_prop
from gsv3d.tasks import Outcome, attempt, outcome_of

NAME = "ann/things"


def git(*words: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(["git", *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    """Commit all files of a folder, which becomes a repository; return the hash."""
    git("init", "--quiet", str(folder))
    # As on public hosts: any commit may be asked for, without its files.
    git("-C", str(folder), "config", "uploadpack.allowFilter", "true")
    git("-C", str(folder), "config", "uploadpack.allowAnySHA1InWant", "true")
    git("-C", str(folder), "add", "--all")
    git("-C", str(folder), "commit", "--quiet", "--message", "Add things")
    return git("-C", str(folder), "rev-parse", "HEAD")


def colored(mesh: trimesh.Trimesh, color: Sequence[float]) -> trimesh.Trimesh:
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[*color, 1.0])
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh


def cone(color: Sequence[float] = (1.0, 0.0, 0.0)) -> trimesh.Trimesh:
    return colored(trimesh.creation.cone(0.5, 2.0), color)


def write_sources(path: Path, hash_: str, packs: list[dict[str, Any]], **fields: Any) -> Path:
    source = {
        "repository": NAME, "commit": hash_, "license": "CC-BY-4.0", "author": "Ann",
        "claim": "LICENSE: CC BY 4.0.", "packs": packs,
    }  # fmt: skip
    path.write_text(json.dumps({"format": FORMAT, "sources": [source | fields]}), encoding="utf-8")
    return path


@dataclass
class Place:
    """A mirror of a repository with objects, and the command to gather them."""

    folder: Path
    output: Path
    sources: Path
    made: list[str]

    def gather(self, *words: str) -> int:
        self.made.clear()
        paths = ["--sources", str(self.sources), "--mirrors", str(self.folder)]
        return main(["gather", str(self.output), *paths, *words])

    def index(self) -> dict[str, dict[str, Any]]:
        text = (self.output / "index.json").read_text(encoding="utf-8")
        return {entry["object"]: entry for entry in json.loads(text)["objects"]}

    def left_out(self) -> dict[str, dict[str, str]]:
        with open(self.output / "left_out.csv", encoding="utf-8", newline="") as file:
            return {row["source_path"]: row for row in csv.DictReader(file)}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work in this process; return the list of the paths that are worked on."""
    paths: list[str] = []

    def run_here(
        factory: Callable[[], Callable[[Any], Any]], tasks: Sequence[Any], workers: int
    ) -> Iterator[Outcome]:
        maker = factory is single_objects.make_maker
        function = single_objects.make_object if maker else factory()
        for index, task in enumerate(tasks):
            paths.append(task.path if maker else str(task))
            yield outcome_of(index, *attempt(function, task), str(task))

    monkeypatch.setattr(selection, "run_in_processes", run_here)
    return paths


@pytest.fixture
def place(tmp_path: Path, made: list[str]) -> Place:
    repository = tmp_path / "mirrors" / "ann+things" / "repo"
    (repository / "a").mkdir(parents=True)
    cone().export(repository / "a" / "cone.glb")
    cone((0.0, 0.0, 1.0)).export(repository / "a" / "cone_blue.glb")
    tilted = trimesh.creation.capsule(2.0, 0.4).apply_transform(
        trimesh.transformations.rotation_matrix(1.1, (0, 1, 0))  # yaw: glTF is +Y up
    )
    colored(tilted, (0, 1, 0)).export(repository / "a" / "capsule.glb")
    colored(trimesh.creation.box((1, 1, 0.001)), (0, 1, 0)).export(repository / "a" / "sheet.glb")
    (repository / "a" / "damaged.glb").write_bytes(
        (repository / "a" / "cone.glb").read_bytes()[:900]
    )
    (repository / "LICENSE").write_text("CC BY 4.0", encoding="utf-8")
    hash_ = commit(repository)
    packs = [{"name": "things", "take": ["a/*.glb"], "leave": ["*nothing*"]}]
    sources = write_sources(tmp_path / "sources.json", hash_, packs)
    return Place(tmp_path / "mirrors", tmp_path / "out", sources, made)


def test_objects_are_listed_with_license_author_and_origin(place: Place) -> None:
    assert place.gather() == 0
    index = place.index()
    assert sorted(index) == ["capsule", "cone"]
    entry = index["cone"]
    assert entry["license"] == "CC-BY-4.0" and entry["author"] == "Ann"
    assert entry["source_repo"] == NAME and entry["source_path"] == "a/cone.glb"
    assert len(entry["source_commit"]) == 40 and entry["split"] == "train"
    assert entry["colour"] == "material" and entry["watertight"]
    for name in ("ATTRIBUTION.md", "DATASHEET.md"):
        assert "CC-BY-4.0" in (place.output / name).read_text(encoding="utf-8")
    assert "| Ann |" in (place.output / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert sorted(p.name for p in (place.output / "glb").iterdir()) == [
        "things__capsule.glb", "things__cone.glb",
    ]  # fmt: skip


def test_useless_objects_and_duplicates_are_left_out_with_reasons(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.gather()
    left = place.left_out()
    assert left["a/cone_blue.glb"]["like"] == "things__cone"
    assert float(left["a/cone_blue.glb"]["shape"]) < 1e-6
    assert float(left["a/cone_blue.glb"]["picture"]) > 0.1
    assert left["a/sheet.glb"]["why"] == "it is flat."
    assert "damaged" in left["a/damaged.glb"]["why"]
    assert f"left out: {NAME}: a/damaged.glb cannot be read" in capsys.readouterr().err


def test_what_is_made_is_not_made_again(place: Place) -> None:
    place.gather()
    assert len(place.made) == 5
    before = place.index()
    place.gather()
    assert place.made == [] and place.index() == before
    (place.output / ".records" / "things__capsule.json").unlink()
    (place.output / "glb" / "things__cone.glb").unlink()
    place.gather()
    assert sorted(place.made) == ["a/capsule.glb", "a/cone.glb"] and place.index() == before


def test_objects_like_those_of_another_set_are_left_out(place: Place, tmp_path: Path) -> None:
    turned = trimesh.creation.capsule(2.0, 0.4).apply_transform(
        trimesh.transformations.rotation_matrix(0.4, (0, 1, 0))
    )
    (tmp_path / "dev").mkdir()
    colored(turned, (0.2, 0.0, 0.9)).export(tmp_path / "dev" / "pill.glb")
    index = tmp_path / "dev" / "index.json"
    index.write_text(json.dumps({"objects": [{"file": "pill.glb", "split": "dev"}]}))
    assert place.gather("--against", str(index)) == 0
    assert sorted(place.index()) == ["cone"]
    assert place.left_out()["a/capsule.glb"]["like"] == "pill"
    assert "measured on" in place.left_out()["a/capsule.glb"]["why"]


def test_a_pack_that_is_kept_out_is_compared_but_not_taken(place: Place) -> None:
    hash_ = json.loads(place.sources.read_text())["sources"][0]["commit"]
    write_sources(
        place.sources,
        hash_,
        [
            {"name": "things", "take": ["a/c*.glb"]},
            {"name": "kept", "take": ["a/cone.glb"], "kept_out": True},
        ],
    )
    assert place.gather() == 0
    assert sorted(place.index()) == ["capsule"]


def test_a_file_may_name_its_own_license(place: Place, tmp_path: Path) -> None:
    repository = tmp_path / "mirrors" / "ann+things" / "repo"
    for name, license_ in {"free": "CC-BY-4.0 (url)", "nc": "CC-BY-NC-4.0 (url)"}.items():
        data = json.loads(trimesh.exchange.gltf.export_gltf(cone().scene())["model.gltf"])
        del data["asset"]["generator"]
        data["asset"]["extras"] = {"license": license_, "author": "Bo (bo)", "title": "A Cone"}
        (repository / name).mkdir()
        files = trimesh.exchange.gltf.export_gltf(cone().scene())
        for file, content in files.items():
            (repository / name / file).write_bytes(content)
        (repository / name / "model.gltf").write_text(json.dumps(data), encoding="utf-8")
    packs = [{"name": "found", "take": ["*.gltf", "a/cone.glb"]}]
    write_sources(place.sources, commit(repository), packs, license="in file", author="")
    assert place.gather() == 0
    (entry,) = place.index().values()
    assert (entry["object"], entry["license"], entry["author"]) == ("free", "CC-BY-4.0", "Bo (bo)")
    assert '"A Cone" by Bo (bo), CC-BY-4.0' in (place.output / "ATTRIBUTION.md").read_text("utf-8")
    left = place.left_out()
    assert left["nc/model.gltf"]["why"] == "its license is CC-BY-NC-4.0."
    assert left["a/cone.glb"]["why"] == "its license is not named."


def test_a_textured_obj_with_z_up_keeps_its_colors_and_stands(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "mirrors" / "ann+things" / "repo" / "obj"
    folder.mkdir()
    picture = np.zeros((600, 600, 3), np.uint8)
    picture[:150, 450:] = (200, 40, 90)
    Image.fromarray(picture).save(folder / "paint.png")
    (folder / "box.mtl").write_text("newmtl m\nmap_Kd paint.png\n")
    box = trimesh.creation.box((1, 2, 3))
    lines = ["mtllib box.mtl", *(f"v {x} {y} {z}" for x, y, z in box.vertices)]
    lines += ["vt 0.8 0.8", "vt 0.95 0.8", "vt 0.95 0.95", "usemtl m"]
    lines += [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3" for a, b, c in box.faces]
    (folder / "box.obj").write_text("\n".join(lines))
    packs = [{"name": "things", "take": ["obj/*.obj"], "up": "z"}]
    write_sources(place.sources, commit(folder.parent), packs)
    assert place.gather() == 0
    entry = place.index()["box"]
    assert entry["extents"] == [1, 3, 2] and entry["colour"] == "texture"
    prop = load_prop(place.output / "glb" / "things__box.glb", 4096)
    assert max(prop.textures[0].shape[:2]) < 100  # cropped
    assert (prop.textures[0].reshape(-1, 3) == (200, 40, 90)).all()
    low, high = prop.corner_uvs.min(), prop.corner_uvs.max()
    assert 0 <= low < high <= 1


def test_leaves_painted_on_cards_are_left_out(place: Place, tmp_path: Path) -> None:
    leaf = np.zeros((8, 8, 4), np.uint8)
    leaf[:, :4] = (0, 200, 0, 255)
    card = trimesh.creation.box()
    card.visual = trimesh.visual.TextureVisuals(
        uv=np.random.default_rng(0).random((8, 2)),
        material=trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(leaf), alphaMode="MASK"
        ),
    )
    repository = tmp_path / "mirrors" / "ann+things" / "repo"
    card.export(repository / "bush.glb")
    packs = [{"name": "things", "take": ["*bush.glb", "a/cone.glb"]}]
    write_sources(place.sources, commit(repository), packs)
    assert place.gather() == 0
    assert place.left_out()["bush.glb"]["why"] == "its texture is cut out by its alpha."


def test_a_repository_is_fetched_at_its_commit_without_other_files(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    (origin / "a").mkdir(parents=True)
    (origin / "a" / "x.txt").write_text("first")
    (origin / "b.txt").write_text("other")
    first = commit(origin)
    (origin / "a" / "x.txt").write_text("second")
    commit(origin)
    there = fetch(origin.as_uri(), NAME, first, tmp_path / "here.git")
    assert list(there.list_files()) == ["a/x.txt", "b.txt"]
    there.fetch_files(["a/x.txt"])
    shutil.move(origin, tmp_path / "gone")  # what was fetched is there without a network
    again = fetch(origin.as_uri(), NAME, first, tmp_path / "here.git")
    assert again.read("a/x.txt") == b"first"
    with pytest.raises(DataError, match=r"has no content of b\.txt"):
        again.read("b.txt")


def test_a_commit_that_is_gone_gets_a_sentence(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The commit 0000000000 of ann/things is not in"):
        open_mirror(tmp_path / "mirrors", NAME, "0" * 40)
    assert open_mirror(tmp_path / "mirrors", "bo/other", "0" * 40) is None
    with pytest.raises(DataError, match="git cannot fetch bo/other at 0000000000"):
        fetch((tmp_path / "nowhere").as_uri(), "bo/other", "0" * 40, tmp_path / "x.git")


def test_a_missing_git_program_gets_a_sentence(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert place.gather() == 2
    assert capsys.readouterr().err.startswith("gsv3d gather: There is no git program.")


def test_a_file_without_content_is_named(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a.txt").write_text("a")
    repository = Repository(origin / ".git", commit(origin), NAME)
    with pytest.raises(DataError, match="ann/things has no content of b/c.glb"):
        repository.read("b/c.glb")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"license": "CC-BY-NC-4.0"}, "has the license 'CC-BY-NC-4.0'"),
        ({"commit": "main"}, "has no full hash as its commit"),
        ({"author": ""}, "has no claim or no author"),
        ({"packs": [{"name": "a", "take": []}, {"name": "a", "take": []}]}, "two packs"),
        ({"packs": [{"name": "a", "take": [], "up": "x"}]}, "has the up axis 'x'"),
    ],
)
def test_a_list_of_sources_that_is_wrong_gets_a_sentence(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    packs = change.pop("packs", [{"name": "things", "take": ["*"]}])
    path = write_sources(tmp_path / "s.json", "0" * 40, packs, **change)
    with pytest.raises(DataError, match=sentence):
        read_sources(path)


def test_the_sources_of_the_package_are_sound() -> None:
    sources = read_sources(SOURCES)
    assert sum(not pack.kept_out for source in sources for pack in source.packs) > 50


def test_patterns_take_brackets_literally() -> None:
    assert match("Kit[Standard]/glTF/A.gltf", ["kit[standard]/*.gltf"])
    assert not match("Kit[Standard]/glTF/A.gltf", ["kit[standard]/*.glb"])
