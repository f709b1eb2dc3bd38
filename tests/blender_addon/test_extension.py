# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest, the wheels and the built zip, installed as an artist would install it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import build_addon
from gsv3d._version import __version__
from tests.blender_addon.test_backend_install import GSV3D, NEEDS, TORCH, write_wheel

ROOT = Path(__file__).resolve().parents[2]


def read_manifest() -> dict:
    return tomllib.loads((ROOT / "blender_addon/blender_manifest.toml").read_text("utf-8"))


def test_the_manifest_says_what_the_package_says() -> None:
    values = read_manifest()
    assert values["version"] == __version__ == build_addon.version()
    assert (values["schema_version"], values["id"]) == ("1.0.0", "gsv3d")
    assert values["blender_version_min"] == "4.2.0"
    assert set(values["permissions"]) == {"files", "network", "clipboard"}
    for sentence in (values["tagline"], *values["permissions"].values()):
        assert len(sentence) <= 64 and sentence[-1] not in ".!?"
    licenses = {"GPL-3.0-or-later", "Apache-2.0", "BSD-3-Clause", "MPL-2.0", "ISC"}
    assert set(values["license"]) == {f"SPDX:{name}" for name in licenses}


def write_wheels(platform: build_addon.Platform, cache: Path) -> None:
    """Make empty wheels with real names, so that building needs no network."""
    for package, version, pythons in build_addon.WHEELS:
        for python in pythons:
            tag = "cp" + python.replace(".", "")
            abi = "abi3" if (package, python) == ("pyzmq", "3.12") else tag
            folder = cache / platform.name / f"{package}-{version}-{python}"
            folder.mkdir(parents=True)
            name = f"{package}-{version}-{tag}-{abi}-{platform.tags[0]}.whl"
            with zipfile.ZipFile(folder / name, "w") as wheel:
                wheel.writestr("empty", "")


def write_backend_wheel(folder: Path) -> Path:
    """Make a wheel of the backend's name, so that none has to be built."""
    wheel = folder / f"gsv3d-{build_addon.version()}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr("empty", "")
    return wheel


@pytest.mark.parametrize("platform", build_addon.PLATFORMS, ids=lambda p: p.name)
def test_every_platforms_zip_is_valid_and_fits_every_python(
    tmp_path: Path, platform: build_addon.Platform
) -> None:
    write_wheels(platform, tmp_path / "cache")
    wheel = write_backend_wheel(tmp_path)
    archive = build_addon.build(platform, tmp_path / "Ausgabe ü", tmp_path / "cache", wheel)
    with zipfile.ZipFile(archive) as content:
        values = tomllib.loads(content.read("blender_manifest.toml").decode())
        names = set(content.namelist())
        assert "_protocol/session.py" in names and "importers/mesh.py" in names
        assert b"GNU GENERAL PUBLIC LICENSE" in content.read("LICENSE")  # as the manifest says
        assert "LICENSES/Apache-2.0.txt" in names  # the packed protocol's
        assert not [n for n in names if "__pycache__" in n or n.startswith("tests")]
        assert b"Install Backend" in content.read("INSTALL.txt")
        guide = content.read("GUIDE.txt").decode()
        assert "**Generate**" in guide and "![" not in guide
        assert "translations.toml" in names
    assert values["platforms"] == [platform.name]
    permission = values["permissions"]["network"]
    assert all(word in permission for word in ("paired computer", "install it"))
    assert len(permission) <= 64
    wheels = {n for n in names if n.endswith(".whl")}
    assert {f"./{n}" for n in wheels if n.startswith("wheels/")} == set(values["wheels"])
    assert {n for n in wheels if not n.startswith("wheels/")} == {f"backend/{wheel.name}"}
    validator = build_addon.blender_validator()
    if validator is None:
        pytest.skip("the bpy package is not installed")
    build_addon.validate(archive, [sys.executable, str(validator)])
    spec = importlib.util.spec_from_file_location("blender_ext", validator)
    assert spec is not None and spec.loader is not None
    blender = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(blender)
    # Blender's own reading of the tags: which Pythons, and does every wheel fit the platform?
    pythons = blender.python_versions_from_wheels(values["wheels"])
    assert {(3, 11), (3, 13), (3, 14), sys.version_info[:2]} <= set(pythons)
    fitting = blender.paths_filter_wheels_by_platform(values["wheels"], platform.name)
    assert fitting == values["wheels"]


def test_the_same_sources_give_the_same_zip(tmp_path: Path) -> None:
    platform = build_addon.PLATFORMS[0]
    write_wheels(platform, tmp_path / "cache")
    first = build_addon.build(platform, tmp_path / "1", tmp_path / "cache").read_bytes()
    assert build_addon.build(platform, tmp_path / "2", tmp_path / "cache").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "built"),
    [
        ([], ["linux-x64"]),
        (["--platform", "windows-x64"], ["windows-x64"]),
        (["--platform", "all"], [p.name for p in build_addon.PLATFORMS]),
    ],
)
def test_built_is_for_this_machine_unless_told(
    monkeypatch, tmp_path: Path, arguments: list[str], built: list[str]
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(build_addon, "blender_tool", lambda: None)
    monkeypatch.setattr(build_addon, "build_backend", write_backend_wheel)
    for platform in build_addon.PLATFORMS:
        write_wheels(platform, tmp_path / "cache")
    folders = ["--output", str(tmp_path / "dist"), "--cache", str(tmp_path / "cache")]
    assert build_addon.main([*folders, *arguments]) == 0
    made = sorted(path.name for path in (tmp_path / "dist").iterdir())
    version = build_addon.version()
    zips = sorted(f"gsv3d-{version}-{name.replace('-', '_')}.zip" for name in built)
    assert made == sorted([*zips, "index.json"])
    for archive in (tmp_path / "dist").glob("*.zip"):
        with zipfile.ZipFile(archive) as content:
            assert f"backend/gsv3d-{version}-py3-none-any.whl" in content.namelist()


def test_without_the_backend_nothing_is_built_of_it(monkeypatch, tmp_path: Path) -> None:
    platform = build_addon.PLATFORMS[0]
    write_wheels(platform, tmp_path / "cache")
    monkeypatch.setattr(build_addon, "blender_tool", lambda: None)
    monkeypatch.setattr(build_addon, "build_backend", lambda _: pytest.fail("was built"))
    folders = ["--output", str(tmp_path / "dist"), "--cache", str(tmp_path / "cache")]
    assert build_addon.main([*folders, "--platform", platform.name, "--without-backend"]) == 0
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.zip"))) as content:
        assert not [name for name in content.namelist() if name.startswith("backend/")]
        assert "INSTALL.txt" in content.namelist()
        values = tomllib.loads(content.read("blender_manifest.toml").decode())
    assert values["permissions"] == read_manifest()["permissions"]


def test_a_backend_that_cannot_be_built_is_said(monkeypatch, tmp_path: Path, capsys) -> None:
    (tmp_path / "pyproject.toml").write_text("no project")
    monkeypatch.setattr(build_addon, "ROOT", tmp_path)
    monkeypatch.setattr(build_addon, "_WHEEL_SOURCES", ("pyproject.toml",))
    assert build_addon.main(["--output", str(tmp_path / "dist"), "--platform", "all"]) == 1
    error = capsys.readouterr().err
    assert "wheel could not be built" in error and "--without-backend" in error
    assert not (tmp_path / "dist").exists()


def test_our_index_is_the_one_blender_writes(tmp_path: Path) -> None:
    """Without a Blender the build writes the index itself; compare it with Blender's own."""
    for number in (0, 3):
        platform = build_addon.PLATFORMS[number]
        write_wheels(platform, tmp_path / "cache")
        build_addon.build(platform, tmp_path / "dist ü", tmp_path / "cache")
    ours = json.loads(build_addon.write_index(tmp_path / "dist ü", None).read_text("utf-8"))
    assert [entry["platforms"] for entry in ours["data"]] == [["macos-arm64"], ["windows-x64"]]
    validator = build_addon.blender_validator()
    if validator is None:
        pytest.skip("the bpy package is not installed")
    tool = [sys.executable, str(validator)]
    theirs = json.loads(build_addon.write_index(tmp_path / "dist ü", tool).read_text("utf-8"))
    theirs["data"].sort(key=lambda entry: entry["archive_url"])
    # Blender 5.3 adds a field for asset libraries.
    assert ours == {field: theirs[field] for field in ours}


def test_a_machine_without_a_zip_is_told_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr("platform.system", lambda: "FreeBSD")
    monkeypatch.setattr("platform.machine", lambda: "amd64")
    with pytest.raises(SystemExit):
        build_addon.main([])
    assert "this machine's platform, freebsd-x64" in capsys.readouterr().err


def test_a_wheel_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(build_addon, "WHEELS", (("pyzmq", "27.3.0", ("3.11",)),))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    folders = ["--output", str(tmp_path), "--cache", str(tmp_path / "cache")]
    code = build_addon.main([*folders, "--platform", "windows-x64", "--without-backend"])
    assert code == 1
    assert "pyzmq 27.3.0 for Python 3.11 on windows-x64" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.zip"))


INSTALL = """
import sys, bpy
done = bpy.ops.extensions.package_install_files(
    filepath=sys.argv[1], repo="user_default", enable_on_install=True)
assert done == {"FINISHED"}, done
package = "bl_ext.user_default.gsv3d"
assert package in bpy.context.preferences.addons.keys()
protocol = sys.modules[package + ".protocol"]
assert protocol.protocol_problem() is None
assert protocol.wire.__name__ == package + "._protocol"
assert "backend" not in sys.modules and "torch" not in sys.modules
assert not bpy.ops.gsv3d.generate.poll()
assert bpy.context.scene.gsv3d.model == "blockout"
from pathlib import Path
paths = sys.modules[package + ".paths"]
assert Path(sys.argv[2]) in paths.data_dir().parents, paths.data_dir()
session = sys.modules[package + ".session"].get()
session.start_backend("", Path(sys.argv[3]), paths.data_dir())
jobs, requests = (sys.modules[f"{package}.{name}"] for name in ("jobs", "requests"))
job = session.jobs.submit(requests.Request(b"x", "box.png"), requests.Target("box"))
import time
end = time.monotonic() + 60
while job.state is not jobs.JobState.DONE:
    session.drain()
    time.sleep(0.01)
    assert time.monotonic() < end, (job.describe(), session.backend.problem)
assert "box" in bpy.data.objects
installing = sys.modules[package + ".installing"]
started = []
session.start_backend = lambda *place: started.append(place)
bpy.context.preferences.system.use_online_access = False
assert not bpy.ops.gsv3d.backend_install.poll()
bpy.context.preferences.system.use_online_access = True
assert bpy.ops.gsv3d.backend_install() == {"FINISHED"}
while installing.watch.look():
    time.sleep(0.05)
    assert time.monotonic() < end + 180, installing.watch.task.text
assert installing.watch.task is None, installing.watch.task.problem
assert len(started) == 1
installed = paths.installed_backend()
assert installed.version == "1.2.3" and Path(sys.argv[2]) in installed.folder.parents, installed
import addon_utils
addon_utils.disable(package)
import threading
assert [t.name for t in threading.enumerate()] == ["MainThread"]
print("INSTALLED AND WORKS")
"""


@pytest.mark.bpy
@pytest.mark.slow
def test_the_built_zip_installs_and_works(tmp_path: Path) -> None:
    """From the built zip, in a Blender of its own, to an object made over the wire.

    And to an installed backend: from tiny wheels, without a network.
    """
    from tests.fake_backend import FakeBackend

    here = build_addon.platform_here()
    platform = next(p for p in build_addon.PLATFORMS if p.name == here)
    packed = write_wheel(tmp_path / "packed", "gsv3d", "1.2.3", GSV3D, NEEDS)
    index = tmp_path / "index"
    write_wheel(index, "torch", "2.12.0", TORCH)
    try:
        archive = build_addon.build(platform, tmp_path, ROOT / "build" / "wheels", packed)
    except build_addon.BuildError as error:
        pytest.skip(f"no wheels and no way to get them: {error}")
    user = tmp_path / "user folder ü"
    user.mkdir()
    environment = {
        **os.environ,
        "BLENDER_USER_RESOURCES": str(user),
        "XDG_DATA_HOME": str(user),
        "LOCALAPPDATA": str(user),
        "HOME": str(user),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": index.as_uri(),
    }
    with FakeBackend(tmp_path, "normal") as fake:
        result = subprocess.run(
            [sys.executable, "-c", INSTALL, str(archive), str(user), str(fake.connection_path)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment,
            timeout=250,
            cwd=tmp_path,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "INSTALLED AND WORKS" in result.stdout
