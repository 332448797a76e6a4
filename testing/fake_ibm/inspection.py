# SPDX-License-Identifier: Apache-2.0
"""Findings about requests that a well-behaved client would not send."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow_provider_ibm_sessions.emulator.service.instance import VERSIONS
from airflow_provider_ibm_sessions.emulator.service.service import IAM_PATH

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.emulator.service.requests import Request


def find_leaks(request: Request, api_key: str) -> list[str]:
    """Return the places, outside of IAM's form, where a request shows the raw API key."""
    places = [name for name, value in request.headers.items() if api_key in unquote(value)]
    if api_key in unquote(request.target):
        places.append("URL")
    if request.path != IAM_PATH and api_key.encode() in request.body:
        places.append("body")
    return [f"{request.method} {request.path}: API key in the {place}" for place in places]


def find_complaints(request: Request) -> list[str]:
    """Return which headers a request lacks that IBM asks for, although it would answer all the same."""
    headers = request.headers
    if not request.path.startswith("/v1/"):
        return []
    missing = []
    if headers.get("ibm-api-version") not in VERSIONS:
        missing.append("IBM-API-Version missing or unknown")
    accept = headers.get("accept", "")
    if "application/json" not in accept and not (request.path.endswith("/logs") and "text/plain" in accept):
        missing.append("Accept does not name application/json")
    if not headers.get("x-qx-client-application"):
        missing.append("X-Qx-Client-Application missing")
    if request.body and "application/json" not in headers.get("content-type", ""):
        missing.append("a body that is not declared as application/json")
    return [f"{request.method} {request.path}: {what}" for what in missing]
