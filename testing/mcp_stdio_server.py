# SPDX-License-Identifier: Apache-2.0
"""Serves MCP over standard input and output, with credentials that the environment holds as JSON."""

from __future__ import annotations

import asyncio
import json
import os

from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.server.mcp_stdio import serve_stdio
from airflow_provider_ibm_sessions.server.service import client_factory

if __name__ == "__main__":
    asyncio.run(serve_stdio(client_factory(Credentials(**json.loads(os.environ["TEST_CREDENTIALS"])))))
