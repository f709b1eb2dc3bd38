# SPDX-License-Identifier: Apache-2.0
"""Versions of the protocol, and the negotiation both sides do in hello and welcome.

The first frame of every message is the framing tag. Hello and its answer keep this framing in all
versions, so that two sides of different age can still tell each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import VersionError

TAG_PREFIX = b"GSV3D/"
TAG = b"GSV3D/1"
PROTOCOL_VERSION = 6
SUPPORTED_VERSIONS: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
#: The first version with pictures made of words: `imagine`, and files named "png".
IMAGINE_VERSION = 2
#: The first version with pictures cut out: `cutout`, and how certain a cut-out is.
CUTOUT_VERSION = 3
#: The messages that begin a job, and the first version of each.
JOB_VERSIONS = {"submit": 1, "imagine": IMAGINE_VERSION, "cutout": CUTOUT_VERSION}
#: The first version in which the backend may estimate the camera's elevation and a mirror plane.
POSE_VERSION = 3
#: The first version in which results are kept after `ack` until `forget`, and jobs have owners,
#: are done again and change places.
LIST_VERSION = 4
#: The first version in which `ack` is answered and memory can be freed.
ACKED_VERSION = 5
UPDATE_BACKEND = "Update the GSV3D backend (its Python environment) to the add-on's version."


def negotiate(theirs: Iterable[int], ours: Iterable[int] = SUPPORTED_VERSIONS) -> int:
    """Return the highest version both sides speak.

    Raises:
        VersionError: there is none; says which side is older and what to update.
    """
    their_list, our_list = sorted(theirs), sorted(ours)
    common = set(their_list) & set(our_list)
    if common:
        return max(common)
    spoken = ", ".join(map(str, their_list)) or "none"
    offered = ", ".join(map(str, our_list))
    client_older = not their_list or max(their_list) < max(our_list)
    hint = "Update the GSV3D add-on in Blender." if client_older else UPDATE_BACKEND
    raise VersionError(
        f"The client speaks GSV3D protocol version {spoken}, the backend version {offered}.", hint
    )
