# SPDX-License-Identifier: Apache-2.0
"""``gsv3d render``'s options and complaints; what it renders is tested with the data sets."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

import pytest

from gsv3d.cli import main
from gsv3d.lab.cli import render
from gsv3d.lab.cli.render import add_parser, read_settings, write_command
from gsv3d.lab.datasets.dataset import Dataset
from gsv3d.lab.datasets.orbits import OrbitSettings
from gsv3d.lab.datasets.rendering import Rendered
from gsv3d.lab.datasets.shards import index_shards, write_record
from gsv3d.tasks import Outcome
from tests import tiny


def parse(*words: str) -> argparse.Namespace:
    return parse_command(["render", "a.glb", "--output", "out", *words])


def parse_command(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(words)


def test_without_options_the_settings_are_the_defaults() -> None:
    assert read_settings(parse()) == OrbitSettings()


def test_a_preset_gives_defaults_that_options_change() -> None:
    settings = read_settings(parse("--preset", "sv3d", "--size", "256", "--normals", "none"))
    assert (settings.orbit_views, settings.novel_views, settings.size) == (84, 0, 256)
    assert settings.normals is None
    assert read_settings(parse("--preset", "sv3d")).normals == "camera"


def test_the_command_makes_the_same_settings_again() -> None:
    args = parse("--preset", "sv3d", "--orbit", "dynamic", "--limit", "3", "--random-colors")
    words = write_command(args).split()
    assert words[:2] == ["gsv3d", "render"]
    assert read_settings(parse_command(words[1:])) == read_settings(args)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "4"], "size is 4"),
        (["--workers", "0"], "workers is 0"),
        (["--limit", "0"], "limit is 0"),
        (["--shard-mb", "0"], "shard_mb is 0"),
        (["--split", "dev"], "none of the sources is an index"),
        (["--size", "1024", "--orbit-views", "500"], "take fewer or smaller views"),
    ],
)
def test_bad_options_get_one_sentence(tmp_path: Path, capsys, arguments, words) -> None:
    (tmp_path / "a.glb").touch()
    code = main(["render", str(tmp_path / "a.glb"), "--output", str(tmp_path / "o"), *arguments])
    error = capsys.readouterr().err
    assert code == 2 and words in error and error.count("\n") == 1


def test_an_empty_folder_and_an_output_that_is_a_file(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(render, "require_blender", lambda: None)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["render", str(empty), "--output", str(tmp_path / "o")]) == 2
    assert "no 3D object in the folder" in capsys.readouterr().err
    (tmp_path / "a.glb").touch()
    assert main(["render", str(tmp_path / "a.glb"), "--output", str(tmp_path / "a.glb")]) == 2
    error = capsys.readouterr().err
    assert "a.glb is a file, not a folder" in error and error.count("\n") == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(render, "require_blender", lambda: None)
    (tmp_path / "a.glb").touch()
    record = tmp_path / "out" / "dataset.json"
    record.parent.mkdir()
    for text in ("{}", "nothing", '{"settings": {}, "format": "gsv3d-orbits/1"}'):
        record.write_text(text)
        assert main(["render", str(tmp_path / "a.glb"), "--output", str(record.parent)]) == 2
        assert "is not the record of a data set of this version" in capsys.readouterr().err
        assert record.read_text() == text


@pytest.fixture
def fake_blender(monkeypatch):
    """Make an orbit of Gaussians for every object but bad.glb, in place of Blender's processes."""
    asked: list[str] = []

    def run(factory, tasks, workers, hint=""):
        for index, task in enumerate(tasks):
            asked.append(task.name)
            if task.name == "bad":
                yield Outcome(index, error=f"{task.path}: it has no faces to render.")
            else:
                tar = write_record(tiny.as_record(tiny.ball_orbit(task.name)))
                yield Outcome(index, Rendered(tar))

    monkeypatch.setattr(render, "require_blender", lambda: None)
    monkeypatch.setattr("gsv3d.lab.datasets.rendering.run_in_processes", run)
    return asked


def test_a_shard_cut_short_is_named_and_only_what_it_lost_is_rendered_again(
    tmp_path: Path, capsys, fake_blender
) -> None:
    for name in ("a", "b", "c", "bad"):
        (tmp_path / f"{name}.glb").touch()
    output = tmp_path / "out"
    command = ["render", str(tmp_path), "--output", str(output)]
    assert main(command) == 1
    assert sorted(fake_blender) == ["a", "b", "bad", "c"]
    assert "bad: " in (output / "DATASHEET.md").read_text(encoding="utf-8")
    (shard,) = output.glob("*.tar")
    cut = index_shards(output)[2].members["depth.png"][0] + 5
    shard.write_bytes(shard.read_bytes()[:cut])
    fake_blender.clear()
    (tmp_path / "bad.glb").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert fake_blender == ["c"]
    error = capsys.readouterr().err
    assert f"note: The shard {shard} is cut short within c; the 2 whole objects" in error
    assert [entry.key for entry in index_shards(output)] == ["a", "b", "c"]


def test_an_interruption_keeps_what_is_done(tmp_path: Path, capsys, fake_blender) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.glb").touch()
    output = tmp_path / "out"
    note = Dataset.note

    def interrupt(self, name: str, failure: str | None) -> None:
        note(self, name, failure)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "note", interrupt)
        assert main(["render", str(tmp_path), "--output", str(output)]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert main(["render", str(tmp_path), "--output", str(output)]) == 0
    assert len(fake_blender) == 2 and len(index_shards(output)) == 2


def test_a_full_disk_ends_the_run_in_words_and_keeps_what_is_done(
    tmp_path: Path, capsys, fake_blender
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.glb").touch()
    output = tmp_path / "out"
    real, written = os.fsync, []

    def fsync(handle: int) -> None:
        written.append(handle)
        if len(written) > 2:  # dataset.json and one object
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gsv3d.outputs.os.fsync", fsync)
        assert main(["render", str(tmp_path), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert "the disk is full. Free some space" in error and error.count("\n") == 1
    fake_blender.clear()
    assert main(["render", str(tmp_path), "--output", str(output)]) == 0
    assert len(fake_blender) == 2 and len(index_shards(output)) == 3
