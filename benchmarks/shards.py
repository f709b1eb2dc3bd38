# SPDX-License-Identifier: Apache-2.0
"""Measure sizes of rendered views in several formats, and times to write and read them.

Run: ``python benchmarks/shards.py FOLDER``, a folder that ``gsv3d render`` wrote.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gsv3d.lab.datasets.orbits import DEPTH_UNIT
from gsv3d.lab.datasets.shards import index_shards

Codec = tuple[Callable[[np.ndarray], list[bytes]], Callable[[bytes], np.ndarray]]


def encode_picture(views: np.ndarray, **options: object) -> list[bytes]:
    stream = io.BytesIO()
    Image.fromarray(views.reshape(-1, *views.shape[2:])).save(stream, **options)
    return [stream.getvalue()]


def encode_archive(views: np.ndarray) -> list[bytes]:
    stream = io.BytesIO()
    np.savez_compressed(stream, views=views)
    return [stream.getvalue()]


def read_picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


def read_archive(data: bytes) -> np.ndarray:
    with np.load(io.BytesIO(data)) as file:
        return file["views"]


def make_png_codec(level: int) -> Codec:
    return lambda views: encode_picture(views, format="PNG", compress_level=level), read_picture


def encode_each(views: np.ndarray) -> list[bytes]:
    return [encode_picture(view[None], format="PNG", compress_level=6)[0] for view in views]


COLOR: dict[str, Codec] = {
    "one PNG, level 1": make_png_codec(1),
    "one PNG, level 6": make_png_codec(6),
    "one PNG, level 9": make_png_codec(9),
    "a PNG a view, level 6": (encode_each, read_picture),
    "one lossless WebP": (
        lambda views: encode_picture(views, format="WEBP", lossless=True, method=4), read_picture
    ),
    "npz": (encode_archive, read_archive),
}  # fmt: skip
DEPTH: dict[str, Codec] = {
    "16-bit PNG, level 6": make_png_codec(6),
    "npz of float16": (
        lambda steps: encode_archive((steps * DEPTH_UNIT).astype("<f2")), read_archive
    ),
}  # fmt: skip


def measure(name: str, codec: Codec, objects: list[np.ndarray]) -> None:
    """Print the row of one format."""
    write, read = codec
    size, writing, reading = 0, 0.0, 0.0
    for views in objects:
        start = time.process_time()
        try:
            files = write(views)
        except OSError as error:  # WebP ends at 16,383 pixels
            print(f"| {name} | {error} | | |")
            return
        writing += time.process_time() - start
        start = time.process_time()
        for data in files:
            read(data)
        reading += time.process_time() - start
        # A tar gives every file a block of header and fills its last one.
        size += sum(512 + -(-len(data) // 512) * 512 for data in files)
    count = len(objects)
    print(f"| {name} | {size / count / 1e3:.0f} | {writing / count * 1e3:.0f} | "
          f"{reading / count * 1e3:.0f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=24)
    args = parser.parse_args()
    records = [entry.read() for entry in index_shards(args.folder)[: args.limit]]
    print(f"{len(records)} objects of {' x '.join(map(str, records[0].depth.shape))}\n")
    print("| format | kB an object | ms to write | ms to read |\n| --- | --- | --- | --- |")
    for name, codec in COLOR.items():
        measure(f"RGBA: {name}", codec, [record.rgba for record in records])
    for name, codec in DEPTH.items():
        steps = [np.rint(record.depth / DEPTH_UNIT).astype(np.uint16) for record in records]
        measure(f"depth: {name}", codec, steps)


if __name__ == "__main__":
    main()
