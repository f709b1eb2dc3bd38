# SPDX-License-Identifier: GPL-3.0-or-later
"""Installing into an environment, with real children and tiny wheels; no network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from blender_addon import backend_install, environments, model_process, pythons
from blender_addon.backend_install import Installer
from blender_addon.backend_process import BackendProcess
from blender_addon.pythons import Interpreter
from blender_addon.tasks import State
from tests.waiting import wait_until

NEEDS = "Requires-Dist: torch>=2\n"
GSV3D = {
    "gsv3d/__init__.py": "",
    "gsv3d/_version.py": "__version__ = '1.2.3'",
    "gsv3d/devices.py": "import torch\ndef choose_device(): return torch.device",
    "backend/__init__.py": "",
    "backend/cli.py": "",
}
TORCH = {
    "torch/__init__.py": "__version__ = '2.12.0'\n"
    "class device: type = 'cpu'\nclass cuda:\n get_device_name = staticmethod(lambda _: 'A card')"
}
FIND = pythons.find
UV = """#!/bin/sh
echo "uv was asked: $*"
"$(dirname "$0")/python" -m pip install torch==2.13
"""


def write_wheel(
    folder: Path, name: str, version: str, files: dict[str, str], needs: str = ""
) -> Path:
    """Make a wheel of these files."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as content:
        for file, text in {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": kind}.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o100755 << 16
            content.writestr(entry, text)
        content.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in content.namelist()))
    return path


@pytest.fixture(scope="module")
def prebuilt(tmp_path_factory) -> Path:
    """Make an environment with pip once; tests copy it, since making one takes seconds."""
    folder = tmp_path_factory.mktemp("prebuilt") / "env"
    subprocess.run([sys.executable, "-I", "-m", "venv", str(folder)], check=True)
    return folder


class Place:
    """A user's folder, whose path has spaces and letters beyond ASCII, and an index of wheels."""

    def __init__(self, folder: Path) -> None:
        self.index = folder / "index"
        self.root = folder / "Nutzer Größe 木" / "gsv3d"
        self.log = folder / "Nutzer Größe 木" / "install.log"
        self.wheel = write_wheel(folder / "packed ü", "gsv3d", "1.2.3", GSV3D, NEEDS)
        write_wheel(self.index, "torch", "2.12.0", TORCH)

    def installer(self, **options: str) -> Installer:
        return Installer(self.wheel, self.root, self.log, **options)

    def install(self, **options: str) -> Installer:
        installer = self.installer(**options)
        installer.start()
        assert installer.join(600)
        return installer

    def said(self) -> str:
        return self.log.read_text("utf-8")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture
def place(tmp_path: Path, prebuilt: Path, monkeypatch) -> Place:
    """Return a place in a system that has Python, space and one build of PyTorch for all."""
    made = Place(tmp_path)
    copy = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], symlinks=True)"
    monkeypatch.setattr(
        backend_install,
        "venv_command",
        lambda python, folder: [str(python), "-c", copy, str(prebuilt), str(folder)],
    )
    here = Interpreter(Path(sys.executable), "3.11.0", (23, 0))
    monkeypatch.setattr(pythons, "find", lambda *_: here)
    monkeypatch.setattr(sys, "platform", "darwin")
    space = shutil.disk_usage(tmp_path)._replace(free=20_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: space)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # this machine's
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", made.index.as_uri())
    return made


def test_it_is_installed_and_found(place: Place) -> None:
    done = place.install()
    assert done.state is State.DONE, place.said()
    assert done.result is not None and done.result == environments.installed(place.root)
    assert (done.result.version, done.result.device) == ("1.2.3", "the processor")
    code = "import backend.cli, gsv3d.devices; print(gsv3d.devices.__file__)"
    run = [str(done.result.python), "-I", "-c", code]
    where = subprocess.run(run, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    assert done.result.folder in Path(where).parents
    assert place.left() == ["backend-1", "installing.lock"]  # neither tmp nor downloads
    assert not (done.result.folder / "tmp").exists()
    assert "Successfully installed gsv3d-1.2.3" in place.said()


@pytest.mark.slow
def test_with_the_environment_that_python_makes(place: Place, monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", place.index.as_uri())
    done = place.install(chosen=sys.executable)
    assert done.state is State.DONE, place.said()


def test_an_update_takes_the_place_of_what_was_there(place: Place) -> None:
    place.install()
    (place.root / "backend-7" / "lib").mkdir(parents=True)  # Blender crashed while it installed
    second = place.install().result
    assert place.left() == ["backend-2", "installing.lock"]
    assert environments.installed(place.root) == second


@pytest.mark.skipif(os.name != "posix", reason="its environments are links")
@pytest.mark.parametrize("program", ["backend", "models"])
def test_an_environment_stays_while_any_blender_runs_a_program_of_it(
    tmp_path: Path, pretend, monkeypatch, program: str
) -> None:
    def make(_: Installer, folder: Path, __: Interpreter) -> environments.Installed:
        python = environments.python_of(folder)
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        facts = {"version": "1.2.3", "device": "the processor", "note": ""}
        environments.finish(folder, facts)
        return environments.Installed(folder, "1.2.3", "the processor")

    def install() -> list[str]:
        installer = Installer(tmp_path / "wheel", tmp_path, tmp_path / "log")
        installer.start()
        assert installer.join(600) and installer.state is State.DONE, installer.problem
        return sorted(path.name for path in tmp_path.glob("backend-*"))

    monkeypatch.setattr(Installer, "_make", make)
    monkeypatch.setattr(Installer, "_check_space", lambda _: None)
    monkeypatch.setattr(pythons, "find", lambda *_: None)
    assert install() == ["backend-1"]
    python = str(environments.python_of(tmp_path / "backend-1"))
    wait = "import time; time.sleep(600)"
    if program == "backend":
        pretend(wait)
        backend = BackendProcess()
        backend.start(python, tmp_path / "c.json", tmp_path / "data")
        end = backend.stop
    else:
        monkeypatch.setattr(model_process, "PROGRAM", ("-c", wait))
        models = model_process.ModelProcess(python, (), tmp_path / "models.log", "")
        models.start()
        wait_until(lambda: environments.in_use(tmp_path / "backend-1"))

        def end() -> None:
            models._child.kill()
            assert models.join(600)

    try:
        assert install() == ["backend-1", "backend-2"]
    finally:
        end()
    assert install() == ["backend-3"]


def test_a_package_that_is_not_there(place: Place) -> None:
    kept = place.install().result
    shutil.rmtree(place.index)
    place.index.mkdir()
    failed = place.install()
    assert failed.state is State.FAILED and failed.problem is not None
    assert "no package torch" in failed.problem.what
    assert environments.installed(place.root) == kept  # what worked still does
    assert "backend-2" not in place.left()
    assert "No matching distribution" in place.said()


def test_a_backend_that_does_not_run_is_not_kept(place: Place) -> None:
    broken = {**GSV3D, "backend/cli.py": "raise OSError('[WinError 126] c10.dll')"}
    place.wheel = write_wheel(place.index, "gsv3d", "1.2.4", broken, NEEDS)
    failed = place.install()
    assert failed.problem is not None and "Checking the installation" in failed.problem.what
    assert "Visual C++" in failed.problem.hint
    assert "backend-1" not in place.left()


def test_cancelled_while_pip_waits_for_the_network(place: Place, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        installer = place.installer()
        installer.start()
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            assert installer._child is not None
            pid = installer._child.pid
            assert installer.state is State.RUNNING and (place.root / "backend-1").exists()
            installer.cancel()
            assert installer.join(600)
    assert installer.state is State.CANCELLED and installer.problem is None
    assert not psutil.pid_exists(pid)
    assert place.left() == ["installing.lock"]


def test_cancelled_before_it_began(place: Place) -> None:
    installer = place.installer()
    installer.cancel()
    installer.start()
    assert installer.join(600) and installer.state is State.CANCELLED
    assert place.left() == ["installing.lock"]


def test_no_python_is_said(place: Place, monkeypatch) -> None:
    monkeypatch.setattr(pythons, "find", FIND)
    monkeypatch.setattr(pythons, "_candidates", lambda *_: iter([]))
    failed = place.install()
    assert failed.problem is not None and "No Python 3.11 to 3.13" in failed.problem.what
    assert place.left() == ["installing.lock"]


@pytest.mark.parametrize(("card", "free"), [(None, 1.5), ("/bin/nvidia-smi", 8.0)])
def test_a_disk_that_is_too_full_is_said_first(place: Place, monkeypatch, card, free) -> None:
    full = shutil.disk_usage(place.index)._replace(free=int(free * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    monkeypatch.setattr(shutil, "which", lambda _: card)
    failed = place.install()
    assert failed.problem is not None and f"{free} GB are free" in failed.problem.what
    assert place.left() == ["installing.lock"]


def test_a_disk_that_gets_full(place: Place, monkeypatch) -> None:
    says = "import sys, os; os.mkdir(sys.argv[1]); sys.exit('[Errno 28] No space left on device')"
    monkeypatch.setattr(
        backend_install, "venv_command", lambda py, folder: [str(py), "-c", says, str(folder)]
    )
    failed = place.install()
    assert failed.problem is not None and "The disk is full" in failed.problem.what
    assert place.left() == ["installing.lock"]


def test_a_folder_that_cannot_be_made_is_said(place: Place) -> None:
    place.root.parent.mkdir()
    place.root.write_text("a file in its place")
    failed = place.install()
    assert failed.state is State.FAILED and failed.problem is not None
    assert str(place.root) in failed.problem.what


def test_two_blenders_do_not_install_at_once(place: Place) -> None:
    place.root.mkdir(parents=True)
    place.log.write_text("what the other one writes")
    with environments.locked(place.root / "installing.lock"):
        failed = place.install()
    assert failed.problem is not None and "Another Blender" in failed.problem.what
    assert place.said() == "what the other one writes"


def test_torch_with_the_artists_options(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other index ü"
    write_wheel(other, "torch", "2.13.0+cu130", TORCH)
    done = place.install(torch_options=f'--find-links "{other.as_uri()}"')
    assert done.state is State.DONE, place.said()
    assert "Successfully installed torch-2.13.0+cu130" in place.said()


def test_options_that_cannot_be_read_are_said(place: Place) -> None:
    with pytest.raises(backend_install.Problem, match="options for PyTorch"):
        place.installer(torch_options='--index-url "x')


@pytest.mark.skipif(os.name != "posix", reason="uv of this test is a script")
def test_torch_is_the_build_that_uv_finds(place: Place, monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    write_wheel(place.index, "torch", "2.13", TORCH)
    write_wheel(place.index, "torch", "2.14", TORCH)  # what pip alone would take
    write_wheel(place.index, "uv", "0.1", {"uv-0.1.data/scripts/uv": UV})
    done = place.install()
    assert done.state is State.DONE and done.result is not None, place.said()
    python = done.result.python
    assert (
        f"uv was asked: pip install --torch-backend=auto --python {python} torch>=2" in place.said()
    )
    assert "torch-2.13" in place.said() and "torch-2.14" not in place.said()


@pytest.mark.parametrize("card", [False, True])
def test_without_uv_the_build_of_pips_index_will_do(place: Place, monkeypatch, card: bool) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(shutil, "which", lambda name: name if card else None)
    done = place.install()
    assert done.state is State.DONE and done.result is not None, place.said()
    assert ("does not use the NVIDIA card" in done.result.note) == card
    assert "Going on with the build" in place.said()


def test_what_points_blender_elsewhere_does_not_point_pip_there(monkeypatch, tmp_path) -> None:
    for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "PIP_TARGET", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "a mirror")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "another")
    monkeypatch.setenv("PIP_CERT", "a certificate")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    seen = backend_install._environment(tmp_path / "env", tmp_path)
    assert seen["UV_DEFAULT_INDEX"] == "another" and seen["SSL_CERT_FILE"] == "a certificate"
    assert not {"PYTHONPATH", "LD_LIBRARY_PATH", "PIP_TARGET", "VIRTUAL_ENV"} & set(seen)
    assert seen["PIP_INDEX_URL"] == "a mirror"
