# SPDX-License-Identifier: Apache-2.0
"""Feed damaged bytes to what reads bytes of others: the codec, a client's session, pictures.

``python -m tests.fuzz codec --seconds 3600`` and ``python -m tests.fuzz picture --seconds 3600``
run atheris (``pip install atheris``), which looks for input that reaches new code. The targets are
called with the seeds and random damage by test_fuzz.py as well.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_MEMORY_MB = 4096
_TIMEOUT_S = 60


def read_message(data: bytes) -> None:
    """Decode bytes as a message of both sides, and hand it to a session.

    Args:
        data: one byte, of which the lowest bit adds a third frame, then the header.

    Raises:
        AssertionError: a decoded message changes when it is encoded and decoded again.
    """
    from backend.protocol import PROTOCOL_VERSION, TAG, ClientSession, ProtocolError, decode, encode
    from backend.protocol import messages as m

    frames = [TAG, data[1:]]
    if data[:1] and data[0] & 1:
        frames.append(data[-9:] or b"x")
    for sender in ("client", "server"):
        try:
            message, seq = decode(frames, sender)
        except ProtocolError as error:
            assert error.what and "\n" not in error.what
            continue
        assert decode([bytes(frame) for frame in encode(message, seq)], sender) == (message, seq)
    session = ClientSession("fuzz")
    session.hello()
    session.feed(encode(m.Welcome(PROTOCOL_VERSION, "x"), 1))
    session.submit(b"x", job="0123456789abcdef" * 2)
    session.feed(frames)
    session.outgoing()


def read_picture(data: bytes) -> None:
    """Load bytes as a picture; only `ImageError` may be raised."""
    from gsv3d.errors import ImageError
    from gsv3d.preprocessing.loading import MAX_PIXELS, MIN_SIDE, load_image

    try:
        image = load_image(data)
    except ImageError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert image.mode == "RGBA" and min(image.size) >= MIN_SIDE
    assert image.width * image.height <= MAX_PIXELS


def list_message_seeds() -> list[bytes]:
    """Return an example of every message."""
    from backend.protocol import encode
    from tests.backend.protocol.test_codec import EXAMPLES

    frames = [encode(message, 1) for message in EXAMPLES]
    return [bytes([len(parts) == 3]) + bytes(parts[1]) for parts in frames]


def list_picture_seeds() -> list[bytes]:
    """Return small pictures of all kinds that are read."""
    import numpy as np
    import tifffile
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (17, 19, 4), np.uint8)
    picture = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Image.Image, dict[str, object]]] = [
        (picture, {"format": "PNG"}),
        (picture.convert("P"), {"format": "PNG"}),
        (picture.convert("L"), {"format": "PNG"}),
        (picture.convert("RGB"), {"format": "JPEG", "exif": exif}),
        (picture.convert("CMYK"), {"format": "JPEG"}),
        (picture, {"format": "WEBP", "lossless": True}),
        (picture.convert("P"), {"format": "GIF"}),
        (picture.convert("RGB"), {"format": "BMP"}),
        (picture, {"format": "TGA"}),
        (picture.convert("RGB"), {"format": "PPM"}),
        (picture, {"format": "TIFF", "compression": "tiff_lzw"}),
        (picture, {"format": "JPEG2000"}),
        (picture, {"format": "AVIF"}),
    ]
    seeds = []
    for image, options in kinds:
        if options["format"] not in Image.SAVE:
            Image.init()
        if options["format"] in Image.SAVE:
            file = io.BytesIO()
            image.save(file, **options)
            seeds.append(file.getvalue())
    for deep in (values[..., :3].astype(np.uint16) * 257, values[..., 0] / np.float32(255)):
        file = io.BytesIO()
        tifffile.imwrite(file, deep)
        seeds.append(file.getvalue())
    return seeds


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "codec": (read_message, list_message_seeds),
    "picture": (read_picture, list_picture_seeds),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    import atheris

    logging.disable()  # tifffile tells of every damaged tag
    with atheris.instrument_imports():
        import PIL.Image
        import tifffile  # noqa: F401

        import backend.protocol  # noqa: F401
        import gsv3d.preprocessing.loading  # noqa: F401

        PIL.Image.init()
    target, seeds = TARGETS[options.target]
    corpus = Path(tempfile.mkdtemp(prefix="gsv3d-fuzz-"))
    for number, seed in enumerate(seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={options.seconds}",
            f"-seed={options.seed}",
            f"-timeout={_TIMEOUT_S}",
            f"-rss_limit_mb={_MEMORY_MB}",
            f"-artifact_prefix={corpus.parent}/gsv3d-found-",
            "-max_len=8192",
            "-print_final_stats=1",
        ],
        target,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
