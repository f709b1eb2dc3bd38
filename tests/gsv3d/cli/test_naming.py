# SPDX-License-Identifier: Apache-2.0
"""The pictures that arguments name, and names of results that overwrite nothing."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gsv3d.cli.naming import expand_inputs, name_results


def touch_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_folder_gives_its_pictures_by_name(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.txt", ".hidden.png", "Ä 1.webp"):
        touch_file(tmp_path / name)
    touch_file(tmp_path / "deeper" / "d.png")
    (tmp_path / "folder.png").mkdir()
    images, problems = expand_inputs([tmp_path])
    assert [image.name for image in images] == ["a.jpg", "b.PNG", "Ä 1.webp"]
    assert not problems


def test_a_picture_named_twice_is_made_once(tmp_path):
    image = touch_file(tmp_path / "a.png")
    images, _ = expand_inputs([image, tmp_path, tmp_path / "." / "a.png"])
    assert images == [image]


def test_a_missing_file_is_left_for_the_reader_to_name(tmp_path):
    images, problems = expand_inputs([tmp_path / "gone.png"])
    assert images == [tmp_path / "gone.png"] and not problems
    long = tmp_path / ("x" * 300 + ".png")
    assert expand_inputs([long]) == ([long], [])


def test_equal_stems_get_numbers(tmp_path):
    images = [Path("x/a.png"), Path("x/a.jpg"), Path("y/A.png"), Path("y/a-2.png")]
    assert name_results(images, tmp_path) == ["a", "a-2", "A-3", "a-2-2"]


def test_a_picture_in_the_output_folder_is_not_overwritten(tmp_path):
    image = touch_file(tmp_path / "barrel.png")
    assert name_results([image], tmp_path) == ["barrel-2"]
    assert name_results([image], tmp_path / "other") == ["barrel"]


def test_the_texture_of_an_obj_and_the_sheet_of_another_do_not_meet(tmp_path):
    names = name_results([Path("a.png"), Path("a_texture.png")], tmp_path)
    assert names == ["a", "a_texture-2"]
    names = name_results([Path("a_texture.png"), Path("a.png")], tmp_path)
    assert names == ["a_texture", "a-2"]


@given(
    st.lists(
        st.text(alphabet="aAbB-2_texur", min_size=1, max_size=10).map(lambda s: Path(f"{s}.png")),
        max_size=12,
    )
)
def test_files_never_meet(images):
    names = name_results(images, Path("out"))
    written = [f"{name}{ending}".casefold() for name in names
               for ending in (".png", ".glb", ".obj", "_texture.png")]  # fmt: skip
    assert len(set(written)) == len(written)


def test_files_of_others_in_the_output_folder_are_not_overwritten(tmp_path):
    touch_file(tmp_path / "Chair.GLB")
    touch_file(tmp_path / "cup_texture.png")
    touch_file(tmp_path / "lamp_reference.png")
    touch_file(tmp_path / "table.blend")
    images = [Path("dl/chair.png"), Path("dl/cup.png"), Path("dl/lamp.png"), Path("dl/table.png")]
    assert name_results(images, tmp_path) == ["chair-2", "cup-2", "lamp", "table"]
    assert name_results(images, tmp_path, overwrite=True) == ["chair", "cup", "lamp", "table"]
    assert name_results([], tmp_path, ["lamp", "chair"]) == ["lamp-2", "chair-2"]


def test_a_picture_of_the_run_is_not_overwritten_by_wish_either(tmp_path):
    image = touch_file(tmp_path / "barrel.png")
    assert name_results([image], tmp_path, overwrite=True) == ["barrel-2"]


def test_names_fit_every_file_system(tmp_path):
    images = [Path("x" * 250 + ".png"), Path("x" * 250 + ".jpg"), Path("caf\udce9.png"),
              Path("con.png"), Path("what?.png")]  # fmt: skip
    names = name_results(images, tmp_path)
    assert names[0] == "x" * 199 and names[1] == "x" * 198 + "-2"
    assert names[2:] == ["caf\ufffd", "con_", "what_"]


def test_own_sheets_in_a_folder_are_no_pictures(tmp_path):
    record = {"version": "1", "model": "m", "settings": {}, "timings": {}, "image": "a.png",
              "files": ["a-2.glb", "a-2.png"]}  # fmt: skip
    image, sheet = touch_file(tmp_path / "a.png"), touch_file(tmp_path / "a-2.png")
    (tmp_path / "a-2.json").write_text(json.dumps(record))
    assert expand_inputs([tmp_path]) == ([image], [])
    images, problems = expand_inputs([sheet, image])  # as a shell expands *.png
    assert images == [image]
    assert "a-2.png was made by GSV3D" in str(problems[0])
    image.unlink()
    images, problems = expand_inputs([tmp_path])
    assert not images and "holds no pictures but results" in str(problems[0])
