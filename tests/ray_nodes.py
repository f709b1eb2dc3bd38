# SPDX-License-Identifier: Apache-2.0
"""Ray clusters of some nodes on this machine; the nodes listen on loopback alone (conftest.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE = {"object_store_memory": 10**8, "node_ip_address": "127.0.0.1"}


@contextmanager
def start_nodes(*cpus: int) -> Iterator[Any]:
    """Start a cluster and end it.

    Args:
        cpus: processors of each node, the head's first.

    Yields:
        Ray's own Cluster; ``nodes`` are all but the head.
    """
    import ray
    from ray.cluster_utils import Cluster

    # The nodes must find the tests, whose functions they import.
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    for attempt in range(4):
        made = Cluster()
        try:
            made.add_node(**NODE, num_cpus=cpus[0], include_dashboard=False)
            made.nodes = [made.add_node(**NODE, num_cpus=count) for count in cpus[1:]]
            break
        except Exception as error:  # Ray's own class for a node that took over 30 s to start
            ray.shutdown()
            made.shutdown()
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
    yield made
    made.shutdown()
