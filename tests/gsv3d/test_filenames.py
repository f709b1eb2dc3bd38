# SPDX-License-Identifier: Apache-2.0
"""Names of results, checked against the rules of Windows as its documentation states them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from gsv3d.filenames import (
    claim,
    free_stem,
    is_own_result,
    key_of,
    keys_in,
    keys_of,
    numbered,
    readable,
    release,
    safe_stem,
)
from gsv3d.meshing.export import encode_result

ENDINGS = (".glb", ".obj", ".png", ".json", "_texture.png", "_reference.png", ".blend1")
DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"
}


def find_fault(name: str) -> str:
    """Say why Windows does not take a name for a file, or takes it for another; else ''.

    After "Naming Files, Paths, and Namespaces" in Microsoft's documentation.
    """
    if any(ord(c) < 32 or c in '<>:"/\\|?*' for c in name):
        return "a forbidden character"
    if name.endswith((" ", ".")):
        return "a dot or space at the end"
    if name.split(".")[0].rstrip(" ").upper() in DEVICES:
        return "the name of a device"
    if len(name.encode("utf-16-le")) // 2 > 255:
        return "more than 255 UTF-16 units"
    return ""


ANY_NAME = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=300) | st.binary(
    min_size=1, max_size=255
).map(lambda data: data.decode("utf-8", "surrogateescape").replace("/", "_"))


@given(ANY_NAME)
@example("con")
@example("Con .v2")
@example("lpt¹")
@example(" . .")
@example("x" * 199 + ". .")
@example("桶" * 82)
@example("\U0001f6e2" * 64)
@example("caf\udce9")
@example('13" laptop: <a|b>?*\\')
@example("con" + " " * 300)
def test_every_system_takes_the_files_of_any_picture(name):
    stem = safe_stem(name)
    for number in (1, 2, 12345):
        for ending in ENDINGS:
            file = numbered(stem, number) + ending
            assert not find_fault(file), file
            assert len(file.encode("utf-8")) <= 255  # Linux
            assert file.encode("utf-8").decode("utf-8") == file
    assert safe_stem(stem) == stem


def test_the_rules_of_windows_that_the_test_uses():
    assert find_fault("con.png") and find_fault("COM1 .tar.gz")
    assert find_fault("a.") and find_fault("a?") and find_fault("\U0001f6e2" * 128)
    assert not find_fault("a. b.png") and not find_fault("console.png")


@pytest.mark.parametrize(
    "name", ["barrel", "Fäßchen 1", "v1.2", "a_texture", "-dash", "100% #1", "\U0001f6e2"]
)
def test_ordinary_names_stay(name):
    assert safe_stem(name) == name


def test_a_long_name_is_cut_between_characters():
    assert safe_stem("桶" * 82) == "桶" * 66
    assert safe_stem("a" + "\U0001f6e2" * 60) == "a" + "\U0001f6e2" * 49


def test_a_name_that_is_not_utf_8_can_be_shown():
    name = os.fsdecode(b"caf\xe9") if os.name != "nt" else "caf\udce9"
    assert readable(name) == safe_stem(name) == "caf\ufffd"
    assert readable("two\tlines\nstay") == "two\tlines\nstay"
    assert "\x07" not in readable("bell\x07")


@given(st.lists(st.text("aAé\u0301ß-2_tex", min_size=1, max_size=6), max_size=12))
def test_no_two_results_meet_on_a_file_system_that_ignores_case(names):
    taken: set[str] = set()
    written: list[str] = []
    for name in names:
        stem = free_stem(safe_stem(name), ENDINGS, taken)
        taken |= keys_of(stem, ENDINGS)
        written += [key_of(stem + ending) for ending in ENDINGS]
    assert len(set(written)) == len(written)


def test_names_in_a_folder_are_taken_whatever_their_case(tmp_path):
    (tmp_path / "Chair.GLB").touch()
    (tmp_path / "cafe\u0301.png").touch()  # as macOS may hand it out
    taken = keys_in(tmp_path)
    assert free_stem("chair", (".glb",), taken) == "chair-2"
    assert free_stem("chair", (".ply",), taken) == "chair"
    assert free_stem("CAFÉ", (".png",), taken) == "CAFÉ-2"
    assert keys_in(tmp_path / "missing") == set()


def test_a_name_is_claimed_whole_or_not_at_all(tmp_path):
    first = [tmp_path / "a.glb", tmp_path / "a.png"]
    assert claim(first)
    first[1].write_bytes(b"mine")
    assert not claim([tmp_path / "a.json", *first])
    assert not (tmp_path / "a.json").exists() and first[1].read_bytes() == b"mine"
    release(first)
    assert not first[0].exists() and first[1].exists()
    with pytest.raises(OSError):
        claim([tmp_path / "b.glb", tmp_path / "missing" / "b.png"])
    assert not (tmp_path / "b.glb").exists()


def test_of_many_runs_one_gets_the_name(tmp_path):
    paths = [tmp_path / f"a{ending}" for ending in ENDINGS]
    barrier, won = threading.Barrier(8), []

    def run() -> None:
        barrier.wait()
        won.append(claim(paths))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won.count(True) == 1 and all(path.exists() for path in paths)


def write_record(path: Path, files: list[str], image: str = "in/a.jpg") -> Path:
    content = {"version": "1", "model": "m", "settings": {}, "timings": {}, "image": image}
    path.write_text(json.dumps({**content, "files": files}), encoding="utf-8")
    return path


def test_our_own_sheets_and_textures_are_known_by_their_record(tmp_path):
    write_record(tmp_path / "a.json", ["a.glb", "a.png", "a_texture.png", "A.PLY"])
    assert is_own_result(tmp_path / "a.png") and is_own_result(tmp_path / "a_texture.png")
    assert not is_own_result(tmp_path / "a.jpg") and not is_own_result(tmp_path / "b.png")


def test_results_are_known_by_their_note_wherever_they_are(tmp_path):
    picture = Image.new("RGB", (8, 8))
    (tmp_path / "renamed.PNG").write_bytes(encode_result(picture))
    picture.save(tmp_path / "mine.png")
    assert is_own_result(tmp_path / "renamed.PNG") and not is_own_result(tmp_path / "mine.png")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    code = "import sys, pathlib, gsv3d.filenames as f; f.is_own_result(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True, timeout=30)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"files": ["a.png"]}', b"[" * 10**6, b"\xff\xfe", b'"a.png"',
     b'{"version":1,"model":1,"settings":1,"timings":1,"image":1,"files":5}'],
)  # fmt: skip
def test_a_json_of_another_program_hides_no_picture(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    assert not is_own_result(tmp_path / "a.png")


def test_a_reference_of_words_is_a_picture_until_its_object_is_made(tmp_path):
    reference = tmp_path / "cup_reference.png"
    reference.touch()
    assert not is_own_result(reference, references=True)
    write_record(tmp_path / "cup.json", ["cup.glb"], image=r"C:\props\cup_reference.png")
    assert is_own_result(reference, references=True)
    assert not is_own_result(reference)  # whoever names it means it
    write_record(tmp_path / "cup.json", ["cup.glb"], image="/elsewhere/photo.png")
    assert not is_own_result(reference, references=True)
    write_record(tmp_path / "cup_reference.json", ["cup_reference.png"])
    assert is_own_result(reference)  # a contact sheet of another picture
