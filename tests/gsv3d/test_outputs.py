# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all, never over another's; failures are one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gsv3d import errors, outputs
from gsv3d.errors import JOB_BYTES, TEXEL_BYTES, OutputError, OutputNameError, out_of_memory
from gsv3d.meshing.export import encode_texture
from gsv3d.outputs import free_target, make_folder, output_error, write_atomic


def test_a_file_is_whole_and_its_neighbors_are_left_alone(tmp_path):
    target = tmp_path / ("桶" * 80 + ".glb")  # 244 bytes: the temporary name must not be longer
    write_atomic(target, b"first")
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert os.listdir(tmp_path) == [target.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_a_file_has_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "a", b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_cannot_be_written_to_is_found_at_once(tmp_path, monkeypatch):
    def denied(path, *_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    make_folder(tmp_path / "good")
    assert not list((tmp_path / "good").iterdir())
    monkeypatch.setattr(outputs, "open", denied, raising=False)
    with pytest.raises(OutputError, match="writing there is not allowed") as caught:
        make_folder(tmp_path / "bad")
    assert str(tmp_path / "bad") in str(caught.value)


def test_a_name_taken_since_is_passed_over(tmp_path):
    (tmp_path / "a.ply").write_bytes(b"another run's")
    with free_target(tmp_path / "a", (".glb", ".ply")) as target:
        assert target == tmp_path / "a-2"
        with free_target(tmp_path / "a", (".glb", ".ply")) as of_another_run:
            assert of_another_run.name == "a-3"
        (tmp_path / "a-2.glb").write_bytes(b"a mesh")
    assert {path.name for path in tmp_path.iterdir()} == {"a.ply", "a-2.glb"}
    with free_target(tmp_path / "a", (".glb", ".ply"), overwrite=True) as target:
        assert target == tmp_path / "a"


def test_a_folder_gone_since_is_a_sentence(tmp_path):
    with pytest.raises(OutputError, match="is not there"):
        with free_target(tmp_path / "gone" / "a", (".glb",)):
            pass


def test_a_name_that_is_too_long_concerns_one_file_only(tmp_path):
    error = OSError(errno.ENAMETOOLONG, "File name too long")
    assert isinstance(output_error(tmp_path / "a.glb", error), OutputNameError)
    full = output_error(tmp_path / "a.glb", OSError(errno.ENOSPC, "No space"))
    assert not isinstance(full, OutputNameError)


def test_a_path_too_long_for_windows_is_named(tmp_path, monkeypatch):
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory")
    long = Path("C:/" + "folder/" * 34 + "a-chair-of-wood.glb")
    assert len(str(long)) > 259
    assert "is not there" in str(output_error(long, missing))  # elsewhere there is no such limit
    monkeypatch.setattr(outputs, "MAX_PATH_CHARS", 259)
    said = output_error(long, missing)
    assert isinstance(said, OutputNameError)
    assert "too long for Windows, which allows 259 characters" in str(said)
    assert "is not there" in str(output_error(tmp_path / "x" / "a", missing))


def test_out_of_memory_is_told():
    with pytest.raises(MemoryError) as caught:
        np.empty(2**58)
    for error in (
        MemoryError(),
        caught.value,
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate"),
    ):
        said = str(out_of_memory(error, 8192))
        assert "memory of this computer" in said and "Close other programs." in said
    assert "graphics card" in str(out_of_memory(torch.OutOfMemoryError("CUDA out of memory")))
    assert out_of_memory(RuntimeError("shapes do not match")) is None
    assert out_of_memory(OSError(errno.ENOSPC, "No space")) is None


@pytest.mark.parametrize(
    ("free", "hint"),
    [
        (JOB_BYTES + TEXEL_BYTES * 3072**2, "3072 instead of 8192 fits"),
        (JOB_BYTES + TEXEL_BYTES * 8192**2, "Close other programs."),
        (JOB_BYTES, "Close other programs."),
    ],
)
def test_the_largest_texture_that_fits_is_named(monkeypatch, free, hint):
    monkeypatch.setattr(errors, "_free_bytes", lambda: free)

    class Mesh:
        @property
        def texture(self):
            raise MemoryError

    with pytest.raises(MemoryError) as caught:
        encode_texture(Mesh())
    assert hint in str(out_of_memory(caught.value, 8192))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds to this limit")
def test_the_largest_texture_counts_the_limit_and_the_jobs_own_memory():
    code = """
import resource, gsv3d.errors, numpy as np, psutil
from gsv3d.meshing.export import encode_texture
limit = psutil.Process().memory_info().vms + 600_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
class Mesh:
    @property
    def texture(self):
        held = np.empty(500_000_000, np.uint8)
        return np.empty(500_000_000, np.uint8)
try:
    encode_texture(Mesh())
except MemoryError as error:
    print(gsv3d.errors.find_largest_texture(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 5000 < int(done.stdout) < ((600e6 - JOB_BYTES) / TEXEL_BYTES) ** 0.5
