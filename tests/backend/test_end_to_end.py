# SPDX-License-Identifier: Apache-2.0
"""A picture through the real backend, the real worker and the shipped model."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from backend.protocol import Received, Violation
from backend.protocol import messages as m
from tests.backend.client import Client

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "gsv3d" / "checkpoints" / "blockout" / "model_index.json"


def picture() -> bytes:
    image = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.ellipse((70, 50, 186, 90), fill=(150, 90, 50, 255))
    draw.rectangle((70, 70, 186, 200), fill=(130, 75, 40, 255))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not MODEL.is_file(), reason="the model blockout is not in gsv3d/checkpoints")
def test_a_picture_becomes_gaussians_and_a_mesh(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "backend", "serve", "--data-dir", str(tmp_path),
               "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        path = tmp_path / "connection.json"
        deadline = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        with Client(path) as client:
            bad = client.session.submit(b"not a picture", filename="notes.txt")
            failed = client.until(m.Failed, 400)
            assert failed.job == bad and "notes.txt" in failed.what and failed.hint
            job = client.session.submit(
                picture(), filename="barrel.png", seed=1, faces=500, texture_size=256,
                files=("glb", "ply"),
            )  # fmt: skip
            client.until(m.Done, 400)
            printed = tmp_path / "logs" / "worker-output.log"
            assert not printed.exists(), "a crash's last words are no library's remark"
            assert not [e for e in client.events if isinstance(e, Violation)]
            received = [e for e in client.of_job(job) if isinstance(e, Received)]
            assert any(e.kind == "gaussians" and not e.artifact.final for e in received)
            mesh = next(e for e in received if e.kind == "mesh").arrays
            assert 20 <= len(mesh["faces"]) <= 500 and mesh["texture"].shape == (256, 256, 3)
            shown = {"left": 70, "top": 50, "right": 187, "bottom": 201}
            for one in (e for e in received if e.kind in ("gaussians", "mesh")):
                assert one.artifact.box == {name: side / 256 for name, side in shown.items()}
            cloud = next(e for e in received if e.kind == "gaussians" and e.artifact.final)
            assert np.abs(cloud.arrays["means"]).max() < 2
            glb = next(e for e in received if e.kind == "file" and e.artifact.name == "glb")
            data = io.BytesIO(glb.arrays["data"].tobytes())
            assert len(trimesh.load(data, file_type="glb", force="mesh").faces) <= 500
            # Cancel within one denoising step: long before the job's end.
            second = client.session.submit(picture(), seed=2, steps=200)
            client.until(lambda e: isinstance(e, m.Progress) and e.job == second
                         and e.phase == "denoising", 200)  # fmt: skip
            client.session.cancel(second)
            client.until(m.Cancelled, timeout=19, job=second)
            client.session.ack(job)
            client.session.shutdown()
            client.until(m.Bye)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
