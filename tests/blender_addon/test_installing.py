# SPDX-License-Identifier: GPL-3.0-or-later
"""Install Backend as an artist sees it, with an installer that does what the test says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blender_addon.backend_process import explain_death
from blender_addon.environments import finish, python_of
from blender_addon.problems import Problem
from blender_addon.tasks import State, Task
from tests.blender_addon.test_panels import draw_panel

pytestmark = pytest.mark.bpy


class Pretended(Task):
    """Stands in for the installer; remembers how it was made."""

    made: list[Pretended] = []

    def __init__(self, *given: Any, **options: Any) -> None:
        self.given, self.options = given, options
        super().__init__("pretended")
        self.text = "Downloading torch"
        self.cancelled = False
        self.made.append(self)

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        self.cancelled = True
        self.state = State.CANCELLED

    def join(self, _: float) -> bool:
        return True


class InBlender:
    """bpy, but of a program and not a module."""

    def __init__(self, bpy: Any) -> None:
        self._bpy = bpy
        self.app = SimpleNamespace(binary_path="/opt/blender")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bpy, name)


@pytest.fixture
def packed(addon, monkeypatch, tmp_path: Path) -> Any:
    """Set the wheel that the extension brings; there is one to begin with."""
    from blender_addon import backend_panel, environments
    from blender_addon.operators import install

    def use(wheel: Path | None) -> None:
        for module in (environments, backend_panel, install):
            monkeypatch.setattr(module, "packed_wheel", lambda: wheel)

    use(tmp_path / "gsv3d-0.2.0-py3-none-any.whl")
    return use


@pytest.fixture
def installing(addon, packed, monkeypatch, tmp_path: Path) -> Any:
    """Return the module, in a Blender that may go online and has no Python for the backend."""
    from blender_addon import compat, environments, installing, paths

    monkeypatch.setattr(environments, "user_folder", lambda: tmp_path / "user")
    monkeypatch.setattr(compat, "online_access", lambda: True)
    monkeypatch.setattr(installing, "Installer", Pretended)
    monkeypatch.setattr(Pretended, "made", [])
    monkeypatch.setattr(paths, "bpy", InBlender(addon.bpy))
    monkeypatch.setattr("shutil.which", lambda _: None)
    paths.look_again()
    yield installing
    paths.look_again()


def install(tmp_path: Path) -> str:
    """Leave what an installation leaves; returns its Python."""
    folder = tmp_path / "user" / "backend-1"
    python_of(folder).parent.mkdir(parents=True)
    python_of(folder).touch()
    finish(folder, {"version": "0.1.9", "device": "the processor", "note": "No card."})
    return str(python_of(folder))


def test_the_panel_offers_it_where_there_is_no_python(addon, installing, tmp_path: Path) -> None:
    from blender_addon import paths

    drawn = draw_panel(addon, "GSV3D_PT_backend")
    assert "gsv3d.backend_install" in drawn and any("is not installed" in text for text in drawn)
    install(tmp_path)
    paths.look_again()
    assert "gsv3d.backend_install" not in draw_panel(addon, "GSV3D_PT_backend")
    addon.session.get().backend.problem = explain_death(1, ["No module named backend"], tmp_path)
    assert "gsv3d.backend_install" in draw_panel(addon, "GSV3D_PT_backend")


def test_the_preferences_say_what_is_installed(addon, installing, tmp_path: Path) -> None:
    from blender_addon import backend_panel
    from tests.blender_addon.test_panels import CheckedLayout

    install(tmp_path)
    drawn: list[str] = []
    context = SimpleNamespace(region=None, preferences=addon.bpy.context.preferences)
    backend_panel.draw_install(CheckedLayout(addon.bpy, drawn), context)
    assert drawn[0] == "Backend 0.1.9 is installed, for the processor"
    assert {"No card.", "This extension brings 0.2.0.", "gsv3d.backend_install"} <= set(drawn)


def test_it_asks_whether_it_may_go_online(addon, installing, monkeypatch) -> None:
    from blender_addon import compat

    monkeypatch.setattr(compat, "online_access", lambda: False)
    assert not addon.bpy.ops.gsv3d.backend_install.poll()
    with pytest.raises(Problem, match="may not go online"):
        installing.start()
    assert not Pretended.made
    drawn = draw_panel(addon, "GSV3D_PT_backend")
    assert "Allow Online Access" in " ".join(drawn) and "screen.userpref_show" in drawn


def test_progress_is_shown_and_cancelled(addon, installing) -> None:
    assert addon.bpy.ops.gsv3d.backend_install() == {"FINISHED"}
    installer = Pretended.made[0]
    assert installing.watch.look() and not addon.bpy.ops.gsv3d.backend_install.poll()
    with pytest.raises(Problem, match="is being installed"):
        installing.start()
    assert "Downloading torch" in draw_panel(addon, "GSV3D_PT_backend")
    installer.text, installer.fraction = "Downloading torch: 1 of 2 MB", 0.5
    drawn = draw_panel(addon, "GSV3D_PT_backend")
    assert "Downloading torch: 1 of 2 MB" in drawn and "gsv3d.backend_install" not in drawn
    assert addon.bpy.ops.gsv3d.backend_install_cancel() == {"FINISHED"}
    assert installer.cancelled and not installing.watch.look()
    assert installing.watch.task is None and addon.bpy.ops.gsv3d.backend_install.poll()


def test_afterwards_the_backend_starts_from_it(addon, installing, tmp_path, monkeypatch) -> None:
    from blender_addon import preferences

    started = []
    session = addon.session.get()
    monkeypatch.setattr(session, "start_backend", lambda *place: started.append(place))
    installing.start()
    python = install(tmp_path)
    Pretended.made[0].state = State.DONE
    assert not installing.watch.look() and installing.watch.task is None
    place = preferences.backend_place()
    assert place.python == python
    assert started == [(python, place.connection_file, place.data_dir)]
    assert not installing.watch.look() and len(started) == 1


def test_one_that_is_done_is_told_before_the_next_begins(addon, installing, monkeypatch) -> None:
    """The timer looks four times a second."""
    used = []
    monkeypatch.setattr(installing.watch, "_on_done", lambda: used.append(None))
    installing.start()
    Pretended.made[0].state = State.DONE
    installing.start()
    assert len(used) == 1 and installing.watch.task is Pretended.made[1]


def test_what_failed_is_said_and_can_be_tried_again(addon, installing) -> None:
    installing.start()
    failed = Pretended.made[0]
    failed.state, failed.problem = State.FAILED, Problem("The disk is full.", "Free some space.")
    assert not installing.watch.look()
    drawn = draw_panel(addon, "GSV3D_PT_backend")
    assert {"The disk is full.", "Free some space.", "gsv3d.backend_install"} <= set(drawn)
    installing.start()
    assert installing.watch.task is Pretended.made[1]


def test_a_build_without_the_backend_opens_the_guide(
    addon, installing, packed, monkeypatch
) -> None:
    from blender_addon.operators import install as operators

    packed(None)
    drawn = draw_panel(addon, "GSV3D_PT_backend")
    assert "gsv3d.open_guide" in drawn and "gsv3d.backend_install" not in drawn
    assert not addon.bpy.ops.gsv3d.backend_install.poll()
    opened: list[Path] = []
    monkeypatch.setattr(operators, "open_with_system", opened.append)
    assert addon.bpy.ops.gsv3d.open_guide() == {"FINISHED"}
    assert "By hand" in opened[0].read_text("utf-8")


def test_disabling_the_extension_ends_it(installing) -> None:
    installing.start()
    installing.watch.close()
    assert Pretended.made[0].cancelled and installing.watch.task is None


def test_the_artists_choice_makes_way_for_what_was_installed(installing, monkeypatch) -> None:
    from blender_addon import preferences

    stored = SimpleNamespace(python="/old/python", torch_options="  --index-url x ")
    monkeypatch.setattr(preferences, "_stored", lambda: stored)
    assert preferences.torch_options() == "--index-url x"
    assert preferences.chosen_python() == "/old/python" and preferences.has_python()
    preferences.use_installed()
    assert not stored.python and not preferences.has_python()


def test_the_log_is_shown_and_stays_out_of_the_file(addon, monkeypatch) -> None:
    from blender_addon import log_files, preferences

    opened: list[Path] = []
    monkeypatch.setattr(log_files, "open_with_system", opened.append)
    data = preferences.backend_place().data_dir
    for name in log_files.LOGS:
        (data / name).unlink(missing_ok=True)
    with pytest.raises(RuntimeError, match="There is no log yet"):
        addon.bpy.ops.gsv3d.open_log()
    (data / "logs").mkdir(parents=True, exist_ok=True)
    (data / "logs" / "worker.log").write_text("the model was loaded")
    assert addon.bpy.ops.gsv3d.open_log() == {"FINISHED"}
    assert "the model was loaded" in opened[0].read_text("utf-8")
    assert not addon.bpy.data.texts
