# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_jobs``: a function whose runs of Qiskit's primitives become the jobs of a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.storable import RESERVED_KEYS
from airflow_provider_ibm_sessions.client.validation import (
    to_plain,
    validate_calibration_id,
    validate_fractional_gates,
)
from airflow_provider_ibm_sessions.decorators._function import call_digest, refuse_awaitable, reserve_argument
from airflow_provider_ibm_sessions.lifecycle.recorded_jobs import RecordedJobs
from airflow_provider_ibm_sessions.lifecycle.session import discard_previous_run
from airflow_provider_ibm_sessions.operators.run_jobs import SessionJobsOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, TaskDecorator

    from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState

_ARGUMENT = "backend"


class IBMQuantumJobsDecoratedOperator(SessionJobsOperator, DecoratedOperator):
    """
    Call the function, and run the jobs that it makes in a session of their own.

    The function's argument ``backend`` is a live backend of Qiskit's: the function compiles circuits for it,
    and calls primitives with ``mode=backend``. Nothing is sent meanwhile: their runs are recorded. Then a
    session is opened, each recorded job submitted exactly once, and the session drained. No worker is held
    while the jobs are queued. Returns a report for each run, in their order; what the function has returned
    is the XCom ``returned``.

    A retry does not call the function again, once its jobs are recorded, unless its code, its arguments, the
    Dag run's params, or an argument of the task that decides on the jobs have changed.

    :param use_fractional_gates: As for ``QiskitRuntimeService.backend``: True, False, or None for all gates.
    :param calibration_id: The calibration to compile for and to run with; None: IBM's default. (templated)

    Further arguments are those of :class:`SessionJobsOperator`.
    """

    custom_operator_name = "@task.ibm_quantum_jobs"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *SessionJobsOperator.template_fields,
        "calibration_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_kwargs: Mapping[str, Any] | None = None,
        use_fractional_gates: bool | None = False,
        calibration_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        op_kwargs = reserve_argument(python_callable, _ARGUMENT, kwargs.get("op_args"), op_kwargs)
        super().__init__(python_callable=python_callable, op_kwargs=op_kwargs, **kwargs)
        self.use_fractional_gates = validate_fractional_gates(use_fractional_gates)
        self.calibration_id = calibration_id
        self.check_literals(calibration_id=validate_calibration_id)

    def jobs_to_run(
        self, context: Context, state: TaskState, session_args: Mapping[str, Any]
    ) -> Sequence[Mapping[str, Any]]:
        """Return the jobs that an earlier try has recorded, or call the function; push what it returned."""
        target = self._target(session_args)
        arguments = [self.op_args, self.op_kwargs, dict(context["params"])]
        inputs = [call_digest(self.python_callable, arguments), target, session_args["mode"]]
        self.resume_or_start(state, inputs)
        recorded = RecordedJobs.load(state) if state.is_resumed else None
        count = len(recorded.jobs) if recorded else 0
        if recorded and (
            recorded.has_params or all(job for _, job in self.find_submitted_jobs(state, count).values())
        ):
            self.log.info("Resuming with %d recorded jobs: the function is not called again", count)
        else:
            earlier = recorded
            recorded = self._record_jobs(context, target)
            if earlier and earlier.digest != recorded.digest and state.retries_jobs:
                raise ConfigurationError(
                    f"{self.python_callable.__name__} must make the same jobs each time, so that jobs which "
                    "have failed can be submitted again: give the transpiler a seed, seed_transpiler=...",
                    field="python_callable",
                )
            if earlier and earlier.digest != recorded.digest:
                self.log.warning("The function made other jobs than in the last try: ending those")
                discard_previous_run(self.hook, state)
                state.start_again()
                self.session_id = None
            recorded.save(state)
        if recorded.returned is not None and self.do_xcom_push:
            context["ti"].xcom_push(key="returned", value=recorded.returned)
        return recorded.jobs

    def can_start_again(self, context: Context) -> bool:
        """Return True if the jobs are recorded: the function, called again, may make others."""
        from airflow_provider_ibm_sessions.lifecycle.task_state import TaskState

        return TaskState.load(context, self.task_id).is_durable

    def read_job_fields(self, state: TaskState) -> Sequence[Mapping[str, Any]]:
        """Return the recorded jobs; without ``params`` if those are not stored."""
        recorded = RecordedJobs.load(state)
        return recorded.jobs if recorded else []

    def _target(self, session_args: Mapping[str, Any]) -> dict[str, Any]:
        """Return the validated arguments that decide what circuits are compiled for."""
        return {
            "backend": session_args["backend"],
            "use_fractional_gates": self.use_fractional_gates,
            "calibration_id": validate_calibration_id(self.calibration_id),
        }

    def _record_jobs(self, context: Context, target: Mapping[str, Any]) -> RecordedJobs:
        """
        Call the function, and return the runs that it has made as jobs.

        :raises ConfigurationError: If it has made none, or has returned what is no JSON.
        """
        from airflow_provider_ibm_sessions.client.results import to_strict_json

        name = self.python_callable.__name__
        self.hook.require_qiskit()
        recorder = self.hook.qiskit_recorder(**target)
        arguments = {**context, **self.op_kwargs, _ARGUMENT: recorder.live_backend}
        returned = self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, arguments)
        )
        refuse_awaitable(self.python_callable, returned)
        self.raise_if_killed()
        if not recorder.recorded_jobs:
            raise ConfigurationError(
                f"{name} has run no primitive: call one's run() in it, such as "
                "Sampler(mode=backend).run([circuit])",
                field="python_callable",
            )
        try:
            plain = to_plain(returned, "returned")
            text = json.dumps(plain, allow_nan=False)
            if reserved := [key for key in RESERVED_KEYS if f'"{key}"' in text]:
                raise ValueError(f"Airflow reserves its key {reserved[0]}")
            if to_strict_json([plain]) != [plain]:
                raise ValueError("it holds an integer of more than 64 bits, NUL, or half a character")
        except (TypeError, ValueError, ConfigurationError) as error:
            raise ConfigurationError(
                f"{name} must return plain JSON (numbers, strings, lists, dicts) for the XCom returned, not "
                f"{type(returned).__name__}: {error}. No job was submitted. The results of the jobs are the "
                "return value of the task",
                field="returned",
            ) from error
        self.log.info("Jobs made by %s: %d", name, len(recorder.recorded_jobs))
        return RecordedJobs(recorder.recorded_jobs, plain)


def ibm_quantum_jobs_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """
    Wrap a function of an argument ``backend`` into a task that runs the jobs that it makes.

    In Dags it is ``@task.ibm_quantum_jobs(backend="ibm_fez", max_ttl="20m")``; arguments are those of
    :class:`IBMQuantumJobsDecoratedOperator`.
    """
    if kwargs.pop("multiple_outputs", None):
        raise ConfigurationError(
            "multiple_outputs cannot be set: the task returns a list, with a report for each job",
            field="multiple_outputs",
        )
    return task_decorator_factory(
        python_callable=python_callable,
        # Else Airflow concludes it from the function's annotation, which is that of the XCom `returned`.
        multiple_outputs=False,
        decorated_operator_class=IBMQuantumJobsDecoratedOperator,
        **kwargs,
    )
