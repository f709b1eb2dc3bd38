# SPDX-License-Identifier: Apache-2.0
"""Shards as other programs read them, and folders after a kill at any moment."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsv3d.errors import DataError, OutputError
from gsv3d.lab.datasets import shards
from gsv3d.lab.datasets.shards import (
    WAITING,
    ShardFolder,
    index_shards,
    name_group,
    scan,
    write_record,
)
from tests.gsv3d.lab.datasets.samples import make_record


def write_shard(directory: Path, records, group: str = "pack") -> Path:
    with ShardFolder(directory) as folder:
        folder.recover()
        for record in records:
            folder.add(group, record.name, write_record(record))
        folder.pack()
    return max(directory.glob(f"{group}-*.tar"))


# webdataset leaves the shard's file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_is_written(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    records = {name: make_record(name, normals=True, seed=i) for i, name in enumerate("bac")}
    path = write_shard(tmp_path, [*records.values(), make_record("d ü")])
    shards = webdataset.WebDataset(str(path), shardshuffle=False)
    found = {sample["__key__"]: sample for sample in shards.decode(only=["json"])}
    assert list(found) == ["a", "b", "c", "d ü"]
    for name, record in records.items():
        sample = found[name]
        assert sample["json"]["name"] == name
        rgba, depth, normal = (
            np.array(Image.open(io.BytesIO(sample[f"{part}.png"])))
            for part in ("rgba", "depth", "normal")
        )
        np.testing.assert_array_equal(rgba.reshape(record.rgba.shape), record.rgba)
        depth = depth.reshape(record.depth.shape) * sample["json"]["depth_unit"]
        np.testing.assert_allclose(depth, record.depth, atol=1e-4)
        assert normal.shape == (24, 8, 3)
    del shards
    gc.collect()


def test_our_reader_finds_the_same(tmp_path: Path) -> None:
    records = [make_record(name, seed=i) for i, name in enumerate(["b", "a"])]
    write_shard(tmp_path, records, "one")
    write_shard(tmp_path, [make_record("aa")], "two")
    entries = index_shards(tmp_path)
    assert [entry.key for entry in entries] == ["a", "aa", "b"]
    np.testing.assert_array_equal(entries[2].read().rgba, records[0].rgba)


def test_every_cut_is_found_and_leaves_the_objects_before_it(tmp_path: Path) -> None:
    path = write_shard(tmp_path, [make_record(name) for name in "abc"])
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = [m.offset_data + m.size for m in tar if m.name.endswith(".json")]
    end = -(-ends[-1] // 512) * 512 + 1024
    for cut in [*range(0, end, 97), *range(0, end, 512), end - 1]:
        path.write_bytes(whole[:cut])
        contents = scan(path)
        assert contents.fault, cut
        assert len(contents.entries) == sum(stop <= cut for stop in ends), cut
        with pytest.raises(DataError, match=r"pack-000000\.tar (is|has) .* are whole\. Run the"):
            index_shards(tmp_path)
    path.write_bytes(whole[:end])
    assert scan(path).fault is None and len(scan(path).entries) == 3


def test_an_object_that_is_damaged_inside_is_named_with_its_shard(tmp_path) -> None:
    path = write_shard(tmp_path, [make_record("a"), make_record("b")])
    data = bytearray(path.read_bytes())
    entry = index_shards(tmp_path)[1]
    offset, size = entry.members["rgba.png"]
    data[offset + size // 2] ^= 255
    path.write_bytes(data)
    entries = index_shards(tmp_path)
    entries[0].read()
    with pytest.raises(DataError, match=r"b in .*pack-000000\.tar cannot be read"):
        entries[1].read()


def test_folders_without_shards_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rendered orbits.*gsv3d render"):
        index_shards(tmp_path)
    with ShardFolder(tmp_path) as folder:
        folder.add("pack", "a", write_record(make_record("a")))
    with pytest.raises(DataError, match="not packed yet.*Run the same gsv3d render again"):
        index_shards(tmp_path)
    (tmp_path / "x.tar").write_text("not a tar")
    with pytest.raises(DataError, match=r"x\.tar is damaged"):
        index_shards(tmp_path)


@pytest.mark.parametrize(
    ("split", "pack", "group"),
    [("train", "kenney cc0", "train-kenney_cc0"), ("", "Möbel/9:", "möbel_9"), ("", "", "objects"),
     ("", "a.b{0..9}", "a_b_0_9")],
)  # fmt: skip
def test_packs_make_file_names(split: str, pack: str, group: str) -> None:
    assert name_group(split, pack) == group


def keys(directory: Path) -> list[str]:
    return [entry.key for path in sorted(directory.glob("*.tar")) for entry in scan(path).entries]


def test_packs_stay_apart_and_shards_close_at_their_size(tmp_path: Path) -> None:
    tar = write_record(make_record("x"))
    with ShardFolder(tmp_path, shard_bytes=3 * len(tar)) as folder:
        for number in range(7):
            name = f"x{number}"
            folder.add("pack" if number % 2 else "other", name, write_record(make_record(name)))
        assert [path.name for path in tmp_path.glob("*.tar")] != []
        folder.pack()
    names = {path.name: [e.key for e in scan(path).entries] for path in tmp_path.glob("*.tar")}
    assert names == {
        "other-000000.tar": ["x0", "x2", "x4"], "other-000001.tar": ["x6"],
        "pack-000000.tar": ["x1", "x3", "x5"],
    }  # fmt: skip
    assert not (tmp_path / WAITING).exists()


def test_a_later_run_goes_on_counting(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with ShardFolder(tmp_path) as folder:
            folder.recover()
            assert ("a" in folder.finished) == (name == "b")
            folder.add("pack", name, write_record(make_record(name)))
            folder.pack()
    assert sorted(p.name for p in tmp_path.glob("*.tar")) == ["pack-000000.tar", "pack-000001.tar"]


@pytest.mark.parametrize("step", ["concatenated", "renamed", "half deleted"])
def test_a_kill_while_packing_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    folder = ShardFolder(tmp_path)
    for name in "abc":
        folder.add("pack", name, write_record(make_record(name)))
    with monkeypatch.context() as patch:
        if step == "concatenated":
            patch.setattr(shards.os, "replace", killed)
        elif step == "renamed":
            patch.setattr(shards, "_sync_folder", killed)
        else:
            unlink, left = Path.unlink, [1]

            def once(path: Path, missing_ok: bool = False) -> None:
                if path.suffix == ".tar" and not left:
                    raise Killed
                if path.suffix == ".tar":
                    left.pop()
                unlink(path, missing_ok)

            patch.setattr(Path, "unlink", once)
        with pytest.raises(Killed):
            folder.pack()
    with ShardFolder(tmp_path) as again:
        again.recover()
        assert again.finished == set("abc")
        again.add("pack", "d", write_record(make_record("d")))
        again.pack()
    assert sorted(keys(tmp_path)) == list("abcd")


def test_a_cut_shard_keeps_its_whole_objects(tmp_path: Path) -> None:
    with ShardFolder(tmp_path) as folder:
        for name in "abc":
            folder.add("pack", name, write_record(make_record(name)))
        folder.pack()
    path = tmp_path / "pack-000000.tar"
    entry = index_shards(tmp_path)[2]
    os.truncate(path, entry.members["depth.png"][0] + 10)
    with ShardFolder(tmp_path) as again:
        (sentence,) = again.recover()
        assert str(path) in sentence and "the 2 whole objects in it are kept" in sentence
        assert again.finished == {"a", "b"}
        again.pack()
    assert keys(tmp_path) == ["a", "b"]
    assert index_shards(tmp_path)[0].read().name == "a"


def test_a_half_written_object_is_not_taken_for_whole(tmp_path: Path) -> None:
    tar = write_record(make_record("a"))
    place = tmp_path / WAITING / "pack"
    place.mkdir(parents=True)
    (place / "a.tar").write_bytes(tar[: len(tar) // 2])
    (place / ".b.tar.xyz.part").write_bytes(tar)
    (tmp_path / ".pack-000000.tar.part").write_bytes(tar)
    with ShardFolder(tmp_path) as folder:
        folder.recover()
        assert not folder.finished
        folder.pack()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with ShardFolder(tmp_path):
        with pytest.raises(OutputError, match="Another gsv3d render writes to"):
            ShardFolder(tmp_path).__enter__()
    with ShardFolder(tmp_path):
        pass


ENDLESS = """
import sys
from dataclasses import replace
from pathlib import Path
from gsv3d.lab.datasets.shards import ShardFolder
from gsv3d.lab.datasets.shards import scan, write_record
record = scan(Path(sys.argv[2])).entries[0].read()
tar = write_record(record)
with ShardFolder(Path(sys.argv[1]), shard_bytes=4 * len(tar)) as folder:
    folder.recover()
    number = len(folder.finished)
    while True:
        folder.add("pack", f"x{number:06d}", write_record(replace(record, name=f"x{number:06d}")))
        print(f"x{number:06d}", flush=True)
        number += 1
"""


def test_a_process_killed_while_writing_loses_nothing_it_had_finished(tmp_path: Path) -> None:
    source = tmp_path / "source.tar"
    source.write_bytes(write_record(make_record("source")))
    output = tmp_path / "out ü"
    said: list[str] = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(output), str(source)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4],
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(11):
            said.append(process.stdout.readline().strip())
        process.kill()
        said += process.stdout.read().split()
        process.wait()
        process.stdout.close()
    with ShardFolder(output) as folder:
        assert folder.recover() == []
        folder.pack()
    found = keys(output)
    assert len(found) == len(set(found)) and set(said) <= set(found)
    assert len(found) <= len(said) + 3  # finished, and killed before it could say so
    assert len(list(output.glob("*.tar"))) > 8
