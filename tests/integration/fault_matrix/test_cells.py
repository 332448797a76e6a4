# SPDX-License-Identifier: Apache-2.0
"""The fault matrix has every cell. ``make faults`` runs it."""

from __future__ import annotations

from itertools import product

from .cells import cells

OPERATIONS = ("IAM", "create", "get", "patch", "close", "workloads", "submit job")
ONCE = (
    *("connection refused", "connect timeout", "DNS", "TLS", "drop before", "drop after"),
    *("read timeout before", "read timeout after", "slow drip"),
    *("400", "401", "403", "404", "409", "423", "429", "429 Retry-After"),
    *(f"{status} {phase}" for status in (500, 502, 503, 504, 520) for phase in ("before", "after")),
    *(f"{what} {phase}" for what in ("HTML 200", "truncated JSON") for phase in ("before", "after")),
    *(f"{what} {phase}" for what in ("empty 200", "204", "50 MB") for phase in ("before", "after")),
)


def test_no_cell_is_missing():
    there = {str(cell) for cell in cells()}
    wanted = {*product(OPERATIONS, ONCE, ["once"], ["first", "later"], ["sync", "deferred"])}
    wanted |= {*product(OPERATIONS, ["401"], ["lasting"], ["first"], ["sync", "deferred"])}
    assert {" | ".join(parts) for parts in wanted} - there == set()


def test_the_matrix_does_not_shrink():
    assert len(list(cells())) >= 4496
