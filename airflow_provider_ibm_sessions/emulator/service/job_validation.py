# SPDX-License-Identifier: Apache-2.0
"""Checks on the body of POST /v1/jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .reason_codes import BACKEND_RESERVED, SESSION_CLOSED, reason_of
from .responses import Response, bad_request, error, not_found, unknown_calibration

if TYPE_CHECKING:
    from .scheduler import Scheduler

PROGRAMS = frozenset({"sampler", "estimator", "noise-learner", "executor", "calibrate"})
FIELDS = frozenset(
    {
        "program_id",
        "backend",
        "session_id",
        "params",
        "tags",
        "cost",
        "log_level",
        "private",
        "calibration_id",
        "runtime",
    }
)
LOG_LEVELS = frozenset({"critical", "error", "warning", "info", "debug"})
PARAMS = {
    "sampler": frozenset({"pubs", "options", "shots", "support_qiskit", "version"}),
    "estimator": frozenset({"pubs", "options", "resilience_level", "precision", "support_qiskit", "version"}),
}
SAMPLER_OPTIONS = frozenset(
    {"default_shots", "dynamical_decoupling", "execution", "twirling", "simulator", "experimental"}
)


def validate_job(body: Any, scheduler: Scheduler, now: float) -> Response | None:
    """
    Return the error for a wrong body of POST /v1/jobs (IBM's API reference), or None.

    IBM documents no response for a session that accepts no jobs, so its status is a setting.
    """
    if not isinstance(body, dict):
        return bad_request("The request body must be a JSON object.")
    if scheduler.limit_reached(now):
        return error(409, "The instance's usage limit has been reached.")
    wrong = _validate_fields(body, scheduler) or _validate_params(body) or _validate_session(body, scheduler)
    if wrong is None and scheduler.settings.backends[body["backend"]].is_reserved:
        return error(423, reason_of(BACKEND_RESERVED), BACKEND_RESERVED)
    return wrong


def _validate_fields(body: dict[str, Any], scheduler: Scheduler) -> Response | None:
    if unknown := set(body) - FIELDS:
        return bad_request(f"Unknown field: {sorted(unknown)[0]}.")
    if body.get("program_id") not in PROGRAMS:
        return not_found(f"Program not found: {body.get('program_id')}")
    if body.get("backend") not in scheduler.settings.backends:
        return not_found("device not found")
    cost = body.get("cost", 0)
    if isinstance(cost, bool) or not isinstance(cost, int | float) or cost < 0:
        return bad_request("cost must be a number of seconds, 0 or more.")
    if not isinstance(body.get("private", False), bool):
        return bad_request("private must be a boolean.")
    # Qiskit writes it in capitals.
    if str(body.get("log_level", "info")).lower() not in LOG_LEVELS:
        return bad_request("log_level must be one of critical, error, warning, info, debug.")
    calibration = body.get("calibration_id") or ""
    if len(str(calibration)) > 100:
        return bad_request("calibration_id must have at most 100 characters.")
    if not scheduler.settings.backends[body["backend"]].has_calibration(calibration):
        return not_found(unknown_calibration(calibration))
    return validate_tags(body.get("tags", []))


def validate_tags(tags: Any) -> Response | None:
    """Return the error for wrong tags, or None: at most 8 of at most 86 characters."""
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        return bad_request("tags must be a list of strings.")
    if len(tags) > 8 or any(len(tag) > 86 for tag in tags):
        return bad_request("At most 8 tags are allowed, of at most 86 characters each.")
    return None


def _validate_params(body: dict[str, Any]) -> Response | None:
    params, program = body.get("params", {}), body["program_id"]
    if not isinstance(params, dict):
        return bad_request("params must be an object.")
    allowed = PARAMS.get(program)
    if allowed is None:
        return None
    if unknown := set(params) - allowed:
        return bad_request(f"params has an unknown field: {sorted(unknown)[0]}.")
    if not isinstance(params.get("pubs"), list) or not params["pubs"]:
        return bad_request("params.pubs must be a list with at least one entry.")
    if params.get("version", 2) != 2:
        return bad_request("params.version must be 2.")
    return _validate_options(params.get("options", {}), program)


def _validate_options(options: Any, program: str) -> Response | None:
    if not isinstance(options, dict):
        return bad_request("params.options must be an object.")
    # IBM's own guide shows options.transpilation; its schema refuses that key.
    odd = set(options) - SAMPLER_OPTIONS if program == "sampler" else set(options) & {"transpilation"}
    return bad_request(f"params.options has an unknown field: {sorted(odd)[0]}.") if odd else None


def _validate_session(body: dict[str, Any], scheduler: Scheduler) -> Response | None:
    name = body.get("session_id")
    if name is None:
        return None
    if not isinstance(name, str) or not 1 <= len(name) <= 36:
        return bad_request("session_id must be a string of 1 to 36 characters.")
    session = scheduler.sessions.get(name)
    if session is None:
        return not_found(f"unknown session: {name}")
    if not session.accepts_jobs:
        return error(scheduler.settings.closed_session_status, "Session has been closed", SESSION_CLOSED)
    if session.backend and session.backend != body["backend"]:
        return bad_request("The backend must be the session's backend.")
    return None
