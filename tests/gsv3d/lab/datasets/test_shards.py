# SPDX-License-Identifier: Apache-2.0
"""Shards as webdataset's own package reads them, and shards that are damaged."""

from __future__ import annotations

import gc
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsv3d.errors import DataError
from gsv3d.lab.datasets.shards import ShardFolder, group_of, index_shards, scan, write_record


def write_shard(directory: Path, records, group: str = "pack") -> Path:
    with ShardFolder(directory) as folder:
        folder.recover()
        for record in records:
            folder.add(group, record.name, write_record(record))
        folder.pack()
    return max(directory.glob(f"{group}-*.tar"))


# webdataset leaves the shard's file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_what_is_written(tmp_path: Path, make_record) -> None:
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


def test_our_reader_finds_the_same(tmp_path: Path, make_record) -> None:
    records = [make_record(name, seed=i) for i, name in enumerate(["b", "a"])]
    write_shard(tmp_path, records, "one")
    write_shard(tmp_path, [make_record("aa")], "two")
    entries = index_shards(tmp_path)
    assert [entry.key for entry in entries] == ["a", "aa", "b"]
    np.testing.assert_array_equal(entries[2].read().rgba, records[0].rgba)


def test_every_cut_is_found_and_leaves_the_objects_before_it(tmp_path: Path, make_record) -> None:
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


def test_an_object_that_is_damaged_inside_is_named_with_its_shard(tmp_path, make_record) -> None:
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


def test_folders_without_shards_say_what_to_do(tmp_path: Path, make_record) -> None:
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
    assert group_of(split, pack) == group
