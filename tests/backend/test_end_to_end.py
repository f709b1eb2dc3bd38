# SPDX-License-Identifier: Apache-2.0
"""A picture through the real backend, the real worker and the shipped model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw

from backend.protocol import Violation
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import serve

MODEL = Path(__file__).parents[2] / "gsv3d" / "checkpoints" / "blockout" / "model_index.json"


def draw_barrel() -> bytes:
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
    with serve(tmp_path, "--device", "cpu") as process:
        with Client(tmp_path / "connection.json") as client:
            bad = client.session.submit(b"not a picture", filename="notes.txt")
            failed = client.wait_for(m.Failed, 400)
            assert failed.job == bad and "notes.txt" in failed.what and failed.hint
            job = client.session.submit(
                draw_barrel(), filename="barrel.png", seed=1, faces=500, texture_size=256,
                files=("glb", "ply"),
            )  # fmt: skip
            client.wait_for(m.Done, 400)
            printed = tmp_path / "logs" / "worker-output.log"
            assert not printed.exists(), "a crash's last words are no library's remark"
            assert not [e for e in client.events if isinstance(e, Violation)]
            clouds = client.list_results(job, "gaussians")
            assert not clouds[0].artifact.final and clouds[-1].artifact.final
            (meshed,) = client.list_results(job, "mesh")
            mesh = meshed.arrays
            assert 20 <= len(mesh["faces"]) <= 500 and mesh["texture"].shape == (256, 256, 3)
            shown = {"left": 70, "top": 50, "right": 187, "bottom": 201}
            for one in (*clouds, meshed):
                assert one.artifact.box == {name: side / 256 for name, side in shown.items()}
            assert np.abs(clouds[-1].arrays["means"]).max() < 2
            glb, _ = client.list_results(job, "file")
            assert glb.artifact.name == "glb"
            data = io.BytesIO(glb.arrays["data"].tobytes())
            assert len(trimesh.load(data, file_type="glb", force="mesh").faces) <= 500
            # Cancel within one denoising step: long before the job's end.
            second = client.session.submit(draw_barrel(), seed=2, steps=200)
            client.wait_for(lambda e: getattr(e, "phase", "") == "denoising", 200, second)
            client.session.cancel(second)
            client.wait_for(m.Cancelled, timeout=19, job=second)
            client.session.ack(job)
            client.session.shutdown()
            client.wait_for(m.Bye)
        assert process.wait(60) == 0
