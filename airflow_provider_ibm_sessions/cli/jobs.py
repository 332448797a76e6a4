# SPDX-License-Identifier: Apache-2.0
"""The commands on jobs: list them, print their results, cancel them."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from itertools import islice
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_ibm_sessions.cli import output
from airflow_provider_ibm_sessions.cli.arguments import (
    EXAMPLE_JOB,
    EXAMPLE_SESSION,
    Commands,
    add_common,
    add_json,
    limit,
)
from airflow_provider_ibm_sessions.cli.connection import add_connection, credentials_for
from airflow_provider_ibm_sessions.cli.histogram import MAX_BARS
from airflow_provider_ibm_sessions.cli.results import print_results
from airflow_provider_ibm_sessions.client.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    ConflictError,
    IBMQuantumError,
    NotFoundError,
)
from airflow_provider_ibm_sessions.client.results import decode_results
from airflow_provider_ibm_sessions.client.usage import format_seconds
from airflow_provider_ibm_sessions.client.validation import validate_id

if TYPE_CHECKING:
    from airflow_provider_ibm_sessions.client.models.jobs import Job

log = logging.getLogger(__name__)

_COLUMNS: Final = (
    "id",
    "state",
    "program_id",
    "backend",
    "session_id",
    "created",
    "qpu_seconds",
    "reason_code",
    "tags",
)
_PAGE: Final = 200


def add_commands(commands: Commands) -> None:
    """Add ``jobs``, ``results`` and ``cancel``."""
    listed = commands.add(
        "jobs",
        list_jobs,
        "List jobs",
        "List jobs, the newest first. qpu_seconds is the QPU time that IBM charges so far.",
        "--pending",
        f"--session {EXAMPLE_SESSION} --limit 10",
        "--tag calibration --tag night --json",
    )
    listed.add_argument("--session", metavar="SESSION_ID", help="only those of this session")
    listed.add_argument(
        "--tag", action="append", metavar="TAG", help="only those with this tag; of several, with all"
    )
    listed.add_argument("--pending", action="store_true", help="only those that are queued or running")
    listed.add_argument("--limit", type=limit, default=50, metavar="N", help="at most N (default: 50)")
    add_common(listed, commands.conn_id)

    results = commands.add(
        "results",
        show_results,
        "Print the results of a job",
        "Print the results of a job that has completed: a histogram of the counts of each pub, over all "
        "registers, or a table of expectation values with their errors.",
        EXAMPLE_JOB,
        f"{EXAMPLE_JOB} --by-register --top 8",
        f"{EXAMPLE_JOB} --json",
    )
    results.add_argument("id", metavar="JOB_ID", help="The job's id")
    results.add_argument(
        "--by-register", action="store_true", help="a histogram for each register, in place of joint counts"
    )
    results.add_argument(
        "--top",
        type=limit,
        default=MAX_BARS,
        metavar="N",
        help="print the N most frequent outcomes, and the sum of the others (default: %(default)s)",
    )
    forms = results.add_mutually_exclusive_group()
    forms.add_argument("--raw", action="store_true", help="print JSON as IBM sends it")
    add_json(results, forms)
    add_connection(results, commands.conn_id)

    cancel = commands.add(
        "cancel",
        cancel_jobs,
        "Cancel jobs",
        "Cancel jobs, queued or running, and print their states afterwards. What a job has used until then "
        "is billed.",
        EXAMPLE_JOB,
        f"{EXAMPLE_JOB} d2rkgp0r9c6s73a1qd1g --json",
    )
    cancel.add_argument("ids", metavar="JOB_ID", nargs="+", help="The job's id")
    add_common(cancel, commands.conn_id)


def list_jobs(options: argparse.Namespace) -> None:
    """
    Print jobs, the newest first.

    :raises NotFoundError: If IBM does not know the session: it lists no jobs then, and no error.
    """
    given = {"session_id": options.session, "tags": options.tag, "pending": options.pending or None}
    filters = {name: value for name, value in given.items() if value is not None}
    most = options.limit + 1
    with IBMQuantumClient(credentials_for(options.conn_id)) as client:
        found = list(islice(client.list_jobs(sort="DESC", limit=min(most, _PAGE), **filters), most))
        if not found and options.session is not None:
            client.get_session(options.session)
    jobs = found[: options.limit]
    if options.json:
        output.print_json([job.to_json() for job in jobs])
    else:
        output.print_rows([_row(job) for job in jobs], _COLUMNS)
    sys.stdout.flush()
    if len(found) > len(jobs):
        print(f"There are more than these {len(jobs)}: see --limit", file=sys.stderr)


def _row(job: Job) -> dict[str, Any]:
    """Return a job as people read it."""
    seconds = job.usage.qpu_charge_time_seconds if job.usage else None
    return job.to_json() | {
        "qpu_seconds": None if seconds is None else f"{format_seconds(seconds)}s",
        "tags": ", ".join(job.tags or []) or None,
    }


def show_results(options: argparse.Namespace) -> None:
    """
    Print the results of a job.

    :raises ConflictError: If the job has not ended.
    :raises JobFailedError: If it failed or was cancelled.
    :raises NotFoundError: If IBM has no results of it.
    :raises ConfigurationError: If the job is private, and its results would not be printed whole.
    """
    credentials = credentials_for(options.conn_id)
    with IBMQuantumClient(credentials) as client:
        job = client.get_job(options.id)
        if not job.is_final:
            raise ConflictError(f"Job {job.id} is {job.final_status}: it has no results yet; try again later")
        if not job.is_completed:
            with output.stdout_to_stderr():  # loads Airflow
                from airflow_provider_ibm_sessions.exceptions import job_error
                from airflow_provider_ibm_sessions.links import console_url

            raise job_error(job.to_json(), console_url(job.id, credentials))
        if job.private and not (options.raw or options.json):
            raise ConfigurationError(
                f"Job {job.id} is private: IBM gives its results once only. Keep them with --json > FILE",
                field="json",
            )
        body = client.job_results(job.id)
    if body is None:
        once = ": it is private, and they were read before" if job.private else ""
        raise NotFoundError(f"Job {job.id} is completed, but IBM has no results of it{once}")
    results = decode_results(body, detail="raw" if options.raw else "counts")
    if results.error:
        log.warning("Some results of job %s are unreadable; see --raw: %s", job.id, results.error)
    if options.raw:
        _print_whole(job, results.results, lambda value: print(json.dumps(value)))
    elif options.json:
        _print_whole(job, {"id": job.id, **results.to_json()}, output.print_json)
    else:
        print_results(results, most=options.top, by_register=options.by_register)
        sys.stdout.flush()


def _print_whole(job: Job, results: Any, write: Callable[[Any], None]) -> None:
    """
    Print results; those of a private job that cannot be printed go to a file.

    :raises OSError: If they cannot be printed.
    """
    try:
        write(results)
        sys.stdout.flush()
    except OSError:
        if job.private:
            prefix = f"{job.id}-"
            with NamedTemporaryFile("w", prefix=prefix, suffix=".json", delete=False) as file:
                json.dump(results, file)
            log.warning("The results of private job %s are in %s: IBM has them no more", job.id, file.name)
        raise


def cancel_jobs(options: argparse.Namespace) -> None:
    """
    Cancel jobs, and print their states afterwards. An error of one does not stop the others.

    :raises ConfigurationError: If an id is wrong; nothing is sent then.
    :raises IBMQuantumError: The last error; those before it are logged.
    """
    ids = dict.fromkeys(validate_id(each, "job_id") for each in options.ids)
    rows: list[dict[str, Any]] = []
    errors: list[IBMQuantumError] = []
    with IBMQuantumClient(credentials_for(options.conn_id)) as client:
        for job_id in ids:
            row: dict[str, Any] = {"id": job_id, "state": None, "cancelled": False}
            rows.append(row)
            try:
                row["cancelled"] = client.cancel_job(job_id)
                row["state"] = client.get_job(job_id).final_status
            except IBMQuantumError as error:
                error.message = f"Job {job_id}: {error.message}"
                errors.append(error)
    if options.json:
        output.print_json(rows)
    else:
        output.print_rows(rows, ("id", "state", "cancelled"))
    sys.stdout.flush()
    for row in rows:
        if not row["cancelled"] and row["state"]:
            print(f"Job {row['id']} was {row['state']} already", file=sys.stderr)
    for earlier in errors[:-1]:
        log.error("%s", earlier)
    if errors:
        raise errors[-1]
