# SPDX-License-Identifier: Apache-2.0
"""The emulator: service, simulator and server in one object."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final, Self, cast

from .pages import Pages
from .server import Exchange, Server
from .service.clock import Clock
from .service.identity import Identity
from .service.responses import Response, error
from .service.service import IAM_PATH, QuantumService
from .service.settings import Settings
from .simulation.simulator import Simulator

if TYPE_CHECKING:
    from .service.requests import Request
    from .service.runner import JobRunner

DEFAULT_PORT: Final = 8717
IDENTITY: Final = Identity(
    api_key="emulator-api-key-which-opens-nothing-at-ibm",
    crn=f"crn:v1:bluemix:public:quantum-computing:us-east:a/{0:032x}:00000000-0000-4000-8000-000000000000::",
    user_id="IBMid-EMULATOR",
)
"""The same for every emulator, so that a connection outlives a restart. No secret: IBM knows none of it."""

_log = logging.getLogger(__name__)


class Emulator:
    """
    IBM Quantum and IAM on a port of 127.0.0.1. A context manager.

    Everything is kept in memory: sessions, jobs and results end with the emulator.
    """

    def __init__(
        self,
        *,
        port: int = DEFAULT_PORT,
        settings: Settings | None = None,
        speed: float = 1.0,
        seed: int | None = None,
        workers: int = 1,
        clock: Clock | None = None,
        runner: JobRunner | None = None,
    ) -> None:
        """
        Take the settings; nothing runs before ``start``.

        :param port: 0: a free one.
        :param speed: Seconds of the emulated service per second of real time. IBM's timestamps, TTLs, queues,
            running times and bills are in emulated seconds; tokens live in real time.
        :param seed: Seed of the simulations; None: other results each time.
        :param workers: Processes that compute jobs.
        :param clock: For tests: a clock that they move, for tokens as well.
        :param runner: For tests: computes jobs in place of a simulator.
        """
        self.port = port
        self.settings = settings or Settings()
        self.clock = clock or Clock(speed=speed)
        self._token_clock = clock or Clock()
        self._seed, self._worker_count, self._runner = seed, workers, runner
        self._simulator: Simulator | None = None
        self._server: Server | None = None

    def start(self) -> Self:
        """Listen, and load Qiskit in the background."""
        if self._runner is None:
            self._simulator = Simulator(workers=self._worker_count, seed=self._seed)
        runner = self._runner or cast("JobRunner", self._simulator)
        self.service = QuantumService(
            self.settings, self.clock, IDENTITY, runner, token_clock=self._token_clock
        )
        if self._simulator is not None:
            self._simulator.on_outcome = self.service.resolve
        self._pages = Pages(self.service)
        try:
            self._server = Server(self.port, self._answer)
        except OSError:
            self.stop()
            raise
        self.port = self._server.server_port
        return self

    def stop(self) -> None:
        """Cut all connections and end the simulations."""
        if self._server is not None:
            self._server.stop()
        if self._simulator is not None:
            self._simulator.close()
        self._server = self._simulator = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return the API's base URL."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def iam_url(self) -> str:
        """Return IAM's base URL."""
        return f"http://127.0.0.1:{self.port}"

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            response = self._respond(request)
        except Exception:  # noqa: BLE001  # the client must get a response
            _log.exception("%s %s failed: this is an error of the emulator", request.method, request.path)
            response = error(500, "The emulator failed; its output says why.")
        if request.method != "GET":
            _log.info("%s %s: %d", request.method, request.path, response.status)
        exchange.send(response)

    def _respond(self, request: Request) -> Response:
        is_api = request.path == IAM_PATH or request.path.startswith(("/v1/", "/api"))
        return self.service.handle(request) if is_api else self._pages.handle(request)


def connection(port: int) -> dict[str, Any]:
    """Return the Airflow connection to an emulator on this port, in Airflow's JSON form."""
    return {
        "conn_type": "ibm_quantum",
        "host": "http://127.0.0.1/api",
        # Airflow 3.3.2's Test button works only for connections that have a port.
        "port": port,
        "password": IDENTITY.api_key,
        "extra": {"crn": IDENTITY.crn, "iam_url": f"http://127.0.0.1:{port}", "emulator": True},
    }


def connection_line(port: int, conn_id: str = "ibm_quantum_default") -> str:
    """Return the shell command that makes an emulator on this port an Airflow connection."""
    return f"export AIRFLOW_CONN_{conn_id.upper()}='{json.dumps(connection(port))}'"
