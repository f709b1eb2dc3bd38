# SPDX-License-Identifier: GPL-3.0-or-later
"""Models in the panel and in the preferences; added, cancelled, converted by the real program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blender_addon import model_process
from blender_addon.events import Connected, ModelChoice
from blender_addon.model_process import ModelProcess
from blender_addon.problems import Problem
from blender_addon.tasks import State
from tests.blender_addon.test_panels import CheckedLayout, draw_panel
from tests.gsv3d.loopback_hub import CONVERTER, LoopbackHub, serve
from tests.waiting import wait_until

pytestmark = pytest.mark.bpy

LICENSE = "STABILITY AI LICENSE\n\nYou may do this and\nnot that, " + "and so on, " * 30
SV3D = "Stability AI's for SV3D"
KNOWN = (
    ModelChoice("blockout", license="apache-2.0"),
    ModelChoice("mine", True, "What I trained.", "", False, SV3D, "remove"),
    ModelChoice("sv3d-u", False, "21 views.", "'gsv3d models add'", False, SV3D, "add"),
    ModelChoice("gsv3d-576", False, "Untrained.", "Train one."),
)
ADD = ("add", "sv3d-p", "--json", "--stop-at-eof")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pytest.importorskip("torch")  # without it there is no program that adds models
    from tests.gsv3d.multiview import published

    weights = published.write_weights(tmp_path_factory.mktemp("weights") / "p", "p").read_bytes()
    return {"LICENSE.md": LICENSE.encode(), "sv3d_p.safetensors": weights}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of one's own models."""
    folder = tmp_path / "own models ü"
    monkeypatch.setenv("GSV3D_MODELS", str(folder))
    return folder


@pytest.fixture
def hub(files: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Serve a hub that gives its files only to those who have the token "hf_right"."""
    with serve(files, token="hf_right") as found:
        for name, value in found.environment().items():
            if name.startswith(("HF_", "NO_PROXY")):
                monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield found


@pytest.fixture
def changes(addon: Any, monkeypatch: pytest.MonkeyPatch, own: Path) -> Any:
    """Return the module `model_changes`, in a Blender that is online and has this Python."""
    from blender_addon import compat, model_changes, preferences

    monkeypatch.setattr(compat, "online_access", lambda: True)
    monkeypatch.setattr(preferences, "chosen_python", lambda: sys.executable)
    yield model_changes
    model_changes.watch.close()


def draw_preferences(addon: Any) -> list[str]:
    from blender_addon import model_panel

    drawn: list[str] = []
    context = SimpleNamespace(region=None, preferences=addon.bpy.context.preferences)
    model_panel.draw_models(CheckedLayout(addon.bpy, drawn), context)
    return list(filter(None, drawn))


def test_the_panel_shows_what_there_is_and_the_license_of_what_is_chosen(addon: Any) -> None:
    from blender_addon.properties import _known_models

    settings = addon.bpy.context.scene.gsv3d
    assert "model" not in draw_panel(addon, "GSV3D_PT_generate")
    addon.session.get().backend.connected = Connected("cpu", KNOWN)
    assert list(_known_models(None, None, "")) == [
        ("blockout", ""), ("mine", ""),
        ("sv3d-u", "not installed"), ("gsv3d-576", "not installed"),
    ]  # fmt: skip
    drawn = list(filter(None, draw_panel(addon, "GSV3D_PT_generate")))
    assert drawn.index("model") + 1 == drawn.index("License: apache-2.0")
    settings.model = "mine"
    assert f"License: {SV3D}" in draw_panel(addon, "GSV3D_PT_image")
    settings.model = "sv3d-u"
    drawn = draw_panel(addon, "GSV3D_PT_generate")
    said = {"sv3d-u is not installed.", "gsv3d.open_preferences", f"License: {SV3D}"}
    assert said <= set(drawn)


def test_the_preferences_offer_what_can_be_done(addon: Any, changes: Any) -> None:
    alone = " ".join(draw_preferences(addon))
    assert alone == "Start the backend to see and to change its models."
    addon.session.get().backend.connected = Connected("cpu", KNOWN)
    drawn = draw_preferences(addon)
    assert [text for text in drawn if text.startswith(("gsv3d.", "screen."))] == [
        "gsv3d.model_remove", "gsv3d.model_add", "gsv3d.model_convert",
    ]  # fmt: skip
    assert {f"License: {SV3D}", "What I trained.", "Train one."} <= set(drawn)
    assert "'gsv3d models add'" not in drawn
    older = (ModelChoice("blockout"), ModelChoice("sv3d-p", False))
    addon.session.get().backend.connected = Connected("cpu", older)
    assert not [text for text in draw_preferences(addon) if text.startswith("gsv3d.")]


def test_it_asks_whether_it_may_go_online(addon: Any, changes: Any, monkeypatch: Any) -> None:
    from blender_addon import compat

    monkeypatch.setattr(compat, "online_access", lambda: False)
    addon.session.get().backend.connected = Connected("cpu", KNOWN)
    assert "Allow Online Access" in " ".join(draw_preferences(addon))
    assert not addon.bpy.ops.gsv3d.model_add.poll()
    assert addon.bpy.ops.gsv3d.model_convert.poll()
    with pytest.raises(Problem, match="may not go online"):
        changes.start(ADD)
    assert changes.watch.task is None


def test_a_model_is_added_and_removed_while_the_backend_runs(
    addon: Any, changes: Any, hub: LoopbackHub, own: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(model_process, "PROGRAM", (*CONVERTER[1:], "models"))
    session = addon.session.get()
    session.start_backend(sys.executable, tmp_path / "connection.json", tmp_path / "data")

    def installed() -> list[str]:
        return [model.name for model in session.models() if model.installed]

    bpy = addon.bpy
    assert bpy.ops.gsv3d.model_add(model="sv3d-p", token="hf_right") == {"FINISHED"}
    process = changes.watch.task
    assert not bpy.ops.gsv3d.model_add.poll() and not bpy.ops.gsv3d.model_agree.poll()
    wait_until(lambda: process.state is not State.RUNNING)
    assert changes.watch.look() and process.license.split() == LICENSE.split()
    drawn = draw_preferences(addon)
    assert drawn[0] == "STABILITY AI LICENSE" and " ".join(drawn).count("and so on,") == 30
    assert drawn[-2:] == ["gsv3d.model_agree", "gsv3d.model_cancel"]
    assert bpy.ops.gsv3d.model_agree() == {"FINISHED"}
    wait_until(lambda: not process.runs)
    assert process.state is State.DONE, process.problem
    assert not changes.watch.look() and changes.watch.task is None
    addon.drain_until(lambda: "sv3d-p" in installed(), 120)
    (model,) = (model for model in session.models() if model.name == "sv3d-p")
    assert (model.decoder, model.change) == (False, "remove")
    assert "not for every commercial use" in model.license
    assert bpy.ops.gsv3d.model_remove(model="sv3d-p") == {"FINISHED"}
    wait_until(lambda: not changes.watch.look())
    assert list(own.iterdir()) == []
    addon.drain_until(lambda: installed() == ["blockout"], 60)


def test_cancelling_stops_the_program(addon: Any, changes: Any, hub: Any, own: Path) -> None:
    """The files that were downloaded are kept, half a model is not."""
    hub.hold.set()
    changes.start(ADD, "hf_right")
    process = changes.watch.task
    with pytest.raises(Problem, match="is being added"):
        changes.start(ADD)
    wait_until(lambda: process.state is State.ASKING)
    process.agree()
    wait_until(lambda: process.fraction is not None)
    assert "Downloading the model: " in " ".join(draw_preferences(addon))
    assert addon.bpy.ops.gsv3d.model_cancel() == {"FINISHED"}
    assert draw_preferences(addon)[0] == "Cancelling"
    hub.hold.clear()
    wait_until(lambda: not process.runs)
    assert process.state is State.CANCELLED and process.problem is None
    assert [path.name for path in own.iterdir()] == [".sv3d-p.download"]


def test_a_page_to_ask_at_is_one_button_away(addon: Any, changes: Any, hub: Any) -> None:
    changes.start(ADD, "hf_wrong")
    wait_until(lambda: not changes.watch.look())
    process = changes.watch.task
    assert process.page == f"{hub.address}/stabilityai/sv3d"
    drawn = draw_preferences(addon)
    said = " ".join(drawn)
    assert "only to those who have agreed to its conditions." in said
    assert "Then make an access token" in said and "hf auth login" not in said
    assert "wm.url_open" in drawn


def test_what_the_program_refuses_is_one_sentence(
    addon: Any, changes: Any, own: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")  # without it there is no program that adds models
    path = tmp_path / "Kopie von sv3d_p.safetensors"
    convert = addon.bpy.ops.gsv3d.model_convert
    assert convert(filepath=str(path), model="blockout") == {"FINISHED"}
    wait_until(lambda: not changes.watch.look())
    problem = changes.watch.task.problem
    assert problem.what == "There is a model 'blockout' already." and problem.hint
    assert " ".join(draw_preferences(addon)).startswith(str(problem))
    assert convert.poll() and not own.exists()
    assert convert(filepath=str(path)) == {"FINISHED"}
    assert "Kopie-von-sv3d-p" in changes.watch.task._command


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('gsv3d: unrecognized arguments: --json')", "unrecognized arguments"),
        ("import os; print('noise', flush=True); os._exit(7)", "failed: exit code 7"),
    ],
)
def test_a_program_that_fails_is_said(
    tmp_path: Path, monkeypatch: Any, program: str, words: str
) -> None:
    monkeypatch.setattr(model_process, "PROGRAM", ("-c", program))
    process = ModelProcess(sys.executable, ADD, tmp_path / "models.log", token="")
    process.start()
    wait_until(lambda: not process.runs)
    assert process.state is State.FAILED
    with pytest.raises(Problem, match=words):
        raise process.problem
    assert "Install Backend" in process.problem.hint


@pytest.mark.parametrize("said", ['{"error": "gone"}', "7", '{"phase": "fetching", "done": 1}'])
def test_a_program_that_speaks_otherwise_ends_the_task(
    tmp_path: Path, monkeypatch: Any, said: str
) -> None:
    """Run a program of another version, whose words are not understood."""
    program = f"import sys; print({said!r}, flush=True); sys.stdin.read()"
    monkeypatch.setattr(model_process, "PROGRAM", ("-c", program))
    process = ModelProcess(sys.executable, ADD, tmp_path / "models.log", token="")
    process.start()
    wait_until(lambda: not process.runs)
    assert process.state is State.FAILED and process.problem.what and process.problem.hint
    wait_until(lambda: process._child.poll() is not None)


def test_a_cancel_after_the_end_changes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(model_process, "PROGRAM", ("-c", """print('{"path": "x"}')"""))
    process = ModelProcess(sys.executable, ADD, tmp_path / "models.log", token="")
    process.start()
    assert process.join(60)
    process.cancel()
    assert process.state is State.DONE
