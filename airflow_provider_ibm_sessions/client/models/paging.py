# SPDX-License-Identifier: Apache-2.0
"""
Paging: from one page of a list to the query of the next, until the list ends.

A list must not end early unnoticed, since something is looked for in it: a lost session, a submitted job. Nor
may it go on for ever, whatever the server sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, Generic, TypeVar

from airflow_provider_ibm_sessions.client.errors import BadResponseError
from airflow_provider_ibm_sessions.client.models.instance import Workload, WorkloadFilter, WorkloadPage
from airflow_provider_ibm_sessions.client.models.jobs import Job, JobFilter, JobPage

MAX_ROWS: Final = 20_000
"""Different rows of one list. Eight hours, the longest session, have room for 14,400 jobs of two seconds."""
MAX_PAGES: Final = 1000
"""Pages of one list, so that a list of empty or repeated pages ends as well."""

QueryT = TypeVar("QueryT", WorkloadFilter, JobFilter)
PageT = TypeVar("PageT", WorkloadPage, JobPage)
RowT = TypeVar("RowT", Workload, Job)


class Paging(ABC, Generic[QueryT, PageT, RowT]):
    """
    Position in a list. Ask for ``query`` and hand each page to :meth:`take`, until ``query`` is None.

    :param query: Query of the first page.
    """

    def __init__(self, query: QueryT) -> None:
        self.query: QueryT | None = query
        self._pages = 0
        self._seen: set[str] = set()

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the query's fields, as the list operations take them."""
        return self.query.model_dump(exclude_none=True) if self.query else {}

    def take(self, page: PageT) -> list[RowT]:
        """
        Return the page's rows that no page before had, and go on to the next page.

        :raises BadResponseError: If the list does not end, or does not tell how it goes on.
        """
        if self.query is None:
            return []
        new = {row.id: row for row in self._rows(page) if row.id not in self._seen}
        self._seen.update(new)
        self._pages += 1
        self.query = self._next_query(self.query, page, has_new_rows=bool(new))
        if self.query and (self._pages >= MAX_PAGES or len(self._seen) >= MAX_ROWS):
            raise BadResponseError(
                f"The list does not end after {self._pages} pages with {len(self._seen)} rows. Narrow its "
                "filters, for example by created_after"
            )
        return list(new.values())

    @abstractmethod
    def _rows(self, page: PageT) -> list[RowT]:
        """Return the rows of a page."""

    @abstractmethod
    def _next_query(self, query: QueryT, page: PageT, *, has_new_rows: bool) -> QueryT | None:
        """Return the query of the page after this one, or None at the end of the list."""


class WorkloadPaging(Paging[WorkloadFilter, WorkloadPage, Workload]):
    """Position in the list of workloads, whose pages name the cursor of the next one."""

    def __init__(self, query: WorkloadFilter) -> None:
        super().__init__(query)
        self._cursors = {query.next}

    def _rows(self, page: WorkloadPage) -> list[Workload]:
        return page.workloads

    def _next_query(
        self, query: WorkloadFilter, page: WorkloadPage, *, has_new_rows: bool
    ) -> WorkloadFilter | None:
        cursor = page.next_cursor
        if cursor is None:
            rows = len(page.workloads)
            total = page.total_count
            # Less in all than on this page says nothing.
            is_complete = total is not None and rows <= total <= len(self._seen)
            if page.has_next and rows >= _page_size(query, page) and not is_complete:
                # To take it for the end of the list would hide what is on the pages after it.
                raise BadResponseError("List workloads: the link to the next page holds no cursor")
            return None
        if cursor in self._cursors:
            return None
        self._cursors.add(cursor)
        return query.model_copy(update={"next": cursor})


class JobPaging(Paging[JobFilter, JobPage, Job]):
    """Position in the list of jobs, which is asked for by offset."""

    def _rows(self, page: JobPage) -> list[Job]:
        return page.jobs

    def _next_query(self, query: JobFilter, page: JobPage, *, has_new_rows: bool) -> JobFilter | None:
        rows = len(page.jobs)
        offset = query.offset + rows
        # No more in all than on this page says nothing: it may be the number on the page.
        is_counted = page.count is not None and page.count > rows
        has_more = offset < (page.count or 0) if is_counted else rows >= _page_size(query, page)
        # IBM answers an offset that it does not like with the first page.
        return query.model_copy(update={"offset": offset}) if has_new_rows and has_more else None


def _page_size(query: WorkloadFilter | JobFilter, page: WorkloadPage | JobPage) -> int:
    """Return how many rows a page may have: a server may allow less than was asked for."""
    return min(query.limit, page.limit) if page.limit and page.limit > 0 else query.limit
