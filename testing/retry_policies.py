# SPDX-License-Identifier: Apache-2.0
"""Retry policies of the client for tests."""

from __future__ import annotations

from typing import Any

from airflow_provider_ibm_sessions.client import client
from airflow_provider_ibm_sessions.client.retries import NO_RETRY, RetryPolicy

QUICK = RetryPolicy(max_elapsed=10, initial_backoff=0.05, max_backoff=0.2, list_lag=0.3)
"""The client's own retries, with short delays between them."""


def quick_retries(monkeypatch: Any) -> None:
    """Let clients retry with short delays."""
    monkeypatch.setattr(client, "RetryPolicy", lambda: QUICK)


def single_attempt(monkeypatch: Any) -> None:
    """Let clients send each request once, so that a test need not wait for their retries."""
    monkeypatch.setattr(client, "RetryPolicy", lambda: NO_RETRY)
