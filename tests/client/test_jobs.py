# SPDX-License-Identifier: Apache-2.0
"""The job calls against the strict fake: what is sent, how replies are read, what is never sent."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from airflow_provider_ibm_sessions.client import Job, JobState
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    ConflictError,
    JobFailedError,
    NotFoundError,
    RequestRejectedError,
    SessionClosedError,
)
from testing.fake_ibm import Fault
from tests.client.conftest import TOKEN

JOBS = "/v1/jobs"
CIRCUIT = "OPENQASM 3.0; bit[2] c;"
PARAMS = {"pubs": [[CIRCUIT, None, 10]]}
UNKNOWN = "d0000000000000000000"


def submitted(api, program_id="sampler", *, backend="ibm_fez", params=PARAMS, **optional):
    return api.submit_job(program_id, backend=backend, params=params, **optional).id


def ended(ibm, api, outcome=None, **optional):
    """The id of a job that has ended."""
    if outcome:
        ibm.next_jobs([outcome])
    name = submitted(api, **optional)
    ibm.clock.advance(60)
    return name


# -- submit --------------------------------------------------------------------------------------------------


def test_all_fields_of_a_job_reach_ibm(ibm, api):
    session = ibm.add_session().id
    fields = {
        "program_id": "sampler",
        "backend": "ibm_fez",
        "session_id": session,
        "params": {"pubs": [[CIRCUIT, None, 100]], "options": {"execution": None}, "version": 2},
        "tags": ["run 7", "x" * 86],
        "cost": 10_800,
        "log_level": "debug",
        "private": True,
        "calibration_id": "cal-1",
    }
    job = api.submit_job(**fields)
    (request,) = ibm.requests("POST", JOBS)
    assert request.json == fields
    assert (job.session_id, job.backend, job.private) == (session, "ibm_fez", True)
    assert list(ibm.jobs) == [job.id]


def test_what_is_not_given_is_not_sent(ibm, api):
    name = submitted(api)
    (request,) = ibm.requests("POST", JOBS)
    assert request.json == {"program_id": "sampler", "backend": "ibm_fez", "params": PARAMS}
    assert not api.get_job(name).is_final


def test_a_session_takes_a_job_after_another(ibm, api):
    session = api.create_session(backend="ibm_fez", max_ttl=600)
    names = [submitted(api, session_id=session.id) for _ in range(3)]
    assert ibm.sessions[session.id].jobs == names


@pytest.mark.parametrize(
    ("program_id", "params"),
    [
        ("sampler", {"pubs": [CIRCUIT]}),
        ("sampler", {"pubs": [{"__type__": "QuantumCircuit", "__value__": "eJw="}], "support_qiskit": True}),
        ("sampler", MappingProxyType({"pubs": [[CIRCUIT]]})),
        ("estimator", {"pubs": [[CIRCUIT, "ZZ", None, 0.1]]}),
        ("executor", {"schema_version": "v0.1", "anything": [1, {"a": None}]}),
        ("noise-learner", {}),
    ],
    ids=["text", "of qiskit", "mapping", "estimator", "executor", "nothing"],
)
def test_every_program_has_its_own_parameters(ibm, api, program_id, params):
    submitted(api, program_id, params=params)
    assert ibm.requests("POST", JOBS)[0].json["params"] == dict(params)


def test_a_submission_needs_no_more_than_an_id_in_return(ibm, api):
    ibm.script(Fault("POST", JOBS, json={"id": "the-new-one", "state": 7, "usage": "none", "new": {"a": 1}}))
    job = api.submit_job("sampler", backend="ibm_fez", params=PARAMS)
    assert job.id == "the-new-one"
    assert not job.is_final


# -- what never leaves the machine ---------------------------------------------------------------------------

BAD_FIELDS = {
    "no pubs": ({"params": {}}, "params", "at least one"),
    "empty pubs": ({"params": {"pubs": []}}, "params", "at least one"),
    "pubs a text": ({"params": {"pubs": CIRCUIT}}, "params", "must be a list"),
    "pubs an object": ({"params": {"pubs": {"0": CIRCUIT}}}, "params", "must be a list"),
    "pub a number": ({"params": {"pubs": [7]}}, "params", "begin with a circuit"),
    "pub an empty list": ({"params": {"pubs": [[CIRCUIT], []]}}, "params", "begin with a circuit"),
    "pub without a circuit": ({"params": {"pubs": [[None, [1.0]]]}}, "params", "begin with a circuit"),
    "empty circuit": ({"params": {"pubs": [""]}}, "params", "begin with a circuit"),
    "no observables": ({"program_id": "estimator", "params": {"pubs": [[CIRCUIT]]}}, "params", "observables"),
    "circuit alone": ({"program_id": "estimator", "params": {"pubs": [CIRCUIT]}}, "params", "observables"),
    "params a list": ({"params": [CIRCUIT]}, "params", "dictionary"),
    "params a text": ({"params": "{}"}, "params", "dictionary"),
    "params nothing": ({"params": None}, "params", "dictionary"),
    "an object": ({"params": {"pubs": [[CIRCUIT, object()]]}}, "params", "must be JSON.*OpenQASM 3"),
    "NaN": ({"params": {"pubs": [[CIRCUIT, [float("nan")]]]}}, "params", "must be JSON"),
    "Infinity": ({"program_id": "executor", "params": {"a": float("inf")}}, "params", "must be JSON"),
    "bytes": ({"program_id": "executor", "params": {"a": b"x"}}, "params", "must be JSON"),
    "9 tags": ({"tags": list("abcdefghi")}, "tags", "at most 8"),
    "long tag": ({"tags": ["x" * 87]}, "tags", "1 to 86 printable"),
    "empty tag": ({"tags": ["good", ""]}, "tags", "1 to 86 printable"),
    "tag of two lines": ({"tags": ["a\nb"]}, "tags", "1 to 86 printable"),
    "tags a text": ({"tags": "good"}, "tags", "list"),
    "tag a bool": ({"tags": [True]}, "tags", "string"),
    "cost below 0": ({"cost": -1}, "cost", "greater than or equal to 0"),
    "cost too high": ({"cost": 10_801}, "cost", "less than or equal to 10800"),
    "cost a text": ({"cost": "5"}, "cost", "integer"),
    "cost a bool": ({"cost": True}, "cost", "integer"),
    "cost a fraction": ({"cost": 1.5}, "cost", "integer"),
    "long session": ({"session_id": "x" * 37}, "session_id", "at most 36"),
    "empty session": ({"session_id": ""}, "session_id", "is empty"),
    "session of another path": ({"session_id": "../x"}, "session_id", "1 to 500 letters"),
    "session with NUL": ({"session_id": "a\x00"}, "session_id", "1 to 500 letters"),
    "unknown field": ({"colour": "blue"}, "colour", "not permitted"),
    "private a text": ({"private": "yes"}, "private", "boolean"),
    "private a number": ({"private": 1}, "private", "boolean"),
    "log level": ({"log_level": "loud"}, "log_level", "critical.*debug"),
    "long calibration": ({"calibration_id": "x" * 101}, "calibration_id", "1 to 100 printable"),
    "calibration with escape": ({"calibration_id": "\x1b[0m"}, "calibration_id", "1 to 100 printable"),
    "backend empty": ({"backend": ""}, "backend", "is empty"),
    "backend nothing": ({"backend": None}, "backend", "is empty"),
    "backend two lines": ({"backend": "ibm_fez\n"}, "backend", "the name of a QPU"),
    "backend with slash": ({"backend": "ibm/fez"}, "backend", "the name of a QPU"),
    "program empty": ({"program_id": ""}, "program_id", "is empty"),
    "program nothing": ({"program_id": None}, "program_id", "is empty"),
}


@pytest.mark.parametrize("field", dict.fromkeys(field for _, field, _ in BAD_FIELDS.values()))
def test_a_wrong_job_never_leaves_the_machine(ibm, api, field):
    good = {"program_id": "sampler", "backend": "ibm_fez", "params": PARAMS}
    for case, (changes, wrong, allowed) in BAD_FIELDS.items():
        if wrong != field:
            continue
        with pytest.raises(ConfigurationError, match=rf"^{field}(\.\d+|\[\d+\])?:? .*{allowed}") as caught:
            api.submit_job(**good | changes)
            pytest.fail(f"nobody minds: {case}")
        assert caught.value.field.split(".")[0] == field, case
        assert (caught.value.sent, caught.value.retryable) == (False, False)
        assert len(str(caught.value)) < 500
    assert ibm.journal == []


def test_the_wrong_pub_is_named(ibm, api):
    with pytest.raises(ConfigurationError, match=r"pubs\[2\]"):
        submitted(api, params={"pubs": [CIRCUIT, [CIRCUIT], [7]]})
    assert ibm.journal == []


def nested(levels):
    value = "bottom"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param("bit[2] c; // \udce4", id="half a character"),
        pytest.param(nested(300), id="300 levels"),
    ],
)
def test_params_that_cannot_be_written_are_a_wrong_field(ibm, api, odd):
    with pytest.raises(ConfigurationError, match="params"):
        submitted(api, "executor", params={"text": odd})
    assert ibm.journal == []


def test_deep_and_foreign_text_arrives(ibm, api):
    params = {"text": "ψ \U0001d11e", "levels": nested(100), "large": 10**30, "small": 1e-300}
    submitted(api, "executor", params=params)
    assert ibm.requests("POST", JOBS)[0].json["params"] == params


BAD_JOB_IDS = ["", " ", "a/b", "../x", "..", "a b", "a\n", "a?b", "a%2fb", "x" * 501, None, 7]


def test_a_wrong_job_id_never_leaves_the_machine(ibm, api):
    for call in (api.get_job, api.job_results, api.job_metrics, api.job_logs, api.cancel_job, api.delete_job):
        for job_id in BAD_JOB_IDS:
            with pytest.raises(
                ConfigurationError, match=r"job_id (must be 1 to 500 letters|is empty)"
            ) as caught:
                call(job_id)
            assert caught.value.field == "job_id"
    assert ibm.journal == []


BAD_FILTERS = {
    "limit": [201, 0, True, "5"],
    "offset": [-1, 1.5],
    "session_id": ["", "None", "../x", "a\x00"],
    "tags": ["a", [""], ["a\nb"], [True], {"a": 1}],
    "program": ["", "a b", "\x1b", 5],
    "backend": ["", "ibm/fez", "\x00", True],
    "pending": ["yes", 1],
    "sort": ["asc", "createdAt"],
    "created_after": ["yesterday", "2026-01-02", 5, True],
    "colour": ["blue"],
}


def test_a_wrong_filter_of_jobs_never_leaves_the_machine(ibm, api):
    for field, values in BAD_FILTERS.items():
        for value in values:
            with pytest.raises(ConfigurationError, match=field) as caught:
                api.list_jobs(**{field: value})
            assert caught.value.field == field
    assert ibm.journal == []


# -- what only IBM can know ----------------------------------------------------------------------------------


def refused(ibm, api, kind, **job):
    with pytest.raises(kind) as caught:
        submitted(api, **job)
    assert type(caught.value) is kind
    assert not caught.value.retryable
    assert len(ibm.requests("POST", JOBS)) == 1
    assert ibm.jobs == {}
    return caught.value


def test_an_unknown_program_is_not_found(ibm, api):
    error = refused(ibm, api, NotFoundError, program_id="shor")
    assert (error.status, error.code) == (404, "not_found")
    assert "Program not found: shor" in str(error)


def test_an_unknown_backend_is_not_found(ibm, api):
    assert "device not found" in str(refused(ibm, api, NotFoundError, backend="ibm_atlantis"))


def test_an_unknown_session_is_not_found(ibm, api):
    assert "unknown session: nowhere" in str(refused(ibm, api, NotFoundError, session_id="nowhere"))


@pytest.mark.parametrize("status", [400, 403, 404, 409, 423])
def test_a_closed_session_takes_no_job(ibm, api, status):
    """IBM documents the code, not the status."""
    ibm.settings.closed_session_status = status
    session = ibm.add_session(state="closed").id
    error = refused(ibm, api, SessionClosedError, session_id=session)
    assert (error.status, error.code) == (status, "1217")
    assert "Session has been closed" in str(error)


def test_a_session_has_one_backend(ibm, api):
    session = ibm.add_session(backend="ibm_torino").id
    error = refused(ibm, api, RequestRejectedError, session_id=session)
    assert (error.status, error.code) == (400, "bad_request")
    assert "The backend must be the session's backend" in str(error)


def test_a_limit_that_is_reached_is_a_conflict(ibm, api):
    ibm.settings.limit_reached = True
    error = refused(ibm, api, ConflictError)
    assert (error.status, error.code) == (409, "conflict")
    assert "usage limit has been reached" in str(error)


def test_an_unknown_job_is_not_found(ibm, api):
    for call in (api.get_job, api.job_results, api.job_metrics, api.job_logs, api.cancel_job):
        with pytest.raises(NotFoundError, match=f"Job not found.*{UNKNOWN}") as caught:
            call(UNKNOWN)
        assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert len(ibm.requests(path=f"{JOBS}/*")) == 5


# -- get -----------------------------------------------------------------------------------------------------


def test_the_life_of_a_job(ibm, api):
    ibm.settings.queue_seconds = 5
    name = submitted(api, tags=["a"], cost=100)
    job = api.get_job(name)
    assert (job.final_status, job.is_final) == (JobState.QUEUED, False)
    assert (job.program.id, job.backend, job.tags, job.cost) == ("sampler", "ibm_fez", ["a"], 100)
    assert job.created.tzinfo
    ibm.clock.advance(5)
    assert api.get_job(name).final_status == JobState.RUNNING
    ibm.clock.advance(1)
    job = api.get_job(name)
    assert (job.final_status, job.is_final, job.is_completed) == (JobState.COMPLETED, True, True)
    assert (job.usage.qpu_charge_time_seconds, job.usage.status) == (1.0, "complete")


def test_a_poll_carries_no_parameters(ibm, api):
    """By IBM's own default it would carry all of them."""
    names = [submitted(api) for _ in range(2)]
    jobs = [api.get_job(name) for name in names] + api.list_jobs()
    for entry in ibm.requests("GET", f"{JOBS}*"):
        assert entry.query["exclude_params"] == ["true"]
    assert not any("params" in (job.model_extra or {}) for job in jobs)


def test_a_job_is_plain_json(ibm, api):
    facts = api.get_job(ended(ibm, api, tags=["a"])).to_json()
    assert (facts["state"], facts["program_id"], facts["tags"]) == ("Completed", "sampler", ["a"])
    assert facts["usage"] == {"qpu_charge_time_seconds": 1.0, "status": "complete"}
    assert datetime.fromisoformat(facts["created"]).tzinfo


def test_a_job_that_costs_more_than_it_may_is_final(ibm, api):
    job = api.get_job(ended(ibm, api, {"seconds": 50}, cost=10))
    assert job.final_status == JobState.RAN_TOO_LONG == "Cancelled - Ran too long"
    assert (job.is_final, job.is_completed) == (True, False)
    error = job.to_error()
    assert type(error) is JobFailedError
    assert error.code == "1305"
    assert job.id in str(error)
    assert "Ran too long" in str(error)


def test_a_failed_job_says_why(ibm, api):
    outcome = {"status": "Failed", "reason": "The circuit is not supported.", "reason_code": 1517}
    job = api.get_job(ended(ibm, api, outcome))
    assert (job.is_final, job.is_completed, job.to_error().code) == (True, False, "1517")
    assert "not supported. Transpile the circuit" in str(job.to_error())
    assert (job.to_json()["reason_code"], job.to_json()["state"]) == (1517, "Failed")


def seen(ibm, api, **facts):
    """A job of which IBM says so."""
    ibm.script(Fault("GET", f"{JOBS}/*", json={"id": "x"} | facts))
    return api.get_job("x")


def in_all_forms(states):
    for state in states:
        for facts in ({"state": {"status": state}, "status": state}, {"state": state}, {"status": state}):
            yield state, facts


def test_a_state_never_seen_before_is_not_final(ibm, api):
    for state, facts in in_all_forms(["Cancelling", "Validating", "completed", "Completed?", "", None]):
        job = seen(ibm, api, **facts)
        assert (job.final_status or None) == (state or None)
        assert not (job.is_final or job.is_completed)


def test_a_state_may_be_a_bare_text_or_stand_alone(ibm, api):
    for state, facts in in_all_forms(["Completed", "Failed", "Cancelled", "Cancelled - Ran too long"]):
        job = seen(ibm, api, **facts)
        assert (job.final_status, job.is_final, job.is_completed) == (state, True, state == "Completed")


def test_a_long_status_of_another_state_says_nothing(ibm, api):
    job = seen(ibm, api, state={"status": "Running"}, status="Cancelled - Ran too long")
    assert not job.is_final


def test_the_old_name_of_the_reason_code_is_read(ibm, api):
    job = seen(ibm, api, state={"status": "Cancelled", "reasonCode": 1305}, status="Cancelled - Ran too long")
    assert job.to_error().code == "1305"
    assert job.to_json()["reason_code"] == 1305


def test_an_odd_field_does_not_hide_the_state(ibm, api):
    odd = {"created": "soon", "tags": "a", "cost": "much", "usage": [1], "program": "sampler", "private": 7}
    for field, value in odd.items():
        job = seen(ibm, api, state={"status": "Completed", "reason_code": [1]}, **{field: value})
        assert job.is_completed, field
        assert getattr(job, field) is None


# -- list ----------------------------------------------------------------------------------------------------


def in_session(ibm, api, count, **fields):
    session = ibm.add_session().id
    return session, [submitted(api, session_id=session, **fields) for _ in range(count)]


def names_of(jobs):
    return [job.id for job in jobs]


def test_the_jobs_of_a_session(ibm, api):
    session, names = in_session(ibm, api, 3)
    in_session(ibm, api, 2)
    submitted(api)
    assert names_of(api.list_jobs(session_id=session)) == names
    assert api.list_jobs(session_id="unknown") == []
    assert ibm.requests("GET", JOBS)[0].query["session_id"] == [session]


def test_all_tags_must_match_and_are_repeated_keys(ibm, api):
    both = submitted(api, tags=["a", "b c&d"])
    submitted(api, tags=["a"])
    assert names_of(api.list_jobs(tags=["a", "b c&d"])) == [both]
    assert ibm.requests("GET", JOBS)[0].query["tags"] == ["a", "b c&d"]


def test_jobs_that_wait_and_jobs_that_have_ended(ibm, api):
    ibm.next_jobs([{"status": status} for status in ("Completed", "Failed", "Cancelled")] + [{"seconds": 99}])
    *final, running = [submitted(api, session_id=None) for _ in range(4)]
    ibm.clock.advance(10)
    queued = submitted(api)
    assert names_of(api.list_jobs(pending=True)) == [running, queued]
    assert names_of(api.list_jobs(pending=False)) == final
    assert names_of(api.list_jobs()) == [*final, running, queued]
    assert [entry.query.get("pending") for entry in ibm.requests("GET", JOBS)] == [["true"], ["false"], None]


def test_jobs_of_a_time_and_a_program(ibm, api):
    first = submitted(api)
    since = datetime.fromtimestamp(ibm.clock.now() + 1800, UTC)
    ibm.clock.advance(3600)
    second = submitted(api, "estimator", params={"pubs": [[CIRCUIT, "ZZ"]]})
    assert names_of(api.list_jobs(created_after=since)) == [second]
    assert names_of(api.list_jobs(created_before=since)) == [first]
    assert names_of(api.list_jobs(program="estimator", backend="ibm_fez")) == [second]
    assert names_of(api.list_jobs(backend="ibm_torino")) == []


def planted(ibm, count, **facts):
    """Jobs that nobody submitted over HTTP, for tests that need many."""
    life, facts = (
        ibm.service.scheduler,
        {"backend": "ibm_fez", "program_id": "sampler", "cost": 600.0} | facts,
    )
    with ibm.service.lock:
        now = ibm.clock.now()
        return [
            life.submit(now, params=PARAMS, user_id=ibm.user_id, session_id=None, **facts).id
            for _ in range(count)
        ]


def test_more_jobs_than_a_page_holds(ibm, api):
    names = planted(ibm, 401)
    assert names_of(api.list_jobs()) == names
    assert len(ibm.requests("GET", JOBS)) == 3


def test_all_pages_of_jobs_are_walked_through(ibm, api):
    names = planted(ibm, 207, tags=["a"])
    assert names_of(api.list_jobs(limit=50, tags=["a"])) == names
    pages = ibm.requests("GET", JOBS)
    assert [page.query["offset"] for page in pages] == [["0"], ["50"], ["100"], ["150"], ["200"]]
    for page in pages:
        assert (page.query["limit"], page.query["tags"]) == (["50"], ["a"])
    assert names_of(api.list_jobs(limit=100, sort="DESC", tags=["a"])) == names[::-1]


def test_a_full_last_page_is_the_last(ibm, api):
    names = planted(ibm, 4)
    assert names_of(api.list_jobs(limit=2)) == names
    assert len(ibm.requests("GET", JOBS)) == 2
    assert names_of(api.list_jobs(limit=2, offset=3)) == names[3:]


def test_a_list_without_a_count_ends(ibm, api):
    pages = [{"jobs": [{"id": "a"}, {"id": "b"}]}, {"jobs": [{"id": "c"}]}]
    ibm.script(*[Fault("GET", JOBS, json=page) for page in pages])
    assert names_of(api.list_jobs(limit=2)) == ["a", "b", "c"]
    assert len(ibm.requests("GET", JOBS)) == 2


def test_a_list_that_begins_again_and_again_ends(ibm, api):
    """IBM falls back to offset 0 without a word if it dislikes one."""
    ibm.script(Fault("GET", JOBS, json={"jobs": [{"id": "a"}]}, times=20))
    assert set(names_of(api.list_jobs(limit=1))) == {"a"}
    assert len(ibm.requests("GET", JOBS)) < 10


@pytest.mark.parametrize("flavour", ["sync"], indirect=True)
def test_what_is_submitted_meanwhile_moves_nothing_to_another_page(ibm, api):
    names = planted(ibm, 4)
    walk = api.client.list_jobs(limit=2)
    found = [next(walk).id]
    names += planted(ibm, 3)
    found += names_of(walk)
    assert found == names


def test_a_list_of_another_shape_is_a_bad_reply(ibm, api):
    for reply in ({}, {"jobs": None}, {"jobs": [{"state": "Queued"}]}, []):
        ibm.script(Fault("GET", JOBS, json=reply))
        with pytest.raises(BadResponseError):
            api.list_jobs()


# -- metrics and logs ----------------------------------------------------------------------------------------


def test_metrics(ibm, api):
    name = submitted(api)
    before = api.job_metrics(name)
    assert before.usage.status == "pending"
    assert before.timestamps.running.tzinfo
    assert before.timestamps.finished is None
    ibm.clock.advance(1)
    after = api.job_metrics(name)
    assert (after.usage.qpu_charge_time_seconds, after.usage.status) == (1.0, "complete")
    assert (after.timestamps.finished - after.timestamps.running).total_seconds() == pytest.approx(1)
    assert after.circuits_execution_time_ns == 1_000_000_000
    assert after.caller.startswith("airflow-provider-ibm-sessions/")


def test_a_job_has_no_logs_before_its_end(ibm, api):
    name = submitted(api)
    with pytest.raises(NotFoundError, match="logs not found"):
        api.job_logs(name)
    ibm.clock.advance(1)
    assert api.job_logs(name) == "sampler: Completed\n"
    assert "text/plain" in ibm.journal[-1].headers["accept"]


def test_a_web_page_is_no_log(ibm, api):
    ibm.script(Fault("GET", f"{JOBS}/*/logs", html=True))
    with pytest.raises(BadResponseError, match="not plain text"):
        api.job_logs("x")


# -- cancel and delete ---------------------------------------------------------------------------------------


def test_a_job_is_cancelled_once(ibm, api):
    queued, running = ibm.add_session().id, submitted(api)
    ibm.settings.queue_seconds = 10
    waiting = submitted(api, session_id=queued)
    for name in (running, waiting):
        assert api.cancel_job(name) is True
        assert api.cancel_job(name) is False
        job = api.get_job(name)
        assert (job.final_status, job.is_final, job.is_completed) == ("Cancelled", True, False)
    posts = ibm.requests("POST", f"{JOBS}/*/cancel")
    assert [entry.body for entry in posts] == [b""] * 4


def test_a_job_that_has_ended_cannot_be_cancelled(ibm, api):
    name = ended(ibm, api)
    assert api.cancel_job(name) is False
    assert api.get_job(name).is_completed


def test_a_job_is_deleted_once(ibm, api):
    name = ended(ibm, api)
    assert api.delete_job(name) is True
    assert api.delete_job(name) is False
    assert api.list_jobs() == []


def test_a_job_that_runs_cannot_be_deleted(ibm, api):
    name = submitted(api)
    with pytest.raises(ConflictError, match="terminal state"):
        api.delete_job(name)
    assert api.get_job(name).id == name


@pytest.mark.parametrize("fault", [{"status": 503}, {"drop": True}, {"status": 429}], ids=str)
def test_to_cancel_and_to_delete_are_tried_again(ibm, api, fault):
    name = submitted(api)
    ibm.script(Fault("POST", f"{JOBS}/*/cancel", **fault), Fault("DELETE", f"{JOBS}/*", **fault))
    assert api.cancel_job(name) is True
    assert api.delete_job(name) is True


# -- results -------------------------------------------------------------------------------------------------


def test_results_as_ibm_sends_them(ibm, api):
    sent = {"results": [{"data": {"c": {"samples": ["0x3"], "num_bits": 2}}}], "metadata": {"message": "no"}}
    assert api.job_results(ended(ibm, api, {"results": sent})) == sent


def test_results_may_have_any_shape(ibm, api):
    for results in ([1, 2], "text", 7, {"message": "hello", "data": []}):
        assert api.job_results(ended(ibm, api, {"results": results})) == results


def test_no_results_before_the_end_or_after_a_cancellation(ibm, api):
    name = submitted(api)
    assert api.job_results(name) is None
    api.cancel_job(name)
    assert api.job_results(name) is None


def test_a_failed_job_has_the_end_of_a_traceback(ibm, api):
    reason = "frame\n" * 500 + "ValueError: the last words"
    name = ended(ibm, api, {"status": "Failed", "reason": reason})
    with pytest.raises(JobFailedError) as caught:
        api.job_results(name)
    assert str(caught.value).endswith("ValueError: the last words")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not caught.value.retryable


def test_private_results_are_read_once(ibm, api):
    name = ended(ibm, api, private=True)
    assert len(api.job_results(name)["results"]) == 1
    assert api.job_results(name) is None
    assert api.get_job(name).private is True


def test_an_error_in_place_of_results_is_none(ibm, api):
    ibm.script(Fault("GET", f"{JOBS}/*/results", json={"errors": [{"code": 5302, "message": "too large"}]}))
    with pytest.raises(BadResponseError, match="too large"):
        api.job_results("x")


@pytest.mark.parametrize("fault", [{"truncate": True}, {"truncate": "length"}, {"status": 503}], ids=str)
def test_results_that_were_cut_are_read_again(ibm, api, fault):
    name = ended(ibm, api)
    ibm.script(Fault("GET", f"{JOBS}/*/results", phase="after", **fault))
    assert len(api.job_results(name)["results"][0]["data"]["c"]["samples"]) == 10


def test_a_web_page_is_no_result(ibm, api):
    ibm.script(Fault("GET", f"{JOBS}/*/results", html=True))
    with pytest.raises(BadResponseError):
        api.job_results("x")


def test_job_calls_say_who_asks(ibm, api):
    name = submitted(api)
    for call in (api.get_job, api.job_metrics, api.job_results, api.cancel_job, api.job_logs, api.delete_job):
        call(name)
    api.list_jobs()
    calls = [entry for entry in ibm.journal if entry.path != TOKEN]
    assert len(calls) == 8
    for entry in calls:
        assert entry.headers["ibm-api-version"] == "2026-04-15"
        assert entry.headers["service-crn"] == ibm.crn
    assert ibm.connections == 1


def test_a_job_made_by_hand_is_one_too():
    job = Job(id="x", state="Failed")
    assert (job.is_final, str(job.to_error())) == (True, "Job x: Failed")


def test_a_metric_with_a_fraction_is_kept(ibm, api):
    metrics = {"circuits_execution_time_ns": 1.5, "usage": {"qpu_charge_time_seconds": 2.5}}
    ibm.script(Fault("GET", f"{JOBS}/*/metrics", json=metrics))
    found = api.job_metrics("x")
    assert found.circuits_execution_time_ns == 1.5
    assert found.usage.qpu_charge_time_seconds == 2.5
