# SPDX-License-Identifier: Apache-2.0
"""The list of what is not final. A long one is read in windows of time, side by side."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, Field, OnErrorOmit

from airflow_provider_ibm_sessions.client.client import AsyncIBMQuantumClient
from airflow_provider_ibm_sessions.client.models.base import MAX_ROWS_PER_PAGE, Time
from airflow_provider_ibm_sessions.client.models.instance import WorkloadFilter, WorkloadPage
from airflow_provider_ibm_sessions.client.models.jobs import JobFilter
from airflow_provider_ibm_sessions.client.models.paging import JobPaging, WorkloadPaging
from airflow_provider_ibm_sessions.client.operations import (
    LIST_JOBS,
    LIST_WORKLOADS,
    Flow,
    Operation,
    validate,
)

LISTED = "listed"
"""The state of a session in the list: IBM's ``pending`` may be ``open`` as well as ``inactive``."""

_ROWS_IN_SEQUENCE = 490
"""Rows that are read one page after the other, 10 pages of sessions; the rest is read in windows."""

_ROWS_PER_WAIT = 20
"""The most rows of a list for each wait: reading on would take more requests than it saves."""

_UNFINISHED = ["pending", "in_progress"]


class Listing(Enum):
    """The list that shows which sessions, or which jobs, are not final; the value holds its queries."""

    SESSIONS = tuple(
        {"mode": mode, "status": _UNFINISHED, "sort": "createdAt"} for mode in ("session", "batch")
    )
    JOBS = ({"pending": True, "sort": "ASC"},)


class _ListedSession(BaseModel):
    """The part of a listed session that is needed: to read all of it takes several times as long."""

    id: str = Field(min_length=1)
    status: str | None = None
    created: Time | None = None


class _SessionPage(WorkloadPage):
    # An odd row is left out, and so polled by itself: it is not to keep the others from sharing the list.
    workloads: list[OnErrorOmit[_ListedSession]] = Field(  # type: ignore[assignment]
        max_length=MAX_ROWS_PER_PAGE
    )


_LIST_SESSIONS = replace(LIST_WORKLOADS, response_model=_SessionPage)


class ListReader:
    """
    Reads a list once.

    :param waits: Those that share it. About as many rows are expected, and 20 times as many read at most.
    """

    def __init__(self, client: AsyncIBMQuantumClient, listing: Listing, waits: Sized) -> None:
        self._client = client
        self._listing = listing
        self._waits = waits
        self._created: list[list[datetime]] = [[] for _ in listing.value]
        self._rows_read = 0
        self.states: dict[str, str] = {}
        """The state of each id, as far as the list was read."""
        self.problems: list[str] = []
        """Why it was not read to its end."""

    @property
    def edges(self) -> list[list[datetime]]:
        """Return the edges of the windows in which the list is best read again, for each of its queries."""
        return [sorted(times)[_ROWS_IN_SEQUENCE::_ROWS_IN_SEQUENCE] for times in self._created]

    async def read(self, edges: Sequence[Sequence[datetime]], seconds: float) -> None:
        """
        Read the list. What takes longer than these seconds, or fails, is left out.

        :param edges: As the last reader of the list has found them; at first, there are none.
        """
        windows = ([None, *each, None] for each in edges)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._read_windows(*each) for each in enumerate(windows)))
        except TimeoutError:
            self.problems.append("it takes longer than the poll interval")

    async def _read_windows(self, number: int, edges: Sequence[datetime | None]) -> None:
        await asyncio.gather(*(self._read_window(number, *each) for each in pairwise(edges)))

    async def _read_window(self, number: int, after: datetime | None, before: datetime | None) -> None:
        """Read a window, and if it is long, what is left of it in smaller ones."""
        query = {**self._listing.value[number], "created_after": after, "created_before": before}
        try:
            left_from = await self._client.run_flow(self._read_pages(query, self._created[number]))
        except Exception as error:  # noqa: BLE001 - whatever failed, the waits go on without the list
            self.problems.append(str(error) or type(error).__name__)
            return
        if left_from is None or (before is not None and left_from >= before):
            return
        if self._is_too_long():
            self.problems.append("it is long, and few wait")
        elif after is not None and left_from <= after:
            self.problems.append("its filter created_after has no effect")
        else:
            await self._read_windows(number, [left_from, *self._edges_between(left_from, before), before])

    def _is_too_long(self) -> bool:
        return self._rows_read > _ROWS_PER_WAIT * len(self._waits)

    def _edges_between(self, start: datetime, end: datetime | None) -> list[datetime]:
        """Return edges of windows of the same length, as many as what is still expected may need."""
        windows = math.ceil((len(self._waits) - len(self.states)) / _ROWS_IN_SEQUENCE)
        length = ((end or datetime.now(UTC)) - start) / max(1, windows)
        # By our clock, the list may be of the future.
        return [start + length * number for number in range(1, windows) if length > timedelta(0)]

    def _read_pages(self, query: Mapping[str, Any], created: list[datetime]) -> Flow[datetime | None]:
        """
        Add states and times of a window, page by page.

        :returns: The time from which on some are left, if it is long.
        """
        paging: JobPaging | WorkloadPaging
        operation: Operation[Any]
        if self._listing is Listing.JOBS:
            paging = JobPaging(validate(JobFilter, query))
            operation = LIST_JOBS
        else:
            paging = WorkloadPaging(validate(WorkloadFilter, query))
            operation = _LIST_SESSIONS
        times: list[datetime] = []
        while paging.query:
            rows: list[Any] = paging.take((yield operation.call(**paging.parameters)))
            self._rows_read += len(rows)
            for row in rows:
                if self._listing is Listing.JOBS:
                    self.states[row.id] = row.final_status or ""
                elif row.status in _UNFINISHED:
                    self.states[row.id] = LISTED
            new_times = [row.created for row in rows if row.created]
            times += new_times
            created += new_times
            if paging.query is None or not times:
                continue
            # A window that started where all rows have the same time would be this one again.
            is_full = len(times) >= _ROWS_IN_SEQUENCE and times[0] < times[-1]
            if is_full or self._is_too_long():
                return times[-1]
        return None
