# SPDX-License-Identifier: Apache-2.0
"""A backend that listens for other computers lets in those that were paired, and nobody else."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from backend.cli import main
from backend.errors import BackendError
from backend.paired import PairedComputer, PairedComputers
from backend.pairing import Pairing
from backend.protocol import (
    CODE_S,
    Connection,
    PairingCode,
    ProtocolError,
    Received,
    decode,
    encode,
    open_client,
    pair,
    pairing,
    parse_code,
    write_connection,
)
from backend.protocol import messages as m
from backend.server import Server
from backend.settings import Settings
from backend.zap import Gatekeeper
from tests.backend.client import Client, is_let_in
from tests.backend.conftest import Running, Start, make_script


def find_free_port(host: str = "127.0.0.1") -> int:
    with open_context() as context, context.socket(zmq.REP) as probe:
        probe.ipv6 = True
        return probe.bind_to_random_port(f"tcp://{host}")


@pytest.fixture
def listening(tmp_path: Path, run_server: Start) -> Running:
    return run_server(tmp_path, listen=("127.0.0.1", find_free_port()))


def make_code(running: Running) -> PairingCode:
    with Client(running.path) as owner:
        owner.session.invite()
        invitation = owner.wait_for(m.Invitation)
    assert invitation.seconds == CODE_S
    return parse_code(invitation.code)


@contextmanager
def open_context() -> Iterator[zmq.Context]:
    context = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(0)


def use_code(code: PairingCode, name: str = "another computer") -> Connection:
    with open_context() as context:
        connection = pair(context, code, name)
    assert connection is not None
    return connection


def connect_client(folder: Path, connection: Connection) -> Client:
    path = folder / "elsewhere" / "connection.json"
    write_connection(path, connection)
    return Client(path)


def forget_computer(running: Running, name: str) -> int:
    return main(["pair", "--data-dir", str(running.path.parent / "data"), "--forget", name])


def test_a_pairing_and_a_forgetting_at_the_same_moment_are_both_kept(tmp_path: Path) -> None:
    """The command forgets a computer while the backend writes another one into the list."""
    backend, command = PairedComputers(tmp_path), PairedComputers(tmp_path)
    old, new = (PairedComputer(letter * 40, letter, "2026-01-01") for letter in "ab")
    backend.change(lambda _: [old])
    command.refresh()
    forgetting = threading.Thread(target=lambda: command.change(lambda _: []))

    def add(computers: list[PairedComputer]) -> list[PairedComputer]:
        forgetting.start()
        forgetting.join(0.3)
        return [*computers, new]

    backend.change(add)
    forgetting.join()
    assert PairedComputers(tmp_path).computers == []
    backend.refresh()
    assert backend.computers == []


def test_a_list_that_cannot_be_read_just_now_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows a file that another program has open may be refused for a moment."""
    backend, command = PairedComputers(tmp_path), PairedComputers(tmp_path)
    command.change(lambda _: [PairedComputer("a" * 40, "a", "2026-01-01")])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", raise_denied)
        with pytest.raises(BackendError, match="cannot be read"):
            backend.refresh()
    assert backend.refresh() and backend.computers == command.computers


def raise_denied(_: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_paired_computer_has_jobs_done(tmp_path: Path, run_server: Start, host: str) -> None:
    try:
        port = find_free_port(host if host != "localhost" else "127.0.0.1")
    except zmq.ZMQError:
        pytest.skip("this computer has no IPv6")
    running = run_server(tmp_path, listen=(host, port))
    connection = use_code(make_code(running))
    assert connection.remote and connection.alive and connection.data_dir == ""
    with connect_client(tmp_path, connection) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and [x.name for x in e.models])
        client.session.submit(make_script(), filename="/home/artist/Bild.png")
        client.wait_for(m.Done)
        assert {e.kind for e in client.events if isinstance(e, Received)} >= {"mesh", "gaussians"}


def test_a_name_is_listened_at_by_its_address_of_version_4(
    tmp_path: Path, run_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients connect to names by IPv4; Windows names an IPv6 address of the computer first."""
    resolve = socket.getaddrinfo

    def name_both(host: str, port: int, family: int = 0, *options: Any, **named: Any) -> Any:
        found = resolve("127.0.0.1", port, family, *options, **named)
        if family != socket.AF_INET:
            found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)), *found]
        return found

    monkeypatch.setattr(socket, "getaddrinfo", name_both)
    running = run_server(tmp_path, listen=("studio", find_free_port()))
    code = replace(make_code(running), host="localhost")
    assert use_code(code).host == "localhost"


def test_paired_computers_stay_known_after_a_restart(tmp_path: Path, run_server: Start) -> None:
    listen = ("127.0.0.1", find_free_port())
    first = run_server(tmp_path, listen=listen)
    connection = use_code(make_code(first))
    spent = make_code(first)
    first.stop()
    kept = tmp_path / "data" / "remote.json"
    if os.name == "posix":
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert connection.client_secret_key not in kept.read_text()
    run_server(tmp_path, listen=listen)
    with connect_client(tmp_path, connection) as client:
        client.wait_for(m.Welcome)
    with pytest.raises(ProtocolError, match="was used, its time is over"):
        use_code(spent)


def test_one_computer_is_forgotten_at_once(
    tmp_path: Path,
    listening: Running,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, status = listening.server, encode(m.Status(), 3)
    take = server._take

    def let_status_in(address: bytes, user: str, frames: list[bytes], now: float) -> None:
        with monkeypatch.context() as patch:
            if frames == status:
                patch.setattr(server.pairing, "knows", lambda _: True)
            take(address, user, frames, now)

    kept, gone = (use_code(make_code(listening), name) for name in ("Studio 椅", "Laptop"))
    with connect_client(tmp_path, gone) as client:
        client.wait_for(lambda e: isinstance(e, m.Welcome) and e.models)
        assert forget_computer(listening, "Laptop") == 0
        assert "Laptop is forgotten" in capsys.readouterr().out
        peers = server.clients.peers
        while gone.client_public_key in [peer.user for peer in list(peers.values())]:
            client.step()
        # It is still connected, and nobody hears what it says before its last message.
        before = len(client.events)
        monkeypatch.setattr(server, "_take", let_status_in)
        for message in (m.Hello((6,)), m.Submit("ab" * 16, make_script())):
            client.send_raw(*encode(message, 1))
        client.send_raw(*status)
        assert client.wait_for(m.Error).code == "no_session"
        assert not [e for e in client.events[before:] if isinstance(e, (m.Welcome, m.Accepted))]
        assert not list(server.jobs)
    assert not is_let_in(gone) and is_let_in(kept)
    use_code(make_code(listening), "Laptop")  # what was forgotten is not written again
    (studio, _), _ = list_paired(listening, capsys), forget_computer(listening, "2")
    assert studio.startswith("  1  Studio 椅  paired 20")
    assert list_paired(listening, capsys)[-1] == studio


def list_paired(running: Running, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["pair", "--data-dir", str(running.path.parent / "data"), "--list"]) == 0
    return capsys.readouterr().out.splitlines()


def test_who_is_not_paired_cannot_be_forgotten(
    tmp_path: Path, listening: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no computer is paired" in list_paired(listening, capsys)[0]
    for _ in range(2):
        use_code(make_code(listening), "twin")
    before = (tmp_path / "data" / "remote.json").read_bytes()
    for name in ("Twin", "0", "3", "-1", ""):
        assert forget_computer(listening, name) == 1
        error = capsys.readouterr().err
        assert f"No paired computer is called '{name}'. 'gsv3d-backend pair --list'" in error
    assert forget_computer(listening, "twin") == 1
    assert "2 paired computers are called 'twin'. Name one by its number" in capsys.readouterr().err
    assert (tmp_path / "data" / "remote.json").read_bytes() == before
    listening.stop()
    assert forget_computer(listening, "1") == 0 and len(list_paired(listening, capsys)) == 1
    assert forget_computer(listening, "twin") == 0


def test_a_list_that_is_damaged_while_the_backend_runs_changes_nothing(
    tmp_path: Path, listening: Running
) -> None:
    connection = use_code(make_code(listening))
    (tmp_path / "data" / "remote.json").write_text("{")
    listening.server.pairing.refresh()
    assert is_let_in(connection)


def test_a_code_works_once(listening: Running) -> None:
    code = make_code(listening)
    use_code(code)
    with pytest.raises(ProtocolError, match="was used.*gsv3d-backend pair"):
        use_code(code)
    assert len(listening.server.pairing._paired.computers) == 1


def test_a_code_is_not_used_twice_over_one_connection(listening: Running) -> None:
    """The code's key is no longer let in, but a client that came with it is still connected."""
    code = make_code(listening)
    answers = ask_as_guest(code, m.Pair("a" * 40, "a"), m.Pair("b" * 40, "b"), m.Hello((6,)))
    assert [type(answer) for answer in answers] == [m.Paired, m.Error, m.Error]
    assert [client.key for client in listening.server.pairing._paired.computers] == ["a" * 40]


def test_who_came_with_an_earlier_code_cannot_use_a_newer_one(listening: Running) -> None:
    """It is still connected, and does not know the newer code."""
    first = make_code(listening)
    with open_guest(first) as ask:
        assert isinstance(ask(m.Hello((6,))), m.Error)
        second = make_code(listening)
        answer = ask(m.Pair("a" * 40, "a"))
        assert isinstance(answer, m.Error) and "a newer one was made" in answer.what
    assert not listening.server.pairing._paired.computers
    use_code(second)


def ask_as_guest(code: PairingCode, *messages: m.Message) -> list[m.Message]:
    with open_guest(code) as ask:
        return [ask(message) for message in messages]


@contextmanager
def open_guest(code: PairingCode) -> Iterator[Callable[[m.Message], m.Message]]:
    """Connect with a code; yield a function that sends a message and returns the answer."""
    public, secret = (key.decode() for key in code.keys())
    guest = Connection(code.endpoint, code.server_public_key, public, secret, 0, {})
    with open_context() as context, open_client(context, guest) as socket:

        def ask(message: m.Message) -> m.Message:
            socket.send_multipart(encode(message, 0))
            assert socket.poll(20_000)
            return decode(socket.recv_multipart(), "server").message

        yield ask


def test_who_holds_a_code_can_only_pair(listening: Running) -> None:
    code = make_code(listening)
    wanted = (m.Hello((6,)), m.Shutdown(), m.Invite(), m.Submit("ab" * 16, b"x"))
    assert {answer.code for answer in ask_as_guest(code, *wanted)} == {"not_available"}  # type: ignore[attr-defined]
    assert not listening.errors and listening.server.jobs.get("ab" * 16) is None


def test_a_code_expires(listening: Running) -> None:
    code = make_code(listening)
    listening.server.pairing.expire(float("inf"))
    with pytest.raises(ProtocolError, match="its time is over"):
        use_code(code)


def test_a_newer_code_takes_the_place_of_the_earlier(listening: Running) -> None:
    first, second = make_code(listening), make_code(listening)
    with pytest.raises(ProtocolError, match="a newer one was made"):
        use_code(first)
    use_code(second)


def test_guesses_do_not_let_in_and_do_not_spend_the_code(listening: Running) -> None:
    code = make_code(listening)
    with open_context() as context:
        sockets = []
        for number in range(200):
            guess = replace(code, seed=number.to_bytes(16, "big"))
            public, secret = (key.decode() for key in guess.keys())
            connection = Connection(code.endpoint, code.server_public_key, public, secret, 0, {})
            sockets.append(open_client(context, connection))
            sockets[-1].send_multipart(encode(m.Pair("g" * 40, "guess"), 0))
        while listening.server.gate.refused < 200:
            sockets[0].poll(20)
        assert not any(socket.poll(0) for socket in sockets)
    assert not listening.server.pairing._paired.computers
    use_code(code)


def test_who_says_nothing_takes_no_place_and_is_sent_away(
    tmp_path: Path, listening: Running
) -> None:
    connection = use_code(make_code(listening))
    host, port = listening.server.settings.listen
    silent_ones = [socket.create_connection((host, port)) for _ in range(300)]
    try:
        with connect_client(tmp_path, connection) as client:
            client.session.submit(make_script())
            client.wait_for(m.Done)
        for one in silent_ones:
            one.settimeout(60)
            while one.recv(1000):  # the greeting of ZeroMQ, then the end
                pass
    finally:
        for one in silent_ones:
            one.close()


def test_another_backend_at_the_address_is_noticed(listening: Running) -> None:
    public, _ = zmq.curve_keypair()
    code = replace(make_code(listening), server_public_key=public.decode())
    with pytest.raises(ProtocolError, match="is not the backend that made this pairing code"):
        use_code(code)
    assert not is_let_in(Connection(code.endpoint, public.decode(), "a" * 40, "b" * 40, 0, {}))


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "ANSWER_S", 0.5)
    port = find_free_port()
    with pytest.raises(ProtocolError, match=f"No answer from the backend at 127.0.0.1:{port}.*--l"):
        use_code(PairingCode("127.0.0.1", port, zmq.curve_keypair()[0].decode(), bytes(16)))


def test_a_paired_computer_neither_invites_nor_ends_the_backend(
    tmp_path: Path, listening: Running
) -> None:
    with connect_client(tmp_path, use_code(make_code(listening))) as client:
        client.session.invite()
        assert client.wait_for(m.Error).code == "not_available"
        client.events.clear()
        client.session.shutdown()
        assert "its own computer" in client.wait_for(m.Error).what
        client.events.clear()
        client.session.status()
        client.wait_for(m.Queue)


def test_without_listen_there_is_no_code_and_no_file(tmp_path: Path, run_server: Start) -> None:
    running = run_server(tmp_path)
    with Client(running.path) as owner:
        owner.session.invite()
        assert "--listen HOST" in owner.wait_for(m.Error).hint
    assert not (tmp_path / "data" / "remote.json").exists()


def test_the_address_in_a_code_may_be_another(listening: Running) -> None:
    with Client(listening.path) as owner:
        owner.session.invite("gpu.example")
        code = parse_code(owner.wait_for(m.Invitation).code)
        assert (code.host, code.port) == ("gpu.example", listening.server.settings.listen[1])
        owner.events.clear()
        owner.session.invite("[2001:db8::1]")
        code = parse_code(owner.wait_for(m.Invitation).code)
        assert (code.host, code.port) == ("[2001:db8::1]", listening.server.settings.listen[1])
        owner.session.invite("not an address")
        assert "is not an address" in owner.wait_for(m.Error).what


@pytest.mark.parametrize("damage", ["{", "[]", json.dumps({"paired": []}), '{"paired": 3}'])
def test_a_damaged_list_is_named_and_kept(tmp_path: Path, damage: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "remote.json").write_text(damage)
    settings = Settings(
        tmp_path / "data", tmp_path / "c.json", listen=("127.0.0.1", find_free_port())
    )
    with pytest.raises(BackendError, match="remote.json.*is damaged.*Delete it"):
        Server(settings).start()
    assert (tmp_path / "data" / "remote.json").read_text() == damage


@pytest.mark.parametrize("host", ["192.0.2.1", "studio..local"])
def test_an_address_that_is_not_here_is_named(tmp_path: Path, host: str) -> None:
    settings = Settings(tmp_path / "data", tmp_path / "c.json", listen=(host, 27473))
    with pytest.raises(BackendError, match=f"27473 of {host} cannot be opened.*--listen"):
        Server(settings).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_backend_that_listens_everywhere_names_one_address(tmp_path: Path, host: str) -> None:
    with open_context() as context:
        gate = Gatekeeper(context)
        gate.allow_only(b"clients")
        code = Pairing(tmp_path, gate, (host, 27473)).invite(0.0)
        gate.close()
    assert code.host not in ("0.0.0.0", "[::]") and parse_code(str(code)) == code
