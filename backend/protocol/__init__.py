# SPDX-License-Identifier: Apache-2.0
"""The wire protocol between a client (Blender, a test, the command line) and the backend.

Standard library, numpy, msgpack and pyzmq only, relative imports only: a copy of this package
travels inside the Blender extension. docs/protocol.md describes every message.

A client, with its socket in a thread of its own::

    connection = read_connection(path)                # ConnectionFileError in words
    socket = open_client(zmq.Context(), connection)   # DEALER, CURVE, LINGER 0; in this thread
    session = ClientSession("my client 1.0")
    session.hello()
    job = session.submit(image=Path("chair.png").read_bytes(), filename="chair.png", seed=7)
    while running:
        for frames in session.outgoing():             # after every call: send what there is
            socket.send_multipart(frames)
        if socket.poll(50):
            events = session.feed(socket.recv_multipart())
        else:
            events = []
        for event in events + session.tick():
            ...

Events are instances of

- `messages.Welcome` (version, backend, models, device, limits; again when the device is known),
- `messages.Accepted`, `Progress` (phase, step, of, eta_s, fraction), `Done` (timings; after the
  last artifact), `Failed` (what, why, hint), `Cancelled`, `Queue` (jobs), `Bye`,
- `Received` (job, kind, artifact, arrays): "views" {images, azimuths}, "gaussians" {means, quats,
  scales, opacities, sh}, "mesh" {vertices, faces, corner_uvs, texture; some alpha}, "file" {data};
  `artifact.final`, `.step`, `.of` (Gaussians), `.pose` (mesh), `.name` (file: "glb", "ply", "png"),
- `messages.Error` (code, what, hint, job): not acted on; of code "version" nothing helps but an
  update,
- `Violation` (what, hint, job): the backend sent something invalid, which was ignored,
- `Silence` (seconds): no answer; `explain_silence(connection, path)` gives (what, hint). Close the
  socket, read the connection file again, open a new socket, `session.hello()`: open jobs are
  resubmitted or fetched by themselves.

`session.imagine("a wooden barrel")` makes a reference of words, with backends of version 2,
`session.cutout(image)` shows what is cut out of a picture, with backends of version 3; the
announcements of both its file and a mesh have `.certainty`, 0..1 or None.

Before the first welcome everything but hello is held back. When the results of a `Done` job are in
use, call `session.ack(job)`, so that others see it. They stay on the backend's disk until
`session.forget(job)`, and `session.fetch(job)` has them sent again (views, final Gaussians, mesh,
files, done). `session.retry(job)` does a failed or cancelled job again, `session.move(job, place)`
lets a waiting one jump the queue, and after `session.status(follow=True)` every change of the list
is told by a `Queue`.
"""

from __future__ import annotations

from . import arrays, limits, messages
from .codec import decode, encode
from .connection_file import (
    Connection,
    default_data_dir,
    read_connection,
    write_connection,
)
from .errors import ConnectionFileError, ProtocolError, VersionError
from .events import Event, Received, Silence, Violation
from .pairing import CODE_S, NEW_CODE, SPENT, PairingCode, pair, parse_address, parse_code
from .private import make_private_folder
from .processes import folder_in_use, process_exists
from .session import ClientSession
from .sockets import explain_silence, open_client
from .transfers import IncomingTransfer, OutgoingTransfer
from .versions import (
    ACKED_VERSION,
    IMAGINE_VERSION,
    JOB_VERSIONS,
    LIST_VERSION,
    PROTOCOL_VERSION,
    SUPPORTED_VERSIONS,
    TAG,
    negotiate,
)
