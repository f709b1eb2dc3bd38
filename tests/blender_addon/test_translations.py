# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of translations: nothing that artists read is missing, and fields are the same."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import guide

pytestmark = pytest.mark.bpy

ADDON = Path(__file__).resolve().parents[2] / "blender_addon"
BACKEND = ADDON.parent / "backend"
INTERFACE = [
    *(
        ADDON / f"{name}.py"
        for name in (
            "panels",
            "job_panel",
            "backend_panel",
            "model_panel",
            "preferences_panel",
            "layouts",
            "menus",
        )  # fmt: skip
    ),
    *sorted((ADDON / "operators").glob("*.py")),
]
COMMAND_LINE = {
    *("__main__", "arguments", "console", "headless", "preview_render", "result_files"),
    *("cli", "doctor", "journal", "logs", "metrics", "pair_command", "restoring"),
    *("serve_command", "status_command", "values"),
}
"""Modules that speak in a terminal, in English."""
SPEAKERS = [
    *(path for path in sorted(ADDON.rglob("*.py")) if path.stem not in COMMAND_LINE),
    *(path for path in sorted(BACKEND.glob("*.py")) if path.stem not in COMMAND_LINE),
    *(
        BACKEND / "protocol" / f"{name}.py"
        for name in (
            "connection_file", "errors", "incoming", "older_backends", "pairing", "session",
            "sockets", "versions",
        )
    ),
    *(
        ADDON.parent / "gsv3d" / f"{name}.py"
        for name in (
            "errors", "generation", "settings",
            "meshing/extract", "meshing/simplify", "meshing/surface",
            "preprocessing/framing", "preprocessing/loading",
            "text_to_image/drawing", "text_to_image/loading",
        )
    ),
]  # fmt: skip
"""Modules whose sentences reach the panel or a report; the command line shows the others."""
DETAILS = {
    # Of the backend's start, which its log tells, or of its command.
    "There is no process {} to serve.",
    "Give the id of a running process as --parent-pid, or leave it out.",
    "Port {} of 127.0.0.1 cannot be opened: {}.",
    "Another program may use it: choose another with --port, or leave --port out.",
    "The connection file {} cannot be written: {}.",
    "Check that its folder exists, is yours and has space left, or choose another with"
    " --connection-file.",
    "Port {} of {} cannot be opened: {}.",
    "Give --listen an address or name of this computer, and a port that is free.",
    "Give HOST or HOST:PORT, and write an IPv6 address as [ADDRESS] or [ADDRESS]:PORT.",
    "Pairing codes are made on the backend's own computer.",
    "Start it with 'gsv3d-backend serve --listen HOST'.",
    "The backend can be ended on its own computer alone.",
    "The backend listens on this computer alone.",
    "{}, which keeps the paired computers, is damaged.",
    "Delete it and start the backend again; then all have to pair anew.",
    "{} cannot be written: {}.",
    "Check that its folder is yours and has space left.",
    "Check that you may read it.",
    "The thread of the job has ended.",
    "There is no file {}.",
    "The Ray cluster at {} has {} to spare for a worker.",
    "End what else runs there, or serve with fewer --workers.",
    # Of settings that the panel does not have.
    "Give azimuths and elevations, or an orbit and its number of views.",
    # What only a fault of the program brings about.
    "The backend does not know this client.",
    "Say hello first.",
    "The backend chose protocol version {}, which was not offered.",
    "Transfer {} was announced twice.",
    "The backend announced more than can be taken.",
    "A chunk came of transfer {}, which is not known.",
    "Message {} of the backend is missing.",
    "The endpoint must be tcp://127.0.0.1:PORT.",
    "The endpoint must be tcp://HOST:PORT.",
    "With a pairing code one can only pair.",
    "The backend answered with {}.",
    "The field pid must be a process id.",
    "The field versions must be a map.",
    "The field data_dir must be text.",
    "The field {} must be a key of 40 characters.",
    "{} must be a whole number, not {}.",
    "{} must be {}..{}, not {}.",
    "{} must be a number, not {}.",
    "{} must be {}..{} degrees, not {}.",
    # Which file it was that the backend cannot read; which Python will not do, and why.
    "{} is a device or a pipe, not a picture.",
    "Choose a picture file.",
    "{} may not be read.",
    "Check the file's permissions.",
    "{} cannot be read: {}.",
    "{} {}.",
    # Of a cancelled job, whose state says it.
    "The generation was cancelled.",
    # A line of the log.
    "{}\nGoing on with the build that pip's index has.",
}
"""Sentences that stay English: technical details."""
DATA = {"GSV3D Batch", "{target.name} seed {seed}"}
"""Names of things, which stay as they are."""
SHOWN = {"interface", "report", "operator", "label", "prop", "draw_words", "Problem"}


def list_registered(bpy: Any) -> Iterator[str]:
    """Yield what Blender shows of the classes: names, tooltips, choices."""
    from blender_addon import registration

    for cls in registration._CLASSES:
        properties: Any = []
        if issubclass(cls, bpy.types.Operator):
            yield cls.bl_label
            yield cls.__doc__
            _, name = cls.bl_idname.split(".")
            properties = getattr(bpy.ops.gsv3d, name).get_rna_type().properties
        elif issubclass(cls, (bpy.types.PropertyGroup, bpy.types.AddonPreferences)):
            properties = cls.bl_rna.properties
        elif not issubclass(cls, bpy.types.UIList):
            yield cls.bl_label
        for prop in properties:
            if prop.is_hidden or prop.identifier in ("rna_type", "bl_idname", "name", prop.name):
                continue
            yield prop.name
            yield prop.description
            for item in prop.enum_items if prop.type == "ENUM" else ():
                yield item.name
                yield item.description


def name_called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", ""))


def list_texts(path: Path) -> Iterator[str]:
    """Yield the texts in a module of the interface: sentences, and what ``text=`` is given."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in joined for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_called(node) in SHOWN:
            texts = [*node.args, *(k.value for k in node.keywords if k.arg == "text")]
            for text in texts:
                if isinstance(text, ast.JoinedStr) and name_called(node) != "Problem":
                    words = re.sub(r"\{.*?\}", "", write_template(text))
                    assert not re.search("[a-z]{2}", words), f"{path.name}:{text.lineno}: {words}"
            for keyword in node.keywords:
                if keyword.arg == "text":
                    yield from list_constants(keyword.value)
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "text":
            yield from list_constants(node.value)
        text = write_template(node)
        if id(node) not in docstrings | inside and re.match(r"[A-Z{].*[a-z] ", text):
            yield text


def list_sentences(path: Path) -> Iterator[str]:
    """Yield the sentences in a module, with ``{}`` for what an f-string puts in."""
    tree = ast.parse(path.read_text("utf-8"))
    aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    aside |= {id(part) for node in joined for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) not in aside:
            # What follows a sentence is one of its own.
            for text in re.split(r"(?<=\.) (?=\S)", blank_fields(write_template(node)).strip()):
                text = re.sub(r"(?<=\.)\{\}$", "", text)
                if re.fullmatch(r"[A-Z{].* .*(\.|, \{\})", text, re.DOTALL) and "e.g." not in text:
                    yield text


def blank_fields(text: str) -> str:
    return re.sub(r"\{.*?\}", "{}", text)


def write_template(node: ast.AST) -> str:
    """Return a text as it stands in the table: what an f-string puts in is a field."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    return "".join(map(write_template, node.values)) if isinstance(node, ast.JoinedStr) else ""


def list_constants(node: ast.AST) -> Iterator[str]:
    for part in (node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,):
        if isinstance(part, ast.Constant) and part.value:
            yield part.value


def list_worked_out() -> Iterator[str]:
    """Yield what modules without bpy say in the panel."""
    from blender_addon import jobs, model_changes, requests
    from blender_addon.backend_link import BackendState
    from blender_addon.cutouts import CutOut
    from blender_addon.model_process import ModelProcess
    from gsv3d.models import SV3D_LICENSE

    yield from (state.value for state in BackendState)
    yield from (state.value for state in jobs.JobState)
    yield from (words for _, words, _ in jobs.PHASES + jobs.WORDS_PHASES)
    job = jobs.Job(requests.Words("a cup"), requests.Target("a cup"))
    job.what = "It is lame."
    for state in jobs.JobState:
        job.state, job.phase, job.step, job.of, job.eta_s = state, "denoising", 3, 16, 12.0
        yield job.describe()
    job.state, job.detached = jobs.JobState.ARRIVED, True
    yield job.describe()
    job.state, job.position = jobs.JobState.QUEUED, 2
    yield job.describe()
    job.state, job.elsewhere = jobs.JobState.DONE, True
    yield job.describe()
    for seconds in (-1.0, 1.0, 12.0, 70.0, 600.0, 90_000.0):
        yield f"Making views, {jobs.eta_text(seconds)}"
    process = ModelProcess(sys.executable, [], Path(), token="")
    for phase in ("fetching", "checking", "converting"):
        process._hear(json.dumps({"phase": phase, "done": 10**9, "of": 10**10}).encode())
        yield process.text
    process.cancel()
    yield process.text
    yield process._explain(1).hint
    yield model_changes.OFFLINE
    yield SV3D_LICENSE
    yield jobs.pose_words({"elevation": 12.0, "plane": 45.0})
    yield jobs.pose_words({"elevation": 12.0})
    cut = CutOut(requests.Cutting(b"", "cup.png"))
    for position, png, certainty in ((None, b"", None), (0, b"", None), (2, b"", None)):
        cut.position, cut.png, cut.certainty = position, png, certainty
        yield cut.describe()
    for certainty in (None, 0.4, 0.95):
        cut.png, cut.certainty = b"x", certainty
        yield cut.describe()
    for states in ("done", "done failed", "done cancelled", "failed cancelled"):
        book = jobs.JobBook()
        for index, state in enumerate(states.split()):
            target = requests.Target("a", batch="b", slot=index)
            book.add(jobs.Job(requests.Words("a"), target)).state = jobs.JobState(state)
        yield book.batch_summary("b")


@pytest.fixture
def german(monkeypatch) -> Any:
    """Have Blender in German; its package without a window has no languages."""
    from types import SimpleNamespace

    from blender_addon import translations

    def look_up(text: str) -> str:
        return translations.table().get(text, {"de": text})["de"]

    spoken = SimpleNamespace(pgettext_iface=look_up, pgettext_rpt=look_up, locale="de_DE")
    monkeypatch.setattr(
        translations, "bpy", SimpleNamespace(app=SimpleNamespace(translations=spoken))
    )
    return translations


def test_no_text_is_missing(addon) -> None:
    from blender_addon.translations import table

    texts = set(list_registered(addon.bpy))
    for path in INTERFACE:
        texts |= set(list_texts(path))
    missing = sorted(text for text in texts - DATA if text and text not in table())
    assert not missing, "\n".join(missing)


def test_every_sentence_that_reaches_artists_is_in_the_table(addon) -> None:
    from blender_addon.translations import table

    known = set(map(blank_fields, table()))
    said = {path: set(list_sentences(path)) for path in SPEAKERS}
    missing = {f"{path.name}: {text}" for path in said for text in said[path] - known - DETAILS}
    assert not missing, "\n".join(sorted(missing))
    assert DETAILS <= set().union(*said.values()), "nobody says that any more"


def test_every_sentence_is_found_again_by_its_values(german) -> None:
    for english, translated in german.table().items():
        if not re.search(r"[a-z]{2}", re.sub(r"\{.*?\}", "", english)):
            continue  # fields and signs alone
        values = {name: "12" for name in re.findall(r"\{(\w+)\}", english)}
        assert german.sentence(english.format(**values)) == translated["de"].format(**values)


def test_sentences_that_follow_each_other_are_translated_each(german) -> None:
    said = "Installing PyTorch failed. The disk is full. Nobody's sentence."
    wanted = "Fehlgeschlagen: PyTorch wird installiert. Der Datenträger ist voll."
    assert german.sentence(said) == f"{wanted} Nobody's sentence."


def test_names_that_are_words_of_the_table_stay(german) -> None:
    said = german.sentence("The image Image is too large to send: 9 MiB.")
    assert said == "Das Bild Image ist zu groß zum Senden: 9 MiB."
    said = german.sentence("Dr. Who is on the list already, with the same settings.")
    assert said == "Dr. Who ist mit denselben Einstellungen schon auf der Liste."


def test_what_modules_without_bpy_say_is_taken_apart(addon, german) -> None:
    for text in list_worked_out():
        assert german.sentence(text) != text, text


def test_values_stay_and_their_words_are_translated(german) -> None:
    assert german.sentence("Making views 3/16, about 12 s left") == ("Ansichten 3/16, noch ~12 s")
    assert german.sentence("failed: Something odd {x}.") == "fehlgeschlagen: Something odd {x}."
    assert german.sentence("Nobody's sentence.") == "Nobody's sentence."
    assert german.interface("Cut out of {name}", name="{a}.png") == "Freigestellt mit {a}.png"


def test_every_language_has_every_text_with_the_same_fields() -> None:
    from blender_addon.translations import LOCALES, table

    for english, translated in table().items():
        assert set(translated) == set(LOCALES), english
        for text in translated.values():
            assert sorted(re.findall(r"\{.*?\}", text)) == sorted(re.findall(r"\{.*?\}", english))
            assert text.strip() == text != ""
            assert text.endswith((".", "。")) == english.endswith("."), english
        wide = re.findall(r"[\u4e00-\u9fff]", translated["zh"])
        assert wide or not re.search("[a-z]{2}", english) or translated["zh"] == english, english


def test_blender_is_given_the_table_and_forgets_it(empty_blender, monkeypatch) -> None:
    import blender_addon
    from blender_addon import translations

    given: dict[str, Any] = {}
    monkeypatch.setattr(translations, "register", lambda: given.update(known=True))
    monkeypatch.setattr(translations, "unregister", lambda: given.clear())
    blender_addon.register()
    assert given
    blender_addon.unregister()
    assert not given


def test_every_name_in_the_guide_is_one_of_the_interface(addon) -> None:
    shown = set(list_registered(addon.bpy)).union(*map(list_texts, INTERFACE))
    from blender_addon.backend_link import BackendState

    shown |= {state.value for state in BackendState} | {text.rstrip(":") for text in shown}
    assert guide.list_names() - shown - {"bold"} == set()
    assert guide.list_presses() == [
        "Start",
        "Show Cut-out",
        "Generate",
        "Show Textures in This View",
    ]
