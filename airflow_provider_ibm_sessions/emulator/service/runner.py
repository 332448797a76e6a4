# SPDX-License-Identifier: Apache-2.0
"""The interface to the part that computes jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .records import JobRecord, Outcome


class JobRunner(Protocol):
    """The part that decides how jobs end and what they result in. Called under the service's lock."""

    def start(self, job: JobRecord) -> Outcome | None:
        """Return how a job just submitted will end, or None and pass it to ``Scheduler.resolve`` later."""

    def cancel(self, job: JobRecord) -> None:
        """Stop computing a job that has ended otherwise."""

    def results(self, job: JobRecord) -> Any:
        """Return the body of GET results for a completed job: JSON values, or bytes that are JSON."""
