# SPDX-License-Identifier: Apache-2.0
"""The link between the server and its worker process: small msgpack maps over ZeroMQ with CURVE.

Payloads never travel on it: the worker writes them into the job's folder and names the file.

From the server: run(job, settings, folder), cancel(job), stop.
From the worker: ready(token, device, memory, devices, models), broken(token, what, hint),
models(models), progress(job, phase, step, of),
artifact(job, kind, fields, arrays, file), done(job, timings), failed(job, what, why, hint, fault),
cancelled(job), lost(why).
"""

from __future__ import annotations

from typing import Any

import msgpack

#: Bytes of a message: a picture's settings or an announcement, never data.
MAX_BYTES = 256 * 1024

#: Required fields and their types, by the type of message.
FROM_SERVER: dict[str, dict[str, type | tuple[type, ...]]] = {
    "run": {"job": str, "settings": dict, "folder": str},
    "cancel": {"job": str},
    "stop": {},
}
FROM_WORKER: dict[str, dict[str, type | tuple[type, ...]]] = {
    "ready": {"token": str, "device": str, "memory": int, "devices": list, "models": list},
    "broken": {"token": str, "what": str, "hint": str},
    "models": {"models": list},
    "progress": {"job": str, "phase": str, "step": int, "of": int},
    "artifact": {"job": str, "kind": str, "fields": dict, "arrays": list, "file": str},
    "done": {"job": str, "timings": dict},
    "failed": {"job": str, "what": str, "why": str, "hint": str, "fault": bool},
    "cancelled": {"job": str},
    "lost": {"why": str},
}


def pack(type_: str, /, **fields: Any) -> bytes:
    """Return the bytes of a message; letters that UTF-8 lacks become question marks."""
    return msgpack.packb({"type": type_, **fields}, unicode_errors="replace")


def unpack(data: bytes, kinds: dict[str, dict[str, type | tuple[type, ...]]]) -> dict[str, Any]:
    """Return the map of a message, its required fields checked.

    Raises:
        ValueError: it is not one of `kinds`.
    """
    try:
        message = msgpack.unpackb(data, strict_map_key=True, max_bin_len=0, max_ext_len=0)
    except Exception as error:
        raise ValueError("not valid msgpack") from error
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError("not a known type")
    for name, types in kinds[kind].items():
        if not isinstance(message.get(name), types):
            raise ValueError(f"{kind}: the field {name} is missing or of another type")
    return message
