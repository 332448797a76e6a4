# SPDX-License-Identifier: Apache-2.0
"""Serves MCP over standard input and output, with credentials that the environment holds as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict

from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.server.mcp_stdio import serve_stdio
from airflow_provider_ibm_sessions.server.service import client_factory


def environment_for(credentials: Credentials) -> dict[str, str]:
    """The environment in which this program uses these credentials, which do not serialize by themselves."""
    facts = {**asdict(credentials), "api_key": credentials.api_key.reveal(), "proxy": None}
    return {"TEST_CREDENTIALS": json.dumps(facts)}


if __name__ == "__main__":
    asyncio.run(serve_stdio(client_factory(Credentials(**json.loads(os.environ["TEST_CREDENTIALS"])))))
