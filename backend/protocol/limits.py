# SPDX-License-Identifier: Apache-2.0
"""Every limit of the protocol in one place; docs/protocol.md lists them."""

from __future__ import annotations

MIB = 1 << 20

#: Bytes of a msgpack header.
HEADER_BYTES = 256 * 1024
#: Frames of one message: tag, header, at most one buffer.
FRAMES = 3
#: Bytes of an encoded picture in submit.
IMAGE_BYTES = 64 * MIB
#: Bytes of the data of one chunk.
CHUNK_BYTES = 256 * 1024
#: Bytes of all arrays of one transfer.
TRANSFER_BYTES = 512 * MIB
#: Transfers a client assembles at a time, and their bytes together.
OPEN_TRANSFERS = 16
OPEN_TRANSFER_BYTES = 1024 * MIB
#: Chunks a transfer may be owed at a time.
CREDIT_CHUNKS = 1024
#: Bytes of the largest frame that a client (which gets no pictures) and a server accept.
CLIENT_FRAME_BYTES = 1 * MIB
SERVER_FRAME_BYTES = IMAGE_BYTES + 64 * 1024
#: Views a model may be asked for.
VIEWS = 84
#: Jobs listed in one queue message.
QUEUE_ENTRIES = 256
#: Characters of a sentence, of a name, of a picture's label.
SENTENCE_CHARS = 2000
NAME_CHARS = 64
LABEL_CHARS = 255
#: Characters of the words a picture is made of, and of the path or id of a text-to-image model.
PROMPT_CHARS = 1000
PATH_CHARS = 1024

#: Seconds between two heartbeats, and of silence after which the other side counts as gone.
HEARTBEAT_S = 2.0
LIVENESS_S = 10.0
