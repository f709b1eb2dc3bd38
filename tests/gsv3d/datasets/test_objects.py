# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsv3d.datasets.objects import find_objects, read_index
from gsv3d.errors import DataError


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
        assert all(path.parent in file.parents for file in files)
