# SPDX-License-Identifier: Apache-2.0
"""
Runs of Qiskit's primitives, recorded as jobs instead of sent.

All primitives, old and new, hand their runs to one private method of the service. Here it is overridden; its
parameters are checked when a recorder is made.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.submission import validate_job
from airflow_provider_ibm_sessions.hooks.qiskit import AirflowRuntimeService, incompatible

from qiskit_ibm_runtime import QiskitRuntimeService, RuntimeEncoder, RuntimeJobV2  # isort: skip

try:
    from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS
    from qiskit_ibm_runtime.utils.validations import validate_isa_circuits
except ImportError as error:
    raise incompatible("params_converters or validate_isa_circuits") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qiskit_ibm_runtime import IBMBackend

    from airflow_provider_ibm_sessions.client.credentials import Credentials

_RUN_PARAMETERS: Final = (
    "self",
    "program_id",
    "inputs",
    "options",
    "result_decoder",
    "session_id",
    "start_session",
    "calibration_id",
    "dry_run",
)


class RecordedRun:
    """
    The return value of a primitive's ``run()`` that was recorded.

    It has the attributes of a job of Qiskit's, and each raises an error: there is no job yet.
    """

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or not hasattr(RuntimeJobV2, name):
            raise AttributeError(f"RecordedRun has no attribute {name}")
        raise ConfigurationError(
            f"{name}() of a job is not available: jobs of @task.ibm_quantum_jobs run after the function has "
            "returned, and the task returns their results. If Python has to run between jobs, use "
            "@task.ibm_quantum_session"
        )


class RecordingRuntimeService(AirflowRuntimeService):
    """
    A ``QiskitRuntimeService`` that reads from IBM, and records runs instead of sending them.

    :param backend: Name of the QPU that all runs must be for.
    :param use_fractional_gates: As for ``QiskitRuntimeService.backend``.
    :param calibration_id: As for ``QiskitRuntimeService.backend``.
    """

    read_only = True

    def __init__(
        self,
        credentials: Credentials,
        backend: str,
        *,
        use_fractional_gates: bool | None = False,
        calibration_id: str | None = None,
    ) -> None:
        found = tuple(inspect.signature(getattr(QiskitRuntimeService, "_run", object)).parameters)
        if found != _RUN_PARAMETERS:
            raise incompatible(f"QiskitRuntimeService._run({', '.join(_RUN_PARAMETERS)})")
        super().__init__(credentials)
        self.live_backend: IBMBackend = self.backend(
            backend, use_fractional_gates=use_fractional_gates, calibration_id=calibration_id
        )
        self.recorded_jobs: list[dict[str, Any]] = []
        """The fields of each job, as ``submit_once`` takes them."""

    def _run(
        self,
        program_id: str,
        inputs: dict[str, Any],
        options: Any = None,
        result_decoder: Any = None,
        session_id: str | None = None,
        start_session: bool | None = False,
        calibration_id: str | None = None,
        dry_run: bool = False,
    ) -> RecordedRun:
        """
        Record a run. Qiskit's primitives call this, with their options already resolved.

        :raises ConfigurationError: If it cannot be run in the task's session, or is larger than a job may be.
        :raises IBMInputValueError: If a circuit is not compiled for the QPU.
        """
        place = f"run {len(self.recorded_jobs) + 1} ({program_id})"
        fields: Mapping[str, Any] = options if isinstance(options, dict) else vars(options or object)
        backend = fields.get("backend")
        name = getattr(backend, "name", backend)
        if dry_run:
            raise ConfigurationError(f"{place}: dry_run is not supported by @task.ibm_quantum_jobs")
        if fields.get("image"):
            raise ConfigurationError(f"{place}: the option image is not supported by @task.ibm_quantum_jobs")
        if name != self.live_backend.name:
            raise ConfigurationError(
                f"{place} is for {name}: give primitives the function's argument as mode, mode=backend, "
                f"which is {self.live_backend.name}"
            )
        if program_id == "executor":
            self._check_circuits(inputs)
        job = {
            "program_id": program_id,
            "params": json.loads(json.dumps(inputs, cls=RuntimeEncoder)),
            "tags": fields.get("job_tags"),
            "cost": fields.get("max_execution_time"),
            "private": fields.get("private") or None,
            "log_level": (fields.get("log_level") or "").lower() or None,
            "calibration_id": calibration_id,
        }
        self.recorded_jobs.append(validate_job(job, place))
        return RecordedRun()

    def _check_circuits(self, inputs: dict[str, Any]) -> None:
        """
        Refuse circuits of the executor that are not compiled for the QPU.

        The V2 primitives check theirs. Those on the executor do not: IBM queues the job, and charges for its
        failure.
        """
        converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[inputs["schema_version"]]
        program, _ = converter.decoder(converter.model.model_validate(inputs))
        validate_isa_circuits([item.circuit for item in program.items], self.live_backend.target)
