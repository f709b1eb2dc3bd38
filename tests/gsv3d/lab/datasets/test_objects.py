# SPDX-License-Identifier: Apache-2.0
"""Lists of object files: names, packs, licenses and splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import find_objects, read_index


def write_index(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "index.json"
    path.write_text(json.dumps({"objects": rows}), encoding="utf-8")
    return path


def test_files_folders_and_an_index_together_name_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "glb").mkdir()
    for name in ("a.glb", "b.glb"):
        (tmp_path / "glb" / name).touch()
    (tmp_path / "ü ä.ply").touch()
    index = write_index(
        tmp_path, [{"file": "a.glb", "split": "train"}, {"file": "b.glb", "split": "dev"}]
    )
    assert [o.name for o in find_objects([index], "dev")] == ["b"]
    everything = find_objects([index, tmp_path, tmp_path / "glb" / "a.glb"])
    assert [o.name for o in everything] == ["a", "b", "ü ä"]
    assert everything[0].path == tmp_path / "glb" / "a.glb"


def test_equal_stems_get_different_names_also_where_case_is_ignored(tmp_path: Path) -> None:
    for name in ("x/chair.glb", "y/chair.glb", "x/chair.obj", "x/Chair2.glb", "y/chair2.glb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [o.name for o in find_objects([tmp_path])]
    assert len({n.casefold() for n in names}) == 5
    assert names == [o.name for o in find_objects([tmp_path / "y", tmp_path / "x"])]


def test_names_are_fit_to_be_keys_of_a_shard(tmp_path: Path) -> None:
    """webdataset takes what stands before the first dot for an object's name."""
    long = "x" * 240
    for name in ("chair.v2.glb", "chair_v2.glb", f"{long}.glb"):
        (tmp_path / name).touch()
    names = [o.name for o in find_objects([tmp_path])]
    assert len(set(names)) == 3 and not any("." in n or len(n.encode()) > 200 for n in names)


def test_packs_and_licenses_come_from_the_index_else_from_folders(tmp_path: Path) -> None:
    folder = tmp_path / "props"
    for name in ("a.glb", "tools/b.glb", "tools/old/c.usdz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    row = {"file": "a.glb", "split": "dev", "pack": "p", "license": "CC0-1.0", "author": "Ann"}
    index = write_index(folder, [row])
    (only,) = find_objects([index])
    assert (only.pack, only.split, only.license, only.author) == ("p", "dev", "CC0-1.0", "Ann")
    assert {o.name: o.pack for o in find_objects([folder])} == {
        "a": "props", "b": "tools", "c": "tools",
    }  # fmt: skip
    both = {o.name: (o.pack, o.split) for o in find_objects([folder, index])}
    assert both["a"] == ("p", "dev") and both["b"] == ("tools", "")
    assert find_objects([folder / "tools" / "b.glb"])[0].pack == "tools"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nothing.glb", "There is no file"),
        (lambda p: p, "no 3D object in the folder"),
        (lambda p: (p / "a.txt").write_text("x") and p / "a.txt", "not a 3D object"),
        (lambda p: (p / "i.json").write_text("[1") and p / "i.json", "not an object index"),
        (lambda p: (p / "i.json").write_text('{"objects": 3}') and p / "i.json", "not an object"),
        (lambda p: write_index(p, []), "No object of split None"),
        (lambda p: write_index(p, [{"file": "../a.glb"}]), "outside its own folder"),
        (lambda p: write_index(p, [{"file": ""}]), "lists '', which is no file's name"),
        (lambda p: write_index(p, [{"file": "./"}]), "lists './', which is no file's name"),
        (lambda p: write_index(p, [{"file": "/a.glb"}]), "outside its own folder"),
        (lambda p: write_index(p, [{"file": "C:\\a.glb"}]), "outside its own folder"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, make, words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_objects([make(tmp_path)])


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    index = write_index(tmp_path, [{"file": "a.glb", "split": "train"}])
    with pytest.raises(DataError, match="'test'.*has the splits train"):
        read_index(index, "test")
    (tmp_path / "a.glb").touch()
    with pytest.raises(DataError, match="none of the sources is an index"):
        find_objects([tmp_path / "a.glb"], "train")


@given(content=st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(
        st.sampled_from(["objects", "file", "split"]), x, max_size=3),
    max_leaves=8).map(lambda v: json.dumps(v).encode())))  # fmt: skip
def test_no_index_makes_anything_but_a_clear_error(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "index.json"
    path.write_bytes(content)
    try:
        files = read_index(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert all(path.parent in file.path.parents for file in files)
