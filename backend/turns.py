# SPDX-License-Identifier: Apache-2.0
"""The order in which waiting jobs are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .job import Job


def sort_by_turn(waiting: Iterable[Job], begun: Mapping[str | None, int]) -> list[Job]:
    """Return waiting jobs in the order they will be done in.

    Single jobs come before batches. Within both, clients take turns, beginning with the client
    whose last job began the longest ago. No job overtakes one of its own client.

    Args:
        waiting: oldest first.
        begun: for each client when its last job was begun, counted.
    """
    before: Counter[str | None] = Counter()  # jobs of a client that come before its next one
    batches: set[str | None] = set()  # clients one of whose batch has come
    turns = {}
    for job in waiting:
        owner = job.record.owner
        if job.record.batch:
            batches.add(owner)
        turns[job] = owner in batches, before[owner], begun.get(owner, 0), job.record.number
        before[owner] += 1
    return sorted(turns, key=turns.__getitem__)
