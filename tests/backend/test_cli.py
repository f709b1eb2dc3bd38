# SPDX-License-Identifier: Apache-2.0
"""The command as its user runs it, in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.cli import main
from backend.protocol import (
    encode,
    parse_code,
    read_connection,
    write_connection,
)
from backend.protocol import messages as m
from tests.backend.client import Client
from tests.backend.conftest import Start, make_script, serve
from tests.backend.protocol.test_connection_file import make_connection
from tests.backend.test_pairing import find_free_port, make_code, use_code
from tests.fake_backend import FakeBackend


def test_pair_makes_codes_of_a_backend_that_listens(
    tmp_path: Path, run_server: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    port = find_free_port()
    listening = run_server(tmp_path, listen=("127.0.0.1", port))
    here = ["--connection-file", str(listening.path)]
    lines = []
    for options in ([], ["--address", "gpu.example"]):
        assert main(["pair", *here, *options]) == 0
        lines.append(capsys.readouterr().out.splitlines()[-1])
    first, second = map(parse_code, lines)
    assert (first.host, first.port) == ("127.0.0.1", port)
    assert (second.host, second.port) == ("gpu.example", port) and first.seed != second.seed
    assert main(["pair", *here, "--address", "two words"]) == 1
    assert "is not an address" in capsys.readouterr().err
    (tmp_path / "local").mkdir()
    local = run_server(tmp_path / "local")
    assert main(["pair", "--connection-file", str(local.path)]) == 1
    assert "serve --listen HOST" in capsys.readouterr().err


def test_the_command_reaches_a_backend_on_another_computer(
    tmp_path: Path, run_server: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    running = run_server(tmp_path, listen=("127.0.0.1", find_free_port()))
    path = tmp_path / "elsewhere" / "paired_backend.json"
    write_connection(path, use_code(make_code(running)))
    assert main(["status", "--connection-file", str(path)]) == 0
    assert "Jobs: none" in capsys.readouterr().out
    assert main(["stop", "--connection-file", str(path)]) == 1
    assert "on its own computer alone" in capsys.readouterr().err
    running.stop()
    assert main(["status", "--connection-file", str(path)]) == 1
    assert "started with --listen" in capsys.readouterr().err


def test_serve_prints_a_code_if_it_listens(tmp_path: Path) -> None:
    with serve(tmp_path, "--listen", f"127.0.0.1:{find_free_port()}") as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        assert "It works once, and for 10 minutes" in said[1]
        assert parse_code(said[2]).server_public_key in (tmp_path / "remote.json").read_text()


def test_serve_status_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server answers while the real worker still starts."""
    folder = tmp_path / "Jörgs Daten 椅子"
    here = ["--data-dir", str(folder)]
    path = folder / "connection.json"
    with serve(folder, "--device", "cpu") as process:
        assert main(["status", *here]) == 0
        out = capsys.readouterr().out
        assert f"process {process.pid}" in out and "Jobs: none" in out
        assert main(["status", "--json", *here]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["pid"], told["jobs"]) == (process.pid, [])
        command = [sys.executable, "-m", "backend", "serve", *here]
        second = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
        assert second.returncode == 1 and "Traceback" not in second.stderr
        assert "Another backend already uses" in second.stderr
        assert read_connection(path).pid == process.pid, "the first one's file is untouched"
        assert main(["stop", *here]) == 0
        assert process.wait(60) == 0
        assert not path.exists()
        assert "listening on" in (folder / "logs" / "backend.log").read_text(encoding="utf-8")


def test_status_and_stop_find_a_place_beside_all_clients(
    tmp_path: Path,
    run_server: Start,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.clients.MAX_PEERS", 1)
    monkeypatch.setattr("backend.cli.END_S", 0.0)  # the fixture closes the backend
    running = run_server(tmp_path)
    here = ["--connection-file", str(running.path)]
    with Client(running.path) as client, Client(running.path) as other:
        client.wait_for(m.Welcome)
        assert other.wait_for(m.Error).code == "busy"
        assert main(["status", *here]) == 0
        assert "Jobs: none" in capsys.readouterr().out
        assert main(["stop", *here]) == 1
        assert "was asked to end" in capsys.readouterr().err
        client.wait_for(m.Bye)


def test_status_watches(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    command = [sys.executable, "-m", "backend", "status", "--watch", "--connection-file"]
    watching = subprocess.Popen(
        [*command, str(running.path)], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert watching.stdout is not None
    lines = iter(watching.stdout.readline, "")
    assert any("Jobs: none" in line for line in lines)
    with Client(running.path) as client:
        client.session.submit(make_script(), filename="椅子.png")
        client.wait_for(m.Done)
        assert any("done" in line and "椅子.png" in line for line in lines)
        client.session.shutdown()
        client.wait_for(m.Bye)
    assert any("The backend has ended" in line for line in lines)
    assert watching.wait(60) == 0
    watching.stdout.close()


class QuietBackend:
    """Stand in for a socket to a backend that only answers pings, until it ends."""

    def __init__(self) -> None:
        self.now = 0.0
        pongs = [m.Pong()] * 20
        messages = [m.Welcome(6, "0.1.0"), m.Queue(), *pongs, m.Bye("It was asked to.")]
        self._frames = [encode(message, seq) for seq, message in enumerate(messages, 1)]

    def poll(self, _: int) -> bool:
        return True

    def send_multipart(self, _: object) -> None:
        pass

    def recv_multipart(self) -> list[bytes]:
        self.now += 2.0
        return self._frames.pop(0)


def test_status_watches_a_backend_where_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = QuietBackend()
    elsewhere = replace(make_connection(), pid=0)
    monkeypatch.setattr("backend.conversation.read_connection", lambda _: elsewhere)
    monkeypatch.setattr("backend.conversation.open_client", lambda *_: backend)
    monkeypatch.setattr("backend.conversation.time", SimpleNamespace(monotonic=lambda: backend.now))
    assert main(["status", "--watch"]) == 0
    assert "The backend has ended. It was asked to." in capsys.readouterr().out


def test_names_that_the_console_lacks_are_still_printed(tmp_path: Path) -> None:
    """Write to a file in another code page, as on Windows."""
    folder = tmp_path / "椅子"
    command = [sys.executable, "-m", "backend", "pair", "--list", "--data-dir", str(folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=100)
    assert done.returncode == 0 and done.stdout.rstrip().endswith(b"??.")


def test_logs_shows_the_log_of_each_job(
    tmp_path: Path, run_server: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert main(["logs", "--data-dir", str(data)]) == 1
    assert "no line in the logs" in capsys.readouterr().err
    running = run_server(tmp_path)
    with Client(running.path) as client:
        good = client.session.submit(make_script())
        fault = client.session.submit(make_script(fault_at=1))
        assert client.wait_for(m.Failed).job == fault
        dead = client.session.submit(make_script(print=3, die_at=1))
        client.wait_for(m.Failed, job=dead)
        client.wait_for(m.Done)
    assert main(["logs", "--data-dir", str(data)]) == 0
    assert "ZeroDivisionError: a fault" in capsys.readouterr().out
    assert main(["logs", "--data-dir", str(data), "--job", fault[:12]]) == 0
    out = capsys.readouterr().out
    assert "ZeroDivisionError: a fault" in out and good not in out
    assert main(["logs", "--data-dir", str(data), "--job", dead]) == 0
    assert "line 2" in capsys.readouterr().out
    assert main(["logs", "--data-dir", str(data), "--job", "f" * 32]) == 1
    with pytest.raises(SystemExit):
        main(["logs", "--job", "../x"])


def test_a_folder_without_logs_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").touch()
    assert main(["logs", "--data-dir", str(tmp_path / "data")]) == 1
    err = capsys.readouterr().err
    assert "cannot be used for the logs" in err and err.count("\n") == 1


def test_a_reader_that_has_seen_enough_ends_the_command(tmp_path: Path) -> None:
    """As `head` does."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "backend.log").write_text("a line\n")
    command = [sys.executable, "-m", "backend", "logs", "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (1, b"")


def test_a_watch_is_ended_by_its_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backend.status_command.converse", interrupt)
    codes = []
    with contextlib.suppress(KeyboardInterrupt):  # which would end all tests
        codes.append(main(["status", "--watch"]))
    assert codes == [130]
    assert capsys.readouterr().err == "gsv3d-backend: Stopped.\n"


def test_the_backend_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with serve(tmp_path, "--parent-pid", str(parent.pid)) as process:
        parent.communicate(b"\n")
        assert process.wait(60) == 0


def test_status_and_stop_without_a_backend_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("status", "stop"):
        assert main([command, "--data-dir", str(tmp_path)]) == 1
        err = capsys.readouterr().err
        assert "No backend is running" in err and "gsv3d-backend serve" in err


def test_a_backend_that_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with FakeBackend(tmp_path) as fake:
        left = replace(read_connection(fake.connection_path), data_dir=str(tmp_path / "other"))
        write_connection(fake.connection_path, replace(left, pid=ended.pid))
        assert main(["status", "--connection-file", str(fake.connection_path)]) == 1
        assert f"its process {ended.pid} has ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("behavior", "words"),
    [
        ("wrong_key", "the keys of the connection file"),
        ("silent", "No answer from the backend"),
        ("wrong_version", "protocol version"),
    ],
)
def test_a_backend_that_cannot_be_talked_to(
    tmp_path: Path,
    behavior: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.conversation.ANSWER_S", 2.0)
    with FakeBackend(tmp_path, behavior) as fake:
        assert main(["status", "--connection-file", str(fake.connection_path)]) == 1
        assert words in capsys.readouterr().err


def test_a_parent_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    options = ["serve", "--data-dir", str(tmp_path), "--parent-pid", str(ended.pid)]
    assert main(options) == 1
    assert f"no process {ended.pid}" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["x", "-1", "70000"])
def test_a_bad_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--port", port])
    assert caught.value.code == 2 and "port" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data-dir", "--connection-file"])
def test_an_empty_path_is_not_the_current_folder(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["status", option, ""])
    assert caught.value.code == 2 and f"{option}: the path is empty" in capsys.readouterr().err
