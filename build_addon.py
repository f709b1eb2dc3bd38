# SPDX-License-Identifier: Apache-2.0
"""Build the Blender extension: ``python build_addon.py [--output dist]``, a zip for this machine.

``--platform`` names others, ``--platform all`` stands for all of them. Each zip holds
``blender_addon/``, a copy of ``backend/protocol/`` as ``_protocol``, one of ``gsv3d/filenames.py``,
the guides, the backend's wheel built from this tree, and the wheels of pyzmq and
msgpack for every Python a Blender of that platform may have. Those come unmodified through
``pip download`` into a cache.

``--without-backend`` leaves the backend's wheel out. *Install Backend* then opens the guide, as
Blender's extensions platform asks: it forbids extensions to install programs.

Beside the zips stands ``index.json``, which makes their folder an extension repository. Where
Blender or its bpy package is at hand, it checks the zips and writes the index.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform as machine
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ADDON, PROTOCOL, PACKED = ROOT / "blender_addon", ROOT / "backend" / "protocol", "_protocol"
GUIDE = ROOT / "docs" / "installing.md"
_WHEEL_SOURCES = (
    *("gsv3d", "backend", "blender_addon"),
    *("pyproject.toml", "README.md", "LICENSE", "LICENSES"),
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same sources give the same zip

# Python 3.11: Blender 4.2 to 5.0. 3.13: 5.1 and later, Debian's 4.3. 3.14: Debian's 5.2.
# pyzmq's cp312-abi3 wheel serves 3.12 and all that follow; Blender reads the Pythons a zip is
# for from the union of its wheels' tags, where msgpack's name the later ones.
WHEELS = (
    ("pyzmq", "27.3.0", ("3.11", "3.12")),
    ("msgpack", "1.2.4", ("3.11", "3.13", "3.14")),
)


@dataclass(frozen=True)
class Platform:
    """A platform by Blender's name, and the wheel tags that run on it."""

    name: str
    tags: tuple[str, ...]


PLATFORMS = (
    Platform("windows-x64", ("win_amd64",)),
    Platform("windows-arm64", ("win_arm64",)),
    Platform(
        "macos-x64",
        (
            "macosx_10_15_universal2",
            "macosx_10_15_x86_64",
            "macosx_10_13_x86_64",
            "macosx_10_9_x86_64",
        ),
    ),
    Platform(
        "macos-arm64", ("macosx_11_0_arm64", "macosx_11_0_universal2", "macosx_10_15_universal2")
    ),
    Platform(
        "linux-x64", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
    ),
    Platform(
        "linux-arm64", ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
    ),
)
_SYSTEMS = {"Windows": "windows", "Darwin": "macos", "Linux": "linux"}
_MACHINES = {"amd64": "x64", "x86_64": "x64", "arm64": "arm64", "aarch64": "arm64"}


class BuildError(Exception):
    """A zip could not be built; the text is a sentence that says why."""


def platform_here() -> str:
    """Return Blender's name of the platform of this machine, one of ``PLATFORMS`` or not."""
    system, processor = machine.system(), machine.machine().lower()
    return f"{_SYSTEMS.get(system, system.lower())}-{_MACHINES.get(processor, processor)}"


def fetch_wheels(platform: Platform, cache: Path) -> list[Path]:
    """Return the wheels of a platform, downloaded into ``cache`` unless they are there.

    Raises BuildError naming the wheel that cannot be had.
    """
    return [
        _fetch(package, version, python, platform, cache)
        for package, version, pythons in WHEELS
        for python in pythons
    ]


def _fetch(package: str, version: str, python: str, platform: Platform, cache: Path) -> Path:
    folder = cache / platform.name / f"{package}-{version}-{python}"
    found = sorted(folder.glob("*.whl"))
    if not found:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--implementation",
            "cp",
            "--python-version",
            python,
            "--dest",
            str(folder),
            f"{package}=={version}",
        ]
        for tag in platform.tags:
            command += ["--platform", tag]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
        if result.returncode or not found:
            reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise BuildError(
                f"No wheel of {package} {version} for Python {python} on {platform.name}: {reason}"
            )
    return found[0]


def build_backend(folder: Path) -> Path:
    """Build the backend's wheel from this tree into ``folder`` and return its path.

    The same tree gives the same wheel. It is built from a copy, because setuptools leaves folders
    in the tree that it builds and packs what it finds in them.

    Raises:
        BuildError: pip could not build it.
        OSError: the copy could not be written.
    """
    with tempfile.TemporaryDirectory(prefix="gsv3d-wheel-") as temporary:
        tree = Path(temporary).resolve() / "tree"
        tree.mkdir()
        for name in _WHEEL_SOURCES:
            if (ROOT / name).is_dir():
                unwanted = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
            else:
                shutil.copy2(ROOT / name, tree / name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--wheel-dir", str(folder), str(tree)]
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SOURCE_DATE_EPOCH": "315532800"},  # 1980, the first year of zips
        )
    found = sorted(folder.glob("gsv3d-*.whl"))
    if result.returncode or len(found) != 1:
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise BuildError(f"The backend's wheel could not be built: {reason}")
    return found[0]


def manifest_for(platform: Platform, wheels: Sequence[str], installs: bool) -> str:
    """Return the manifest's text with its platform and wheels, which go before the first table.

    With ``installs`` the permission for the network says that the backend may be installed.
    """
    text = (ADDON / "blender_manifest.toml").read_text(encoding="utf-8")
    if installs:
        permission = 'network = "Talk to the backend, here or on a paired computer; install it"'
        text, count = re.subn('^network = ".*"$', permission, text, flags=re.MULTILINE)
        if count != 1:
            raise BuildError("blender_manifest.toml has no permission for the network")
    listed = "".join(f'    "./wheels/{name}",\n' for name in wheels)
    added = f'platforms = ["{platform.name}"]\nwheels = [\n{listed}]\n\n'
    head, table, rest = text.partition("[permissions]")
    if not table:
        raise BuildError("blender_manifest.toml has no [permissions]")
    return head + added + table + rest


def version() -> str:
    """Return the version in the manifest."""
    text = (ADDON / "blender_manifest.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise BuildError("blender_manifest.toml has no version")
    return found[1]


def _sources(folder: Path) -> list[tuple[str, Path]]:
    return [
        (path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in {".py", ".pyi", ".toml"}
        and "__pycache__" not in path.parts
        and PACKED not in path.parts
    ]


def _absolute_import(text: str) -> bool:
    return re.search(r"^\s*(from|import)\s+(backend|gsv3d)\b", text, re.MULTILINE) is not None


def build(platform: Platform, output: Path, cache: Path, backend: Path | None = None) -> Path:
    """Build one zip, with the backend's wheel if that is given, and return the zip's path.

    Raises BuildError or OSError.
    """
    wheels = fetch_wheels(platform, cache)
    content: dict[str, bytes] = {}
    for name, path in _sources(ADDON):
        content[name] = path.read_bytes()
    content["filenames.py"] = (ROOT / "gsv3d" / "filenames.py").read_bytes()
    content["blender_manifest.toml"] = manifest_for(
        platform, sorted(w.name for w in wheels), installs=backend is not None
    ).encode()
    for name, path in _sources(PROTOCOL):
        text = path.read_text(encoding="utf-8")
        if _absolute_import(text):
            raise BuildError(f"{path} imports by an absolute name; a packed copy cannot")
        content[f"{PACKED}/{name}"] = text.encode()
    content["INSTALL.txt"] = GUIDE.read_bytes()
    guide = (ROOT / "docs" / "artist_guide.md").read_text(encoding="utf-8")
    content["GUIDE.txt"] = re.sub(r"!\[.*?\]\(.*?\)\n+", "", guide).encode()  # without pictures
    if backend is not None:
        content[f"backend/{backend.name}"] = backend.read_bytes()
    content["LICENSE"] = (ADDON / "LICENSE").read_bytes()  # the protocol's is in LICENSES
    for path in sorted((ROOT / "LICENSES").glob("*.txt")):
        content[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    for wheel in wheels:
        content[f"wheels/{wheel.name}"] = wheel.read_bytes()
    output.mkdir(parents=True, exist_ok=True)
    target = output / f"gsv3d-{version()}-{platform.name.replace('-', '_')}.zip"
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(content):
            entry = zipfile.ZipInfo(name, _EPOCH)
            packed = name.endswith(".whl")  # compressed already
            entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content[name])
    partial.replace(target)
    return target


def blender_validator() -> Path | None:
    """Return Blender's extension tool inside the bpy package, if that is installed."""
    spec = find_spec("bpy")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(next(iter(spec.submodule_search_locations)))
    return next(root.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"), None)


def blender_tool() -> list[str] | None:
    """Return the command of Blender's extension tool: the bpy package's, else a Blender's."""
    packed = blender_validator()
    if packed is not None:
        return [sys.executable, str(packed)]
    blender = shutil.which("blender")
    return [blender, "--command", "extension"] if blender else None


def _have_blender(tool: Sequence[str], *arguments: str) -> None:
    result = subprocess.run([*tool, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stdout + result.stderr).strip()
        raise BuildError(f"Blender's 'extension {arguments[0]}' failed: {said}")


def validate(archive: Path, tool: Sequence[str]) -> None:
    """Have Blender check a zip. Raises BuildError with what it says."""
    _have_blender(tool, "validate", str(archive))


def write_index(folder: Path, tool: Sequence[str] | None) -> Path:
    """List all zips of a folder in ``index.json``, as an extension repository does.

    Blender writes the index if ``tool`` calls it. Raises BuildError or OSError.
    """
    target = folder / "index.json"
    if tool is not None:
        _have_blender(tool, "server-generate", "--repo-dir", str(folder))
        return target
    entries = [_index_entry(archive) for archive in sorted(folder.glob("*.zip"))]
    text = json.dumps({"version": "v1", "blocklist": [], "data": entries}, indent=2)
    partial = target.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    return target


def _index_entry(archive: Path) -> dict[str, object]:
    with zipfile.ZipFile(archive) as content:
        entry = tomllib.loads(content.read("blender_manifest.toml").decode())
    # Wheels that serve one Python say which; one of the stable ABI says the least.
    tags = (re.search(r"-cp3(\d+)-cp3\1-", wheel) for wheel in entry.pop("wheels", []))
    minors = sorted({int(tag[1]) for tag in tags if tag})
    entry["python_versions"] = [f"3.{minor}" for minor in minors]
    data = archive.read_bytes()
    return {
        **entry,
        "archive_url": "./" + urllib.request.pathname2url(archive.name),
        "archive_size": len(data),
        "archive_hash": f"sha256:{hashlib.sha256(data).hexdigest()}",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Build the zips asked for; return 1 if any of them could not be built."""
    parser = argparse.ArgumentParser(description="Build the GSV3D extension for Blender.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "wheels", metavar="FOLDER")
    parser.add_argument(
        "--platform",
        action="append",
        choices=[*(p.name for p in PLATFORMS), "all"],
        help="the platform to build for (this machine's); may be given several times",
    )
    parser.add_argument(
        "--without-backend",
        action="store_true",
        help="leave the backend's wheel out: 'Install Backend' then opens the guide, as Blender's"
        " extensions platform asks",
    )
    options = parser.parse_args(argv)
    wanted = options.platform or [platform_here()]
    chosen = [p for p in PLATFORMS if p.name in wanted or "all" in wanted]
    if not chosen:
        parser.error(f"There is no zip for this machine's platform, {wanted[0]}: name another.")
    tool = blender_tool()
    if tool is None:
        print("The zips are not checked by Blender: neither it nor its bpy package is installed.")
    with tempfile.TemporaryDirectory(prefix="gsv3d-wheel-") as folder:
        try:
            backend = None if options.without_backend else build_backend(Path(folder))
        except (BuildError, OSError) as error:
            print(f"{error}\n--without-backend leaves it out.", file=sys.stderr)
            return 1
        failed = _build_all(chosen, options, tool, backend)
    return 1 if failed else 0


def _build_all(
    chosen: Sequence[Platform],
    options: argparse.Namespace,
    tool: Sequence[str] | None,
    backend: Path | None,
) -> bool:
    failed = False
    for platform in chosen:
        try:
            archive = build(platform, options.output, options.cache, backend)
            if tool is not None:
                validate(archive, tool)
        except (BuildError, OSError) as error:
            print(f"{platform.name}: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"Built {archive} ({archive.stat().st_size / 2**20:.1f} MiB)")
    try:
        if options.output.is_dir():
            print(f"Wrote {write_index(options.output, tool)}")
    except (BuildError, OSError, zipfile.BadZipFile, KeyError) as error:
        print(f"index.json could not be written: {error}", file=sys.stderr)
        failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
