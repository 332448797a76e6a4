# SPDX-License-Identifier: Apache-2.0
"""A service in a process of its own; ends with its standard input, and then prints what it used."""

from __future__ import annotations

import json
import sys
import threading
import time

from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.server.run import bind
from airflow_provider_ibm_sessions.server.service import client_factory
from benchmarks.memory import peak_mb, resident_mb


def main(kind: str, credentials: str) -> None:
    """Print the address, serve until the input ends, print what was measured."""
    factory = client_factory(Credentials(**json.loads(credentials)))
    if kind == "rest":
        from airflow_provider_ibm_sessions.server.rest import rest_app

        app = rest_app(factory)
    else:
        from airflow_provider_ibm_sessions.server.mcp import mcp_app

        app = mcp_app(factory)
    server, listener = bind(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    before, cpu = resident_mb(), time.process_time()
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    sys.stdin.read()
    took = {"rss": before, "peak": peak_mb(), "cpu": time.process_time() - cpu}
    server.should_exit = True
    thread.join()
    print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
