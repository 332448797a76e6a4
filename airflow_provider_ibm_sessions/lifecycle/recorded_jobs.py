# SPDX-License-Identifier: Apache-2.0
"""Jobs that a function has made, stored so that a retry submits the same ones without calling it again."""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState

MAX_STORED_BYTES: Final = 1_000_000
"""Bytes up to which jobs are stored: a proxy in front of an Airflow API server lets 1 MiB pass by default."""


@dataclass(frozen=True)
class RecordedJobs:
    """
    The jobs that a function has made, and what it has returned.

    :param jobs: Their fields, as they are submitted; without ``params`` if those are not stored.
    :param returned: What the function returned, as plain JSON.
    :param digest: Of the jobs; None: to be computed.
    :param has_params: False if the jobs are without ``params``.
    """

    jobs: Sequence[Mapping[str, Any]]
    returned: Any
    digest: str = ""
    has_params: bool = True

    def __post_init__(self) -> None:
        """Compute the digest, if it is not known."""
        if not self.digest:
            text = json.dumps(self.jobs, sort_keys=True)
            object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def load(cls, state: TaskState) -> Self | None:
        """
        Return what the tries before have saved, or None.

        The jobs are without ``params`` if they were too large to be stored, or if Airflow has removed them
        since, as it does with task state after some time.
        """
        summary = state.recorded_jobs
        if summary is None:
            return None
        stored = state.get_recorded_content()
        try:
            content = json.loads(zlib.decompress(b64decode(stored))) if stored else {}
        except (ValueError, zlib.error):  # as if Airflow had removed them
            content = {}
        if jobs := content.get("jobs"):
            return cls(jobs, content["returned"], summary["digest"])
        bare = [{"private": private} for private in summary["private"]]
        return cls(bare, content.get("returned"), summary["digest"], has_params=False)

    def save(self, state: TaskState) -> None:
        """Save the jobs before the first is submitted; those that are too large by their digest only."""
        content = _encode({"jobs": self.jobs, "returned": self.returned})
        if len(content) > MAX_STORED_BYTES:
            content = _encode({"returned": self.returned})
        private = [bool(job.get("private")) for job in self.jobs]
        state.save_recorded_jobs({"digest": self.digest, "private": private}, content)


def _encode(value: Any) -> str:
    return b64encode(zlib.compress(json.dumps(value).encode())).decode()
