# SPDX-License-Identifier: Apache-2.0
"""Published models fetched from a fake hub that raises the real client's errors."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import huggingface_hub
import huggingface_hub.file_download
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from gsv3d.cli import main
from gsv3d.models import find
from gsv3d.multiview import convert
from tests.gsv3d.multiview import published

# The HTTP library of the hub's client, which depends on the client's version.
httpx = importlib.import_module(HTTPError.__module__.split(".")[0])
LICENSE = "You may use it for this and not for that."


class Hub:
    """A repository in a folder; ``failures`` are raised where a file of that name is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: dict[str, Exception] = {}
        self.fetched: list[str] = []
        self.sums: dict[str, str] = {}
        self.resumed: list[int] = []
        self.elsewhere: str | None = None

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        self.sums[name] = hashlib.sha256(content).hexdigest()

    def model_info(self, repo_id: str, files_metadata: bool, timeout: float) -> Any:
        assert repo_id == "stabilityai/sv3d" and files_metadata and timeout > 0
        self._fail("repository")
        files = [
            SimpleNamespace(rfilename=name, lfs=SimpleNamespace(sha256=digest))
            for name, digest in self.sums.items()
        ]
        card = SimpleNamespace(license="stabilityai-nc")
        return SimpleNamespace(siblings=files, sha="abc123", card_data=card)

    def download(self, repo_id: str, filename: str, *, revision: str, local_dir: Path) -> str:
        assert revision == "abc123"
        self._fail(filename)
        self.fetched.append(filename)
        target = local_dir / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.folder / filename).read_bytes())
        return str(target)

    def metadata(self, url: str) -> Any:
        name = url.rsplit("/", 1)[1]
        assert "stabilityai/sv3d/resolve/abc123/" in url
        return SimpleNamespace(
            location=self.elsewhere or url, size=(self.folder / name).stat().st_size
        )

    def get(
        self, url: str, file: BinaryIO, *, resume_size: int, headers: dict[str, str],
        expected_size: int, displayed_filename: str,
    ) -> None:  # fmt: skip
        assert ("authorization" in headers) == (self.elsewhere is None)
        content = (self.folder / displayed_filename).read_bytes()
        assert expected_size == len(content) and file.tell() == resume_size
        self.resumed.append(resume_size)
        self.fetched.append(displayed_filename)
        if displayed_filename in self.failures:
            file.write(content[resume_size : len(content) // 2])
            self._fail(displayed_filename)
        file.write(content[resume_size:])

    def _fail(self, name: str) -> None:
        if name in self.failures:
            raise self.failures[name]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> bytes:
    return published.write_weights(tmp_path_factory.mktemp("weights") / "p", "p").read_bytes()


@pytest.fixture
def hub(tmp_path: Path, own_models: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes) -> Hub:
    folder = tmp_path / "hub"
    folder.mkdir()
    found = Hub(folder)
    found.put("LICENSE.md", LICENSE.encode())
    found.put("README.md", b"words")
    found.put("sv3d_p.safetensors", weights)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", found.metadata)
    monkeypatch.setattr(huggingface_hub.file_download, "http_get", found.get)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setattr(convert, "UNET_HEAD", 32)
    return found


def answer_questions(answer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer the terminal's questions with ``answer``; None stands for no terminal."""

    def reply(question: str) -> str:
        assert "agree" in question and answer is not None
        if answer == "Ctrl-D":
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", reply)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: answer is not None))


@pytest.mark.parametrize(("options", "answer"), [(["--agree"], None), ([], "Yes")])
def test_a_model_is_fetched_once_its_license_was_shown_and_agreed_to(
    hub: Hub, own_models: Path, capsys, monkeypatch, options: list[str], answer: str | None
) -> None:
    answer_questions(answer, monkeypatch)
    assert main(["models", "add", "sv3d-p", *options]) == 0
    said = capsys.readouterr().out
    assert LICENSE in said and "The model 'sv3d-p' is in" in said
    assert hub.fetched == ["LICENSE.md", "sv3d_p.safetensors"]
    assert [p.name for p in own_models.iterdir()] == ["sv3d-p"]
    assert (find("sv3d-p") / "LICENSE.md").read_text("utf-8") == LICENSE
    assert main(["models", "info", "sv3d-p"]) == 0
    said = capsys.readouterr().out
    assert "not for every commercial use" in said and str(find("sv3d-p") / "LICENSE.md") in said
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2
    assert "There is a model 'sv3d-p' already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("no", "was not agreed to"),
        ("", "was not agreed to"),
        ("Ctrl-D", "was not agreed to"),
        (None, "give --agree if you do"),
    ],
)
def test_without_consent_the_weights_are_not_fetched(
    hub: Hub, own_models: Path, capsys, monkeypatch, answer: str | None, words: str
) -> None:
    answer_questions(answer, monkeypatch)
    assert main(["models", "add", "sv3d-p"]) == 2
    said = capsys.readouterr()
    assert LICENSE in said.out and words in said.err
    assert "sv3d_p.safetensors" not in hub.fetched and not (own_models / "sv3d-p").exists()


def test_a_repository_without_a_license_file_shows_what_its_card_says(hub: Hub, capsys) -> None:
    del hub.sums["LICENSE.md"]
    assert main(["models", "add", "sv3d-p", "--agree"]) == 0
    assert "The license of stabilityai/sv3d: stabilityai-nc." in capsys.readouterr().out
    assert (find("sv3d-p") / "LICENSE.txt").is_file()


def make_response(status: int) -> Any:
    return httpx.Response(status, request=httpx.Request("GET", "http://127.0.0.1/"))


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ("LICENSE.md", lambda: GatedRepoError("gated", response=make_response(401)),
         r"only to those who have agreed to its conditions. Log in on \S+/stabilityai/sv3d and"
         r" agree there, run 'hf auth login', then this command again"),
        ("sv3d_p.safetensors", lambda: GatedRepoError("gated", response=make_response(403)),
         "run 'hf auth login'"),
        ("repository", lambda: RepositoryNotFoundError("none", response=make_response(401)),
         "no repository stabilityai/sv3d, or you have no access to it"),
        ("repository", lambda: httpx.ConnectError("refused"), "does not answer for stabilityai"),
        ("sv3d_p.safetensors", lambda: httpx.ReadTimeout("slow"), "goes on where it stopped"),
        ("LICENSE.md", lambda: LocalEntryNotFoundError("no connection"), "does not answer"),
        ("repository", lambda: OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        ("sv3d_p.safetensors", lambda: HfHubHTTPError("busy", response=make_response(503)),
         r"refused stabilityai/sv3d \(status 503\)"),
        ("sv3d_p.safetensors", lambda: OSError("Consistency check failed"), "did not come whole"),
        ("sv3d_p.safetensors", lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
         "the disk is full"),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_sentence(
    hub: Hub, own_models: Path, capsys, where: str, error: Callable[[], Exception], words: str
) -> None:
    hub.failures[where] = error()
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.count("\n") == 1
    assert re.search(words, said)
    assert not (own_models / "sv3d-p").exists()


@pytest.mark.parametrize("elsewhere", [None, "https://127.0.0.1/signed"])
def test_what_was_fetched_before_is_gone_on_from(hub: Hub, elsewhere: str | None, weights) -> None:
    """Send the token to the hub alone, not to the server that keeps its files."""
    hub.elsewhere = elsewhere
    hub.failures["sv3d_p.safetensors"] = httpx.ReadTimeout("slow")
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2
    hub.failures.clear()
    assert main(["models", "add", "sv3d-p", "--agree"]) == 0
    assert hub.resumed == [0, len(weights) // 2]


def test_what_came_damaged_is_fetched_again(hub: Hub, tmp_path: Path, capsys) -> None:
    good = hub.sums["sv3d_p.safetensors"]
    hub.sums["sv3d_p.safetensors"] = "0" * 64
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2
    assert "came damaged" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".sv3d-p.download/*.safetensors"))
    hub.sums["sv3d_p.safetensors"] = good
    assert main(["models", "add", "sv3d-p", "--agree"]) == 0


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    hub: Hub, capsys, monkeypatch, weights
) -> None:
    hub.failures["sv3d_p.safetensors"] = httpx.ReadTimeout("slow")
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2  # half of it is there
    hub.failures.clear()
    free = len(weights) - 1_000_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2
    said = capsys.readouterr().err
    assert "need 0.1 GB, and the disk of" in said and "GSV3D_MODELS" in said
    assert hub.resumed == [0]
    free = len(weights)
    assert main(["models", "add", "sv3d-p", "--agree"]) == 0
    assert hub.resumed == [0, len(weights) // 2]


def test_what_was_fetched_of_a_model_can_be_removed(hub: Hub, own_models: Path, capsys) -> None:
    hub.failures["sv3d_p.safetensors"] = httpx.ReadTimeout("slow")
    assert main(["models", "add", "sv3d-p", "--agree"]) == 2
    assert [p.name for p in own_models.iterdir()] == [".sv3d-p.download"]
    assert main(["models", "remove", "sv3d-p"]) == 0
    assert not list(own_models.iterdir())
    assert main(["models", "remove", "sv3d-p"]) == 2
    assert "There is no model 'sv3d-p' in" in capsys.readouterr().err


def test_an_unpublished_name_and_a_missing_file_are_named(hub: Hub, capsys) -> None:
    assert main(["models", "add", "sv4d"]) == 2
    assert "No model 'sv4d' has been published. There are sv3d-p and sv3d-u" in (
        capsys.readouterr().err
    )
    assert main(["models", "add", "sv3d-u", "--agree"]) == 2
    assert "has no file sv3d_u.safetensors any more" in capsys.readouterr().err
