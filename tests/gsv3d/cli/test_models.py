# SPDX-License-Identifier: Apache-2.0
"""``gsv3d models`` as programs drive it, by lines of JSON, with a hub on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gsv3d.cli import main
from tests.gsv3d.loopback_hub import CONVERTER, LoopbackHub, serve
from tests.gsv3d.multiview import published

GSV3D = (sys.executable, "-m", "gsv3d")
LICENSE = "STABILITY AI LICENSE\nThis and not that.\n"

pytestmark = pytest.mark.usefixtures("own_models")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    weights = published.write_weights(tmp_path_factory.mktemp("weights") / "p", "p").read_bytes()
    return {"LICENSE.md": LICENSE.encode(), "sv3d_p.safetensors": weights}


class Program:
    """A process of ``gsv3d models ...``, whose lines are read one by one."""

    def __init__(
        self, environment: dict[str, str], *arguments: str, program: Sequence[str] = GSV3D
    ) -> None:
        self.process = subprocess.Popen(
            [*program, "models", *arguments, "--json", "--stop-at-eof"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout

    def next(self) -> dict[str, Any]:
        return json.loads(self.output.readline())

    def answer(self, words: str) -> None:
        self.input.write(f"{words}\n")
        self.input.flush()

    def end(self) -> tuple[list[dict[str, Any]], int]:
        """Read what is left, and return it with the exit code."""
        return [json.loads(line) for line in self.output], self.process.wait(60)


@pytest.fixture
def start() -> Iterator[Any]:
    """Return a function that starts the program with a hub; end the programs after the test."""
    started: list[Program] = []

    def begin(hub: LoopbackHub, *arguments: str, token: str = "", **options: Any) -> Program:
        environment = {**hub.environment(), "HF_TOKEN": token}
        started.append(Program(environment, *arguments, **options))
        return started[-1]

    yield begin
    for program in started:
        program.process.kill()
        program.input.close()
        program.output.close()
        program.process.wait()


def test_a_model_is_added_by_a_program(start: Any, files: Any, own_models: Path) -> None:
    with serve(files, token="hf_right") as hub:
        program = start(hub, "add", "sv3d-p", token="hf_right", program=CONVERTER)
        assert program.next() == {"license": LICENSE}
        program.answer("yes")
        lines, code = program.end()
    assert code == 0 and [p.name for p in own_models.iterdir()] == ["sv3d-p"]
    assert lines.pop() == {"path": str(own_models / "sv3d-p")}
    size = len(files["sv3d_p.safetensors"])
    phases = {line["phase"]: (line["done"], line["of"]) for line in lines}
    assert list(phases) == ["fetching", "checking", "converting"]
    assert phases["fetching"] == phases["checking"] == (size, size)
    assert phases["converting"][0] == phases["converting"][1]


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_when_the_program_goes_the_work_stops(
    start: Any, files: Any, own_models: Path, handler: Any
) -> None:
    """Stop the work even of a program in the background, where Ctrl+C is ignored."""
    with serve(files) as hub:
        hub.hold.set()
        before = signal.signal(signal.SIGINT, handler)
        program = start(hub, "add", "sv3d-p", "--agree")
        signal.signal(signal.SIGINT, before)
        assert program.next() == {"license": LICENSE}
        assert program.next()["phase"] == "fetching"
        program.input.close()
        hub.hold.clear()
        assert program.end()[1] == 130
    assert [p.name for p in own_models.iterdir()] == [".sv3d-p.download"]


def test_without_consent_nothing_is_fetched(start: Any, files: Any, tmp_path: Path) -> None:
    with serve(files) as hub:
        program = start(hub, "add", "sv3d-p")
        assert "license" in program.next()
        program.answer("no")
        lines, code = program.end()
    assert code == 2 and "not agreed to" in lines[-1]["error"]
    assert not list(tmp_path.rglob("*.safetensors*"))


def test_a_page_to_ask_at_is_told(start: Any, files: Any) -> None:
    with serve(files, token="hf_right") as hub:
        lines, code = start(hub, "add", "sv3d-p", token="hf_wrong").end()
        assert code == 2 and lines[-1]["page"] == f"{hub.address}/stabilityai/sv3d"
    assert "only to those who have agreed" in lines[-1]["error"]
    assert "hf auth login" in lines[-1]["hint"]


def test_the_other_version_is_refused_under_a_published_name(
    files: Any, tmp_path: Path, own_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sv3d ü.safetensors"
    path.write_bytes(files["sv3d_p.safetensors"])
    assert main(["models", "convert", str(path), "sv3d-u", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert "is SV3D_p, not SV3D_u" in said["error"] and said["hint"]
    assert not list(own_models.glob("*"))
