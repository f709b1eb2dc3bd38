# SPDX-License-Identifier: Apache-2.0
"""A data set being made: its shards, its record (dataset.json) and its DATASHEET.md."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from gsv3d.errors import GSV3DError, OutputError
from gsv3d.lab.datasets.datasheet import write_datasheet
from gsv3d.lab.datasets.orbits import OrbitSettings
from gsv3d.lab.datasets.packing import SHARD_BYTES, ShardFolder
from gsv3d.lab.datasets.records import FORMAT
from gsv3d.lab.datasets.shards import index_shards
from gsv3d.outputs import write_atomic

RECORD, DATASHEET = "dataset.json", "DATASHEET.md"


class Dataset:
    """A context manager around one run that renders into a folder.

    Args:
        directory: made if missing.
        settings: of all its objects, those of earlier runs included.
        command: that is run, for the datasheet.
        shard_bytes: of a shard, about.

    Attributes:
        folder: its shards; takes finished objects.
        recovered: on entering: sentences on damaged shards of earlier runs.

    Raises:
        OutputError: it cannot be written, or holds objects of other settings.
    """

    def __init__(
        self,
        directory: Path,
        settings: OrbitSettings,
        command: str,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.settings, self._command = settings, command
        self.folder = ShardFolder(directory, shard_bytes)
        self.recovered: list[str] = []
        self._path = self.folder.directory / RECORD
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Dataset:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.folder)
            self._open_record()
            self.recovered = self.folder.recover()
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What ended the run matters more than that its failures could not be noted either.
        with contextlib.suppress(GSV3DError) if error else contextlib.nullcontext():
            self._save()
        self.folder.__exit__(kind, error, trace)

    def _open_record(self) -> None:
        wanted = json.loads(json.dumps(self.settings.to_dict()))
        self._record = {"format": FORMAT, "settings": wanted, "commands": [], "failures": {}}
        if self._path.exists():
            try:
                there = json.loads(self._path.read_text(encoding="utf-8"))
                before, kind = there["settings"], there["format"]
                commands, failures = list(there["commands"]), dict(there["failures"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OutputError(
                    f"{self._path} is not the record of a data set of this version ({error}).",
                    "Choose another folder.",
                ) from error
            key = next((key for key in wanted if before.get(key) != wanted[key]), None)
            if kind != FORMAT or key is not None:
                what = f"{key} = {before.get(key)}, not {wanted[key]}" if key else f"format {kind}"
                raise OutputError(
                    f"{self.folder.directory} holds orbits rendered with {what}.",
                    "Use the same settings or another folder.",
                )
            self._record.update(commands=commands, failures=failures)
        if self._command not in self._record["commands"]:
            self._record["commands"].append(self._command)
        self._save()

    def _save(self) -> None:
        text = json.dumps(self._record, indent=1, ensure_ascii=False)
        write_atomic(self._path, (text + "\n").encode())

    def note(self, name: str, failure: str | None) -> None:
        """Keep why an object failed, or forget why it once did."""
        self._record["failures"].pop(name, None)
        if failure is not None:
            self._record["failures"][name] = failure

    def finish(self) -> None:
        """Pack what waits into shards and write the datasheet.

        Raises:
            OutputError: something cannot be written; running again goes on from there.
        """
        self.folder.pack()
        directory = self.folder.directory
        entries = index_shards(directory) if any(directory.glob("*.tar")) else []
        text = write_datasheet(
            [json.loads(entry.read_member("json")) for entry in entries],
            {path.name: path.stat().st_size for path in sorted(directory.glob("*.tar"))},
            self._record["settings"],
            self._record["commands"],
            self._record["failures"],
        )
        write_atomic(directory / DATASHEET, text.encode())
