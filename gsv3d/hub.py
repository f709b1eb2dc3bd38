# SPDX-License-Identifier: Apache-2.0
"""Fetch published models from the Hugging Face hub, after their license was agreed to."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from gsv3d import own_models
from gsv3d.errors import ModelError
from gsv3d.models import PUBLISHED
from gsv3d.outputs import check_room, output_error


@dataclass(frozen=True)
class Source:
    """A repository of the hub and the file of a published model in it."""

    repository: str
    file: str


SOURCES = {
    name: Source("stabilityai/sv3d", f"sv3d_{version}.safetensors")
    for name, version in PUBLISHED.items()
}

TIMEOUT_S = 20.0

Progress = Callable[[str, int, int], None]
"""Called with the phase ("fetching", "checking", "converting"), its bytes done, and all of them."""


class AccessError(ModelError):
    """A repository that is not open to everybody; ``page`` is where to ask for access."""

    def __init__(self, message: str, hint: str, page: str) -> None:
        super().__init__(message, hint)
        self.page = page


def add(name: str, agreed: Callable[[str], bool], progress: Progress = lambda *_: None) -> Path:
    """Fetch a published model, check it, and make a model of your own of it.

    An earlier download is continued; the file is deleted at the end.

    Args:
        name: one of ``SOURCES``.
        agreed: shown the license's text; whether the user agrees to it.
        progress: told how far it is.

    Returns:
        The model's folder.

    Raises:
        ModelError: the name is taken, the license was not agreed to, the hub does not answer or
            gives this user no access, or the file came damaged.
        OutputError: the file cannot be written, as on a full disk.
    """
    from huggingface_hub import HfApi, hf_hub_download

    target = own_models.free_place(name)
    source = SOURCES[name]
    folder = own_models.download_folder(name)
    with _in_words(source, folder):
        found = HfApi().model_info(source.repository, files_metadata=True, timeout=TIMEOUT_S)
        files = {one.rfilename: one for one in found.siblings or ()}
        if source.file not in files:
            raise ModelError(
                f"The repository {source.repository} has no file {source.file} any more.",
                f"Get the file elsewhere, and run 'gsv3d models convert {source.file} {name}'.",
            )

        texts = {}
        for file in files:
            if re.match(r"licen[cs]e", file, re.IGNORECASE):
                path = hf_hub_download(
                    source.repository, file, revision=found.sha, local_dir=folder
                )
                texts[file] = Path(path).read_text("utf-8", errors="replace")
        if not texts:
            license = getattr(found.card_data, "license", None) or "not named"
            texts = {"LICENSE.txt": f"The license of {source.repository}: {license}.\n"}
        if not agreed("\n\n".join(texts.values())):
            raise ModelError("The license was not agreed to, so nothing was fetched.")
        weights = _fetch(source, str(found.sha), folder, progress)
        published = files[source.file].lfs
        if published is not None and _sha256(weights, progress) != published.sha256:
            weights.unlink()
            raise ModelError(
                f"{source.file} came damaged from {source.repository}: its checksum is not the"
                " published one.",
                "Run the same command again.",
            )
    own_models.convert(
        weights, name, PUBLISHED[name], lambda *done: progress("converting", *done), texts
    )
    shutil.rmtree(folder, ignore_errors=True)
    return target


class _Told:
    """A file that tells its size after each write."""

    def __init__(self, file: BinaryIO, told: Callable[[int], None]) -> None:
        self._file, self._told = file, told

    def write(self, data: bytes) -> int:
        count = self._file.write(data)
        self._told(self._file.tell())
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _fetch(source: Source, revision: str, folder: Path, progress: Progress) -> Path:
    """Fetch the weights, from where an earlier run stopped.

    The client's own ``hf_hub_download`` continues only within one run.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        build_hf_headers,
        disable_progress_bars,
        enable_progress_bars,
    )

    path = folder / source.file
    if path.is_file():
        return path
    url = hf_hub_url(source.repository, source.file, revision=revision)
    found = get_hf_file_metadata(url)
    headers = build_hf_headers()
    if urlsplit(found.location).netloc != urlsplit(url).netloc:
        # The file lies elsewhere, by a link that is signed: the user's token is not for there.
        headers.pop("authorization", None)
    partial = path.with_name(f"{path.name}.incomplete")
    folder.mkdir(parents=True, exist_ok=True)
    done = partial.stat().st_size if partial.exists() else 0
    # The model that is made of it takes half as much again.
    needed = (found.size or 0) * 3 // 2 - done
    check_room(f"{source.file} and the model made of it need", needed, folder)
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with open(partial, "ab") as file:
            told: Any = _Told(file, lambda done: progress("fetching", done, found.size or done))
            http_get(
                found.location, told, resume_size=file.tell(), headers=headers,
                expected_size=found.size, displayed_filename=source.file,
            )  # fmt: skip
    finally:
        if not silent:
            enable_progress_bars()
    os.replace(partial, path)
    return path


def _sha256(path: Path, progress: Progress) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file:
        while part := file.read(2**24):
            digest.update(part)
            progress("checking", file.tell(), size)
    return digest.hexdigest()


@contextmanager
def _in_words(source: Source, folder: Path) -> Iterator[None]:
    """Turn what the hub's client raises into sentences."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{source.repository}"
    later = "Look at your connection and run the same command again; it goes on where it stopped."
    try:
        yield
    except GatedRepoError as error:
        raise AccessError(
            f"{source.repository} gives {source.file} only to those who have agreed to its"
            " conditions.",
            f"Log in on {page} and agree there, run 'hf auth login', then this command again.",
            page,
        ) from error
    except RepositoryNotFoundError as error:
        raise AccessError(
            f"The hub has no repository {source.repository}, or you have no access to it.",
            f"Look at {page}, run 'hf auth login', then this command again.",
            page,
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"{source.repository} cannot be asked: HF_HUB_OFFLINE is set.",
            "Unset it, and run the same command again.",
        ) from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        raise ModelError(f"The hub refused {source.repository} (status {code}).", later) from error
    except (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise ModelError(f"The hub does not answer for {source.repository}.", later) from error
    except OSError as error:
        if error.errno is None:
            # The client's own, of a file that came shorter than was said.
            raise ModelError(
                f"{source.file} did not come whole from {source.repository}.", later
            ) from error
        raise output_error(folder, error) from error
