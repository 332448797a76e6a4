# SPDX-License-Identifier: Apache-2.0
"""
Does the matrix see? ``python -m tests.integration.fault_matrix.mutation_check`` spoils the package in one
way after another, and looks
whether the right column of the right cells tells.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from collections.abc import Callable
from typing import Any

from airflow_provider_ibm_sessions.client import errors, responses, retries, submission
from airflow_provider_ibm_sessions.client.operations import CLOSE_SESSION
from airflow_provider_ibm_sessions.client.recovery import Opening
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.lifecycle import sweep
from airflow_provider_ibm_sessions.lifecycle.sweep import Sweep
from airflow_provider_ibm_sessions.operators import session
from testing.airflow_home import AIRFLOW_HOME

from .cells import cells
from .runner import run_cell


def _sends_posts_again() -> None:
    """As a client does that takes every operation for one that may be repeated."""
    retries.is_retryable = lambda operation, error: error.retryable


def _never_looks_for_its_job() -> None:
    submission._settled = lambda *_: None
    submission._single = lambda client, tag, submitted=None: submitted


def _never_looks_for_its_session() -> None:
    Opening.find_settled = lambda *_: None


def _takes_any_session_for_its_own() -> None:
    Opening._fits = lambda *_: True


def _sweeps_everything() -> None:
    Sweep._verdict = lambda *_: sweep.Verdict.ORPHAN


def _writes_no_session_down() -> None:
    session.enter = lambda *_, **__: None


def _does_not_close() -> None:
    IBMQuantumHook.close_session = lambda self, name: self.get_session(name)


def _does_not_confirm() -> None:
    def close(self: Any, name: str) -> None:
        self.get_conn().close_session(name)

    IBMQuantumHook.close_session = close


def _closes_whatever_is_open() -> None:
    plain = IBMQuantumHook.close_session

    def close(self: Any, name: str) -> Any:
        for workload in self.list_workloads():
            self.get_conn()._call(CLOSE_SESSION, workload.id)
        return plain(self, name)

    IBMQuantumHook.close_session = close


def _tells_its_token() -> None:
    responses.clean = lambda text, request, most=None: f"{text} {request.headers.get('authorization')}"


def _breaks_on_trouble() -> None:
    def no_text(self: Any) -> str:
        raise KeyError("status")

    errors.IBMQuantumError.__str__ = no_text


SPOILT: dict[str, tuple[Callable[[], None], str, str]] = {
    "sends POST again": (_sends_posts_again, "create | 503 after | once | first | sync", "duplicates"),
    "submits again": (_never_looks_for_its_job, "submit job | 503 after | once | first | sync", "run twice"),
    "opens again": (_never_looks_for_its_session, "create | drop after | once | first | sync", "duplicates"),
    "adopts any": (_takes_any_session_for_its_own, "create | drop after | once | first | sync", "wrong told"),
    "sweeps all": (_sweeps_everything, "workloads | 503 before | once | first | sync", "others'"),
    "keeps no list": (_writes_no_session_down, "IAM | 503 before | for ever | later | sync", "lost"),
    "does not close": (_does_not_close, "close | 429 | once | first | sync", "lost"),
    "does not confirm": (_does_not_confirm, "close | 204 before | once | first | deferred", "wrong told"),
    "closes others'": (_closes_whatever_is_open, "close | 503 before | once | later | sync", "others'"),
    "tells its token": (_tells_its_token, "get | 503 before | once | first | deferred", "secrets"),
    "breaks": (_breaks_on_trouble, "submit job | 400 | once | first | sync", "wrong told"),
}


def is_seen(name: str) -> bool:
    """Spoil this process, and run one cell."""
    spoil, text, column = SPOILT[name]
    spoil()
    [cell] = [each for each in cells(text) if str(each) == text]
    return column in {found for found, _ in run_cell(cell).findings}


def main() -> int:
    try:
        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            seen = dict(zip(SPOILT, pool.map(is_seen, SPOILT, chunksize=1), strict=True))
    finally:
        shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)
    for name, found in seen.items():
        print(f"{name}: {'seen' if found else 'NOT SEEN'}")
    return int(not all(seen.values()))


if __name__ == "__main__":
    sys.exit(main())
