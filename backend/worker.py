# SPDX-License-Identifier: Apache-2.0
"""The worker process that owns the model: `python -m backend.worker`, started by the server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from gsv3d.threads import let_threads_sleep, limit_threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker; the server starts it and greets it on standard input."""
    parser = argparse.ArgumentParser(prog="python -m backend.worker", description=main.__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--text-model", default="")
    parser.add_argument("--memory", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ray", default="", help="address of the Ray cluster to run the model in")
    parser.add_argument("--share", type=int, default=1, help="workers that share the cores")
    options = parser.parse_args(arguments)
    let_threads_sleep()
    limit_threads(options.threads, options.share)
    # What follows loads numpy, which reads the variables that are set now.
    if options.ray:
        from .ray_runner import ray_runner as make_runner
    else:
        from .model_runner import make_runner
    from .worker_runtime import serve_jobs

    return serve_jobs(lambda: make_runner(options))


if __name__ == "__main__":
    sys.exit(main())
