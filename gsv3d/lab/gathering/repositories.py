# SPDX-License-Identifier: Apache-2.0
"""Read single files of git repositories at a commit, with the git program.

A repository is fetched without its history and without its files, which git then brings as they
are asked for (a partial clone). Or it is read where it lies, from a folder of mirrors.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from gsv3d.errors import DataError
from gsv3d.outputs import make_folder

HOST = "https://github.com/"


def find_git() -> str:
    """Return the path of the git program.

    Raises:
        DataError: there is none.
    """
    git = shutil.which("git")
    if git is None:
        raise DataError("There is no git program.", "Install git (https://git-scm.com).")
    return git


class Repository:
    """A repository at a commit.

    Args:
        git_folder: its git folder, bare or not.
        commit: full hash of the commit.
        name: owner/name, for messages.
        partial: True if files must be fetched as they are needed.

    Attributes:
        git_folder: the folder, absolute.
        name: owner/name.

    Raises:
        DataError: the folder has no such commit.
    """

    def __init__(self, git_folder: Path, commit: str, name: str, partial: bool = False) -> None:
        self.git_folder = git_folder.resolve()
        self._git = [find_git(), "--git-dir", str(git_folder), "-c", "core.quotepath=off"]
        self._commit, self.name, self._partial = commit, name, partial
        done = self._run("cat-file", "-e", f"{commit}^{{commit}}")
        if done.returncode:
            raise DataError(
                f"The commit {commit[:10]} of {name} is not in {git_folder}.",
                "Fetch it again, or name another commit in the list of sources.",
            )

    def _run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self._git, *words], capture_output=True, stdin=subprocess.DEVNULL)

    def list_files(self) -> dict[str, str]:
        """Return the hashes of all files, by their paths with forward slashes.

        Raises:
            DataError: git cannot list them.
        """
        done = self._run("ls-tree", "-r", "-z", self._commit)
        if done.returncode:
            raise DataError(
                f"git cannot list the files of {self.name}: {_read_last_line(done.stderr)}."
            )
        found = {}
        for entry in done.stdout.decode(errors="replace").split("\0"):
            facts, _, path = entry.partition("\t")
            if " blob " in facts:
                found[path] = facts.split()[2]
        return found

    def fetch_files(self, paths: Iterable[str]) -> None:
        """Fetch files at once, and those beside and below them; nothing if all are there.

        Raises:
            DataError: git cannot fetch them.
        """
        folders = {str(PurePosixPath(path).parent) for path in paths}
        if not self._partial or not folders:
            return
        wanted = {
            digest
            for path, digest in self.list_files().items()
            if folders.intersection(map(str, PurePosixPath(path).parents))
        }
        options = ["--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin"]
        _call_git(
            [*self._git, "fetch", "--quiet", *options, "origin"],
            f"git cannot fetch files of {self.name}",
            "\n".join(sorted(wanted)),
        )

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            DataError: it is not in the repository, or its content was not fetched.
        """
        done = self._run("cat-file", "blob", f"{self._commit}:{path}")
        if done.returncode:
            raise DataError(
                f"{self.name} has no content of {path}: {_read_last_line(done.stderr)}."
            )
        return done.stdout

    def write_files(self, paths: Iterable[str], folder: Path) -> None:
        """Write files below a folder, under their paths; skip those without content."""
        for path in paths:
            try:
                data = self.read(path)
            except DataError:
                continue
            target = folder / PurePosixPath(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def open_mirror(folder: Path, name: str, commit: str) -> Repository | None:
    """Open a repository in a folder of mirrors; None if it is not there.

    Args:
        folder: the mirrors, ``owner+name/repo`` or ``owner+name``, bare or not.
        name: owner/name.
        commit: full hash of the commit.

    Raises:
        DataError: it is there, but without the commit.
    """
    place = folder / name.replace("/", "+")
    for candidate in (place / "repo" / ".git", place / "repo", place / ".git", place):
        if (candidate / "objects").is_dir():
            return Repository(candidate, commit, name)
    return None


def fetch(url: str, name: str, commit: str, folder: Path) -> Repository:
    """Fetch one commit of a repository, without history and without files.

    Args:
        url: address that git fetches from.
        name: owner/name, for messages.
        commit: full hash of the commit.
        folder: its git folder; if the commit is there already, nothing is fetched.

    Raises:
        DataError: git cannot fetch it: no network, no such repository or commit.
        OutputError: the folder cannot be made.
    """
    git = find_git()
    if not (folder / "objects").is_dir():
        make_folder(folder)
        _call_git([git, "init", "--quiet", "--bare", str(folder)], f"git cannot make {folder}")
        _call_git([git, "--git-dir", str(folder), "remote", "add", "origin", url], f"git: {folder}")
    try:
        return Repository(folder, commit, name, partial=True)
    except DataError:
        pass  # not there yet
    words = ["fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", commit]
    _call_git([git, "--git-dir", str(folder), *words], f"git cannot fetch {name} at {commit[:10]}")
    return Repository(folder, commit, name, partial=True)


def _call_git(words: Sequence[str], what: str, text: str = "") -> None:
    done = subprocess.run(words, capture_output=True, input=text.encode())
    if done.returncode:
        raise DataError(
            f"{what}: {_read_last_line(done.stderr)}.",
            "Check the network and the list of sources, or name a folder with --mirrors.",
        )


def _read_last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ").rstrip(".") if lines else "git says nothing"


def match(path: str, patterns: Iterable[str]) -> bool:
    """Tell whether a path fits a pattern with ``*`` and ``?``, whatever its case."""
    # Brackets stand in the names of folders.
    literal = [pattern.lower().replace("[", "[[]") for pattern in patterns]
    return any(fnmatch.fnmatchcase(path.lower(), pattern) for pattern in literal)
