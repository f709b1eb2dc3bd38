# SPDX-License-Identifier: Apache-2.0
"""Elevation and mirror plane over the wire, with clients and backends that do not know them."""

from __future__ import annotations

from pathlib import Path

from backend.model_runner import pose_numbers
from backend.protocol import messages as m
from gsv3d.pose import PoseEstimate
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script


def wait_for_pose(client: Client, job: str) -> dict[str, float]:
    client.wait_for(m.Done, job=job)
    (mesh,) = client.list_results(job, "mesh")
    return mesh.artifact.pose


def test_what_is_asked_for_reaches_the_worker_and_what_was_used_comes_back(
    tmp_path: Path, run_server: Start
) -> None:
    with Client(run_server(tmp_path).path) as client:
        job = client.session.submit(
            make_script(steps=1), elevation=None, mirror="plane", plane=-30.0
        )
        assert wait_for_pose(client, job) == {"plane": -30.0, "mirrored": 1.0}
        job = client.session.submit(make_script(steps=1), elevation=25.0)
        assert wait_for_pose(client, job) == {"elevation": 25.0, "plane": 0.0, "mirrored": 0.0}


def test_an_older_clients_object_is_not_mirrored(tmp_path: Path, run_server: Start) -> None:
    with Client(run_server(tmp_path).path, versions=(1, 2)) as older:
        job = older.session.submit(make_script(steps=1))
        assert wait_for_pose(older, job) == {"elevation": 10.0, "plane": 0.0, "mirrored": 0.0}


def test_what_is_not_known_of_a_pose_is_left_out() -> None:
    assert pose_numbers(PoseEstimate(10.0, None, None, 0.25)) == {
        "elevation": 10.0, "plane_score": 0.25,
    }  # fmt: skip
    assert pose_numbers(PoseEstimate(20.0, 45.0, 4.0, 0.9)) == {
        "elevation": 20.0, "plane": 45.0, "elevation_error": 4.0, "plane_score": 0.9,
    }  # fmt: skip
