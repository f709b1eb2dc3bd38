# SPDX-License-Identifier: Apache-2.0
"""The arrows of docs/architecture.md, held by reading every import of the source.

``blender_addon -> (backend.protocol) <- backend -> gsv3d``; imports inside functions count too, and
so do ``importlib.import_module("...")`` and ``__import__("...")``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gsv3d", "backend", "blender_addon")
STANDARD = frozenset(sys.stdlib_module_names)
OF_BLENDER = frozenset(
    {"bpy", "bmesh", "mathutils", "gpu", "gpu_extras", "blf", "bl_ext", "bpy_extras"}
)
OF_TORCH = frozenset({"torch", "diffusers", "transformers", "accelerate", "gsplat"})
PROTOCOL_NEEDS = STANDARD | {"numpy", "msgpack", "zmq"}

# In gsv3d a part imports only parts of rows above its own (and of its own row).
GSV3D_ROWS = (
    ("_version", "errors", "filenames", "tasks", "threads"),
    ("cameras", "clusters", "compiling", "devices", "masks", "outputs"),
    ("gaussians", "preprocessing"),
    ("rendering", "multiview", "decoder", "pose", "shape"),
    ("meshing",),
    ("lifting",),
    ("pipeline",),
    ("models", "own_models", "hub"),
    ("settings", "text_to_image"),
    ("generation",),
    ("results",),
    ("cli",),
    ("__main__",),
    ("lab",),
)
LAB_ROWS = (
    ("processes",),
    ("datasets",),
    ("rasterizing",),
    ("gathering",),
    ("training",),
    ("evaluation",),
    ("cli",),
)
# Blender renders the training pictures: the one part of the library that may drive it.
GSV3D_WITH_BLENDER = "gsv3d.lab.datasets"
VERSION = "gsv3d._version"


class Import(NamedTuple):
    module: str  # absolute, such as "backend.protocol.codec"
    line: int
    at_top: bool  # runs when the importing module is imported


def list_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse_imports(source: str, name: str, is_package: bool) -> list[Import]:
    """Return all imports of a module; ``from a import b`` counts as ``a.b`` and so as ``a``."""
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = name.split(".")
            if node.level:
                base = base[: len(base) - node.level + is_package]
                base += node.module.split(".") if node.module else []
            else:
                base = (node.module or "").split(".")
            found.extend(
                Import(".".join([*base, alias.name]), node.lineno, at_top) for alias in node.names
            )
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            target = node.args[0].value
            if called in ("import_module", "__import__") and isinstance(target, str):
                if not target.startswith("."):
                    found.append(Import(target, node.lineno, at_top))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            at_top = False
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_top = False
        for child in ast.iter_child_nodes(node):
            visit(child, at_top)

    visit(ast.parse(source), True)
    return found


@cache
def read_imports(path: Path) -> tuple[Import, ...]:
    source = path.read_text(encoding="utf-8")
    return tuple(parse_imports(source, name_module(path), path.name == "__init__.py"))


def find_top(module: str) -> str:
    return module.split(".")[0]


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def list_arrows(paths: list[Path]) -> Iterator[tuple[str, Import]]:
    for path in paths:
        for found in read_imports(path):
            yield f"{path.relative_to(ROOT).as_posix()}:{found.line} imports {found.module}", found


def list_complaints(paths: list[Path], wrong: object) -> list[str]:
    assert paths, "nothing to look at"
    return [text for text, found in list_arrows(paths) if wrong(found.module)]  # type: ignore[operator]


def test_gsv3d_knows_neither_backend_nor_addon() -> None:
    assert not list_complaints(
        list_files("gsv3d"), lambda m: find_top(m) in ("backend", "blender_addon")
    )


def test_gsv3d_knows_no_socket() -> None:
    assert not list_complaints(list_files("gsv3d"), lambda m: find_top(m) in ("zmq", "msgpack"))


def test_only_the_datasets_of_gsv3d_drive_blender() -> None:
    paths = [p for p in list_files("gsv3d") if not is_within(name_module(p), GSV3D_WITH_BLENDER)]
    assert not list_complaints(paths, lambda m: find_top(m) in OF_BLENDER)


def find_row(module: str) -> tuple[int, int]:
    """Return the row of a part of gsv3d and, in the laboratory, the row there."""
    parts = module.split(".")
    # ``from gsv3d import __version__``: a name of the package itself.
    if parts == ["gsv3d"] or parts[1].startswith("__v"):
        return 0, 0
    (row,) = [row for row, names in enumerate(GSV3D_ROWS) if parts[1] in names]
    if parts[1] != "lab" or len(parts) == 2:
        return row, 0
    return row, *(row for row, names in enumerate(LAB_ROWS) if parts[2] in names)


def test_parts_of_gsv3d_build_on_those_below() -> None:
    wrong = []
    for path in list_files("gsv3d"):
        own = find_row(name_module(path))
        for text, found in list_arrows([path]):
            if is_within(found.module, "gsv3d") and find_row(found.module) > own:
                wrong.append(text)
    assert not wrong


def test_backend_does_not_know_the_addon() -> None:
    assert not list_complaints(
        list_files("backend"), lambda m: find_top(m) in {"blender_addon"} | OF_BLENDER
    )


def test_only_the_worker_process_of_the_backend_holds_the_model() -> None:
    """The thread with the sockets must never wait for a model, nor die with one."""
    # The first three run in the worker process, the fourth is a command of its own.
    names = ("worker", "model_runner", "ray_runner", "doctor")
    with_model = tuple(f"backend.{name}" for name in names)
    paths = [p for p in list_files("backend") if name_module(p) not in with_model]

    def model(module: str) -> bool:
        return find_top(module) in OF_TORCH or (
            find_top(module) == "gsv3d" and not is_within(module, VERSION)
        )

    assert not list_complaints(paths, model)
    loads = [read_imports(path) for path in paths]
    assert not [i for found in loads for i in found if i.at_top and i.module in with_model]


def test_protocol_is_light() -> None:
    def heavy(module: str) -> bool:
        return find_top(module) not in PROTOCOL_NEEDS and not is_within(module, "backend.protocol")

    assert not list_complaints(list_files("backend/protocol"), heavy)


def test_addon_knows_blender_and_the_protocol_only() -> None:
    def foreign(module: str) -> bool:
        if is_within(module, "backend"):
            return not is_within(module, "backend.protocol")
        return find_top(module) not in PROTOCOL_NEEDS | OF_BLENDER | {"blender_addon"}

    # The zip holds the library's module in place of this one.
    packed = ROOT / "blender_addon" / "filenames.py"
    assert not list_complaints([p for p in list_files("blender_addon") if p != packed], foreign)
    rules = ROOT / "gsv3d" / "filenames.py"
    assert not list_complaints([packed], lambda module: not is_within(module, "gsv3d.filenames"))
    assert not list_complaints([rules], lambda module: find_top(module) not in STANDARD)


@pytest.mark.parametrize("package", ["gsv3d", "backend", "blender_addon"])
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    """Imports inside functions count."""
    paths = {name_module(path): path for path in list_files(package)}
    graph = {name: {find_module(imported.module, paths) for imported in read_imports(path)}
             - {name, package, ""} for name, path in paths.items()}  # fmt: skip
    assert len(list(TopologicalSorter(graph).static_order())) >= len(paths)


def find_module(name: str, paths: dict[str, Path]) -> str:
    """Return the module that ``from module import name`` names; empty if it is not ours."""
    while name and name not in paths:
        name = name.rpartition(".")[0]
    return name


def test_addon_reaches_the_protocol_in_one_place() -> None:
    """A copy of it is packed into the zip; every other import would miss that copy."""
    users = {text.split(":")[0] for text, found in list_arrows(list_files("blender_addon"))
             if is_within(found.module, "backend")}  # fmt: skip
    assert users == {"blender_addon/protocol.py"}


def list_loaded(module: str) -> set[str]:
    """Return all modules of this project that importing one loads, parents included."""
    paths = {name_module(path): path for package in PACKAGES for path in list_files(package)}
    assert module in paths
    waiting, loaded = [module], set()
    while waiting:
        name = find_module(waiting.pop(), paths)
        if not name or name in loaded:
            continue
        loaded.add(name)
        waiting.append(name.rpartition(".")[0])
        waiting += [found.module for found in read_imports(paths[name]) if found.at_top]
    return {name for name in loaded if name}


WITHOUT_BLENDER = [
    "blender_addon",
    "blender_addon.arguments",
    "blender_addon.backend_install",
    "blender_addon.backend_link",
    "blender_addon.backend_process",
    "blender_addon.batch",
    "blender_addon.client",
    "blender_addon.color",
    "blender_addon.console",
    "blender_addon.environments",
    "blender_addon.events",
    "blender_addon.filenames",
    "blender_addon.importers.placement",
    "blender_addon.importers.prepare",
    "blender_addon.jobs",
    "blender_addon.log_files",
    "blender_addon.pip_output",
    "blender_addon.png",
    "blender_addon.problems",
    "blender_addon.protocol",
    "blender_addon.pythons",
    "blender_addon.requests",
    "blender_addon.result_files",
    "backend.protocol",
]


@pytest.mark.parametrize("module", WITHOUT_BLENDER)
def test_pure_modules_load_neither_blender_nor_torch(module: str) -> None:
    paths = {name_module(path): path for package in PACKAGES for path in list_files(package)}
    loaded = [paths[name] for name in list_loaded(module)]
    assert not list_complaints_at_top(loaded, OF_BLENDER | OF_TORCH)


def list_complaints_at_top(paths: list[Path], names: frozenset[str]) -> list[str]:
    return [
        text
        for text, found in list_arrows(paths)
        if found.at_top and find_top(found.module) in names
    ]


def test_socket_thread_names_blender_nowhere() -> None:
    assert not list_complaints(
        [ROOT / "blender_addon/client.py"], lambda m: find_top(m) in OF_BLENDER
    )


def test_files_of_gaussians_need_no_torch() -> None:
    own = STANDARD | {"numpy", "plyfile", "gsv3d"}
    assert not list_complaints(
        [ROOT / "gsv3d/gaussians/ply.py"],
        lambda m: find_top(m) not in own or is_within(m, "gsv3d.cameras"),
    )


def test_pure_modules_import_for_real_where_blender_and_torch_are_missing() -> None:
    script = (
        "import sys\n"
        f"for name in {sorted(OF_BLENDER | OF_TORCH)!r}: sys.modules[name] = None\n"
        f"import {', '.join(WITHOUT_BLENDER)}\n"
        "ours = {name for name in sys.modules if name.startswith('gsv3d')}\n"
        "assert ours == {'gsv3d', 'gsv3d._version', 'gsv3d.filenames'}, ours\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "source, expected",
    [
        ("import a.b as c", {"a.b"}),
        ("from a import b, c", {"a.b", "a.c"}),
        ("from . import b", {"pkg.sub.b"}),
        ("from .b import c", {"pkg.sub.b.c"}),
        ("from ..b import c", {"pkg.b.c"}),
        ("def f():\n    import torch", {"torch"}),
        ("import importlib\nx = importlib.import_module('bpy')", {"importlib", "bpy"}),
        ("try:\n    import a\nexcept ImportError:\n    a = __import__('b')", {"a", "b"}),
    ],
)
def test_imports_are_parsed(source: str, expected: set[str]) -> None:
    assert {found.module for found in parse_imports(source, "pkg.sub.mod", False)} == expected


def test_parsed_imports_tell_what_runs_at_import() -> None:
    source = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n"
        "class C:\n    import b\n    def f(self):\n        import c\n"
    )
    found = {i.module: i.at_top for i in parse_imports(source, "m", False)}
    assert found == {"typing.TYPE_CHECKING": True, "a": False, "b": True, "c": False}
    (inside,) = parse_imports("from .x import y", "pkg", is_package=True)
    assert inside.module == "pkg.x.y"


def test_the_page_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+(?:\.\w+|/))`", text))
    rooms = [ROOT, *(ROOT / room for room in (*PACKAGES, "gsv3d/lab"))]
    others = {"transforms.json"}  # a user's
    missing = sorted(
        name for name in named - others if not any((room / name).exists() for room in rooms)
    )
    assert len(named) > 80 and not missing


def list_sources() -> list[Path]:
    folders = [*PACKAGES, "tests", "benchmarks"]
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in list_files(folder))]


def test_every_file_names_its_license() -> None:
    wrong = []
    for path in list_sources():
        relative = path.relative_to(ROOT)
        # The add-on and its tests, which import it and Blender.
        license = "GPL-3.0-or-later" if "blender_addon" in relative.parts else "Apache-2.0"
        lines = path.read_text(encoding="utf-8").splitlines()[:2]
        if lines and lines[0].startswith("#!"):
            lines.pop(0)
        if not lines or lines[0] != f"# SPDX-License-Identifier: {license}":
            wrong.append(f"{relative.as_posix()}: the first line must name {license}")
    assert len(list_sources()) > 100 and not wrong


def test_license_texts_are_whole() -> None:
    apache = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in apache and "END OF TERMS AND CONDITIONS" in apache
    for place in ("LICENSES/GPL-3.0-or-later.txt", "blender_addon/LICENSE"):
        gpl = (ROOT / place).read_text(encoding="utf-8")
        assert "GNU GENERAL PUBLIC LICENSE" in gpl and "END OF TERMS AND CONDITIONS" in gpl
