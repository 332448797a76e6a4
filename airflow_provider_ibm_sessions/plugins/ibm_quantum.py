# SPDX-License-Identifier: Apache-2.0
"""
The plugin that Airflow discovers: a page under Browse, two tabs, and a card on the home page.

Every Airflow process loads it, and only the API server needs more than this module: so the routes are
imported at the first request to them.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowPlugin, conf

NAME = "IBM Quantum"
OPERATOR_NAMES = [
    "@task.ibm_quantum_jobs",
    "@task.ibm_quantum_session",
    "IBMQuantumCreateSessionOperator",
    "IBMQuantumJobResultsOperator",
    "IBMQuantumRunJobsOperator",
    "IBMQuantumSubmitJobOperator",
]
"""Operators whose tasks have something to show, as Airflow names them in its UI."""

URL_PREFIX = "/ibm-quantum"


class LazyApp:
    """An ASGI application that makes the real one at its first request."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on."""
        if self._app is None:
            # In a thread: the imports take longer than the API server's event loop may be held up.
            app = await asyncio.to_thread(_create_app)
            self._app = self._app or app
        await self._app(scope, receive, send)


def _create_app() -> Any:
    from airflow_provider_ibm_sessions.plugins._page.app import create_app

    return create_app()


def _react_apps() -> list[dict[str, Any]]:
    """
    Return where the page appears, all from one bundle.

    Airflow finds the component by its name, and resolves a relative URL in another way in each version: so
    the URL is an absolute path, without a host, which could be another origin than the browser's.
    """
    path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    common = {"bundle_url": f"{path}{URL_PREFIX}/static/page.js", "category": "browse"}
    apps = [
        {"name": NAME, "destination": "nav", "url_route": "ibm-quantum", **common},
        {"name": f"{NAME} cost", "destination": "dashboard", "url_route": "ibm-quantum-card", **common},
    ]
    if conf.getboolean("ibm_quantum", "ui_tabs", fallback=True):
        # Airflow reads applies_to from 3.4 on. Before, the tab is shown on each task of each Dag.
        scopes: dict[str, dict[str, Any]] = {
            "dag_run": {},
            "task_instance": {"applies_to": {"operator_name": OPERATOR_NAMES}},
        }
        apps += [
            {"name": NAME, "destination": where, "url_route": f"ibm-quantum-{where}", **scope, **common}
            for where, scope in scopes.items()
        ]
    return apps


def _fastapi_apps() -> list[dict[str, Any]]:
    return [{"name": NAME, "app": LazyApp(), "url_prefix": URL_PREFIX}]


class IBMQuantumPlugin(AirflowPlugin):
    """The page of IBM Quantum."""

    name = "ibm_quantum"
    fastapi_apps: list[Any] = _fastapi_apps()
    react_apps: list[Any] = _react_apps()
