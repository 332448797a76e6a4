# SPDX-License-Identifier: Apache-2.0
"""A job is submitted exactly once, whatever goes wrong: counted by the fake, not by the client."""

from __future__ import annotations

import itertools
import threading

import pytest

from airflow_provider_ibm_sessions.client import (
    IBMQuantumClient,
    RetryPolicy,
    find_job,
    resume_job,
    submit_once,
)
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    ConflictError,
    IBMQuantumError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRejectedError,
    SessionClosedError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.submission import resume_jobs, validate_job
from testing.fake_ibm import Fault
from tests.client.conftest import assert_hidden, credentials_for, free_port

JOBS = "/v1/jobs"
TAG = "run-7-of-the-test"
PARAMS = {"pubs": [["OPENQASM 3.0; bit[2] c;", None, 10]]}
JOB = {"program_id": "sampler", "backend": "ibm_fez", "params": PARAMS}

SEVERAL = RetryPolicy(max_elapsed=2.0, initial_backoff=0.01, max_backoff=0.02, list_lag=0.02)
BRIEF = RetryPolicy(max_elapsed=0.1, initial_backoff=0.01, max_backoff=0.02, list_lag=0.02)


class Scripted(IBMQuantumClient):
    """A client that tells when a submission is about to be made, and when it has been."""

    def __init__(self, *args):
        super().__init__(*args)
        self.submissions = 0
        self.before = self.after = lambda number: None

    def submit_job(self, *args, **kwargs):
        self.submissions += 1
        self.before(self.submissions)
        try:
            return super().submit_job(*args, **kwargs)
        finally:
            self.after(self.submissions)


@pytest.fixture
def connect(ibm):
    opened = []

    def make(retry=SEVERAL, **changes):
        opened.append(Scripted(credentials_for(ibm, **changes), retry))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def client(connect):
    return connect()


def post(**kind):
    return Fault("POST", JOBS, **kind)


def looks(**kind):
    return Fault("GET", JOBS, **kind)


def listing(*jobs):
    """A list of jobs that is not up to date."""
    shown = [{"id": job.id, "state": {"status": job.status}, "tags": job.tags} for job in jobs]
    return {"jobs": shown, "count": len(shown), "offset": 0, "limit": 200}


def alive(ibm):
    return [job.id for job in ibm.jobs.values() if job.status != "Cancelled"]


def submissions(ibm):
    return len(ibm.requests("POST", JOBS))


def assert_one(ibm, job):
    assert list(ibm.jobs) == [job.id]
    assert ibm.jobs[job.id].tags[-1] == TAG
    assert ibm.state()["duplicate_submits"] == []


FAULTS = {
    "drop": {"drop": True},
    "reset": {"drop": "rst"},
    "500": {"status": 500},
    "502": {"status": 502, "body": "<b>Bad gateway</b>"},
    "503": {"status": 503},
    "504": {"status": 504},
    "520": {"status": 520},
    "cut short": {"truncate": "length"},
    "broken JSON": {"truncate": True},
    "html": {"html": True},
    "garbage": {"garbage": True},
    "empty": {"empty": True},
    "204": {"no_content": True},
    "no id": {"json": {"backend": "ibm_fez"}},
    "redirect": {"status": 302, "headers": {"Location": "https://example.org/"}},
}
PHASES = ["before", "after"]
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
every_phase = pytest.mark.parametrize("phase", PHASES)


# -- one fault and several -----------------------------------------------------------------------------------


def test_without_trouble_it_is_one_request(ibm, client):
    job = submit_once(client, TAG, **JOB, tags=["mine"], cost=7)
    assert_one(ibm, job)
    (request,) = ibm.requests(path="/v1/*")
    assert request.json == JOB | {"tags": ["mine", TAG], "cost": 7}


@every_fault
@every_phase
def test_one_fault_leaves_one_job(ibm, client, fault, phase):
    ibm.script(post(phase=phase, **fault))
    assert_one(ibm, submit_once(client, TAG, **JOB))
    assert submissions(ibm) == (2 if phase == "before" else 1)


@pytest.mark.parametrize(
    "phases",
    [*itertools.product(PHASES, repeat=2), *itertools.product(PHASES, repeat=3)],
    ids="-".join,
)
def test_faults_in_a_row_leave_one_job(ibm, client, phases):
    kinds = itertools.cycle([{"drop": True}, {"status": 503}, {"html": True}])
    ibm.script(*[post(phase=phase, **next(kinds)) for phase in phases])
    assert_one(ibm, submit_once(client, TAG, **JOB))


@every_phase
def test_a_reply_that_does_not_come_in_time_leaves_one_job(ibm, connect, phase):
    ibm.script(post(delay=10, phase=phase))
    assert_one(ibm, submit_once(connect(timeout=1.5), TAG, **JOB))


def test_two_replies_that_do_not_come_in_time_leave_one_job(ibm, connect):
    ibm.script(post(delay=10), post(delay=10, phase="after"))
    assert_one(ibm, submit_once(connect(timeout=1.5), TAG, **JOB))


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}], ids=str)
def test_a_job_that_is_turned_away_is_sent_again(ibm, client, headers):
    ibm.script(post(status=429, headers=headers, times=3))
    assert_one(ibm, submit_once(client, TAG, **JOB))
    assert ibm.requests("GET", JOBS) == [], "nobody need look for what was refused"


@every_phase
def test_a_job_that_is_turned_away_between_faults_is_one(ibm, client, phase):
    ibm.script(post(drop=True), post(status=429), post(status=502, phase=phase))
    assert_one(ibm, submit_once(client, TAG, **JOB))


def test_a_service_that_comes_back_gets_one_job(ibm, client):
    client.list_backends()
    ibm.stop()
    back = threading.Timer(0.15, ibm.start)
    back.start()
    assert_one(ibm, submit_once(client, TAG, **JOB))
    back.join()


def test_a_service_that_goes_away_with_the_reply_has_one_job(ibm, client):
    ibm.script(post(drop=True, phase="after"))

    def leave(number):
        ibm.stop()
        threading.Timer(0.15, ibm.start).start()

    client.after = leave
    assert_one(ibm, submit_once(client, TAG, **JOB))


@every_phase
def test_a_token_that_is_revoked_meanwhile_changes_nothing(ibm, client, phase):
    client.list_backends()
    ibm.revoke_tokens()
    ibm.script(post(drop=True, phase=phase, skip=1))
    assert_one(ibm, submit_once(client, TAG, **JOB))


def test_jobs_with_other_tags_are_left_alone(ibm, client):
    others = [client.submit_job(**JOB, tags=[tag]).id for tag in (TAG[:-1], TAG + "2", TAG.upper())]
    others.append(client.submit_job(**JOB).id)
    ibm.script(post(drop=True))
    job = submit_once(client, TAG, **JOB)
    assert alive(ibm) == [*others, job.id]


# -- trouble that lasts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["drop", "503", "html"])
def test_a_service_that_never_answers_gets_a_few_submissions(ibm, connect, kind):
    ibm.script(post(times=None, **FAULTS[kind]))
    with pytest.raises(OutcomeUnknownError) as caught:
        submit_once(connect(BRIEF), TAG, **JOB)
    assert caught.value.retryable, "whoever comes next looks for the tag first"
    assert 2 <= submissions(ibm) <= 10
    assert ibm.jobs == {}
    assert_hidden(ibm, str(caught.value))


@pytest.mark.parametrize("kind", ["drop", "503", "html"])
def test_a_service_that_works_but_never_answers_gets_one_job(ibm, connect, kind):
    ibm.script(post(times=None, phase="after", **FAULTS[kind]))
    assert_one(ibm, submit_once(connect(BRIEF), TAG, **JOB))


def test_a_service_that_refuses_connections_gets_none(ibm, connect):
    with pytest.raises(TransportError) as caught:
        submit_once(connect(BRIEF, url=f"http://127.0.0.1:{free_port()}/api"), TAG, **JOB)
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert ibm.jobs == {}


def test_a_job_that_is_turned_away_for_ever_is_none(ibm, connect):
    ibm.script(post(status=429, times=None))
    with pytest.raises(RateLimitedError):
        submit_once(connect(BRIEF), TAG, **JOB)
    assert ibm.jobs == {}


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RequestRejectedError), (404, NotFoundError), (409, ConflictError)]
)
@pytest.mark.parametrize("faults", [0, 2])
def test_a_job_that_is_refused_is_none(ibm, client, status, kind, faults):
    ibm.script(*[post(drop=True)] * faults, post(status=status, times=None))
    with pytest.raises(kind):
        submit_once(client, TAG, **JOB)
    assert submissions(ibm) == faults + 1
    assert ibm.jobs == {}


def test_a_closed_session_gets_none(ibm, client):
    session = ibm.add_session(state="closed").id
    with pytest.raises(SessionClosedError):
        submit_once(client, TAG, **JOB, session_id=session)
    assert ibm.jobs == {}


# -- looking for it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [{"status": 503}, {"drop": True}, {"truncate": True, "phase": "after"}, {"status": 429}],
    ids=str,
)
@every_phase
def test_looks_that_fail_for_a_while_are_repeated(ibm, client, trouble, phase):
    ibm.script(post(drop=True, phase=phase), looks(times=3, **trouble))
    assert_one(ibm, submit_once(client, TAG, **JOB))


@every_phase
def test_who_cannot_look_does_not_submit_again(ibm, connect, phase):
    ibm.script(post(drop=True, phase=phase), looks(status=503, times=None))
    with pytest.raises(IBMQuantumError):
        submit_once(connect(BRIEF), TAG, **JOB)
    assert submissions(ibm) == 1
    ibm.clear_faults()
    found = resume_job(connect(), TAG)
    assert list(ibm.jobs) == ([found.id] if found else [])


def test_who_cannot_look_says_that_the_outcome_is_unknown(ibm, connect):
    ibm.script(post(drop=True, phase="after"), looks(status=503, times=None))
    with pytest.raises(OutcomeUnknownError):
        submit_once(connect(BRIEF), TAG, **JOB)


def test_a_job_that_shows_at_the_last_look_is_not_doubled(ibm, client):
    ibm.script(post(drop=True, phase="after"), looks(json=listing()))
    assert_one(ibm, submit_once(client, TAG, **JOB))


def hidden_until(ibm, client, number, then=lambda: None):
    """IBM's list of jobs lags behind until so many submissions have been made."""
    ibm.script(looks(json=listing(), times=None))

    def after(made):
        if made == number:
            ibm.clear_faults()
            then()

    client.after = after


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 504}, {"html": True}], ids=str)
def test_a_job_that_shows_late_is_taken_and_its_double_cancelled(ibm, client, fault):
    ibm.script(post(phase="after", **fault))
    hidden_until(ibm, client, 2)
    job = submit_once(client, TAG, **JOB)
    older, younger = ibm.jobs.values()
    assert job.id == older.id
    assert (older.status, younger.status) == ("Running", "Cancelled")


def test_of_three_jobs_that_show_late_one_is_left(ibm, client):
    ibm.script(post(phase="after", drop=True, times=2))
    hidden_until(ibm, client, 3)
    job = submit_once(client, TAG, **JOB)
    assert len(ibm.jobs) == 3
    assert alive(ibm) == [job.id] == [min(ibm.jobs.values(), key=lambda each: each.created).id]


def test_a_job_that_never_shows_is_returned_as_it_was_accepted(ibm, client):
    ibm.script(post(drop=True))
    hidden_until(ibm, client, None)
    assert_one(ibm, submit_once(client, TAG, **JOB))


def test_a_double_that_the_list_does_not_show_yet_is_cancelled(ibm, client):
    ibm.script(post(drop=True, phase="after"))

    def only_the_older_shows():
        ibm.script(looks(json=listing(next(iter(ibm.jobs.values()))), times=None))

    hidden_until(ibm, client, 2, only_the_older_shows)
    job = submit_once(client, TAG, **JOB)
    assert len(ibm.jobs) == 2
    assert alive(ibm) == [job.id]


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 400, "code": 1217, "message": "Session has been closed"},
        {"status": 409},
        {"status": 429, "times": None},
    ],
    ids=str,
)
def test_a_job_that_shows_late_is_found_though_its_double_is_refused(ibm, connect, refusal):
    client = connect(BRIEF)
    ibm.script(post(drop=True, phase="after"), post(**refusal))
    hidden_until(ibm, client, 2)
    assert_one(ibm, submit_once(client, TAG, **JOB))


def test_a_double_that_cannot_be_cancelled_does_not_hide_the_job(ibm, connect):
    client = connect(BRIEF)
    names = [client.submit_job(**JOB, tags=[TAG]).id for _ in range(2)]
    ibm.script(Fault("POST", f"{JOBS}/*/cancel", status=404, times=None))
    assert resume_job(client, TAG).id == names[0]


def test_to_find_a_job_cancels_nothing(ibm, client):
    names = [client.submit_job(**JOB, tags=[TAG]).id for _ in range(3)]
    assert find_job(client, TAG).id == names[0]
    assert ibm.requests("POST", f"{JOBS}/*/cancel") == []


def test_a_successor_sees_what_its_predecessor_submitted_in_its_last_moment(ibm, client):
    earlier = client.submit_job(**JOB, tags=[TAG]).id
    ibm.script(looks(json={"jobs": [], "count": 0}))
    assert resume_job(client, TAG) is None
    assert submit_once(client, TAG, is_retry=True, **JOB).id == earlier
    assert [job.status for job in ibm.jobs.values() if job.id != earlier] == ["Cancelled"]


# -- resume_job ------------------------------------------------------------------------------------------


def ended(ibm, client, **outcome):
    ibm.next_jobs([outcome])
    name = client.submit_job(**JOB, tags=["mine", TAG], cost=10).id
    ibm.clock.advance(60)
    return name


def test_there_may_be_none(ibm, client):
    assert resume_job(client, TAG) is None
    client.submit_job(**JOB, tags=["another"])
    assert resume_job(client, TAG) is None


def test_the_oldest_counts_and_the_others_are_cancelled(ibm, client):
    names = [client.submit_job(**JOB, tags=[TAG]).id for _ in range(4)]
    assert resume_job(client, TAG).id == names[0]
    assert alive(ibm) == names[:1]
    assert resume_job(client, TAG).id == names[0]
    assert len(ibm.requests("POST", f"{JOBS}/*/cancel")) == 3


def test_cancelled_jobs_do_not_count(ibm, client):
    first, second = (client.submit_job(**JOB, tags=[TAG]).id for _ in range(2))
    client.cancel_job(first)
    assert resume_job(client, TAG).id == second
    client.cancel_job(second)
    assert resume_job(client, TAG) is None


def test_jobs_whose_session_closed_before_they_ran_do_not_count(ibm, client):
    ibm.settings.queue_seconds = 100
    session = ibm.add_session().id
    client.submit_job(**JOB, tags=[TAG], session_id=session)
    client.close_session(session)
    assert resume_job(client, TAG) is None
    again = submit_once(client, TAG, **JOB)
    assert resume_job(client, TAG).id == again.id


@pytest.mark.parametrize(
    "outcome",
    [
        {"status": "Failed", "reason_code": 1517, "reason": "not supported"},
        {"status": "Failed"},
        {"status": "Completed"},
        {"seconds": 50},
    ],
    ids=["failed", "failed without a code", "completed", "ran too long"],
)
def test_jobs_that_ended_otherwise_count(ibm, client, outcome):
    name = ended(ibm, client, **outcome)
    younger = client.submit_job(**JOB, tags=[TAG]).id
    found = resume_job(client, TAG)
    assert (found.id, found.is_final) == (name, True)
    assert ibm.jobs[younger].status == "Cancelled"


@pytest.mark.parametrize("code", [1305, "1305"])
def test_a_job_that_ran_too_long_counts_by_its_code_as_well(ibm, client, code):
    state = {"status": "Cancelled", "reason_code": code, "reason": "Ran too long"}
    ibm.script(looks(json={"jobs": [{"id": "x", "state": state, "tags": [TAG]}], "count": 1}))
    assert resume_job(client, TAG).id == "x"


def test_a_double_that_has_ended_is_left_as_it_is(ibm, client):
    names = [ended(ibm, client) for _ in range(2)]
    assert resume_job(client, TAG).id == names[0]
    assert ibm.requests("POST", f"{JOBS}/*/cancel") == []


def test_a_job_without_the_tag_is_neither_taken_nor_cancelled(ibm, client):
    for tags in (["a"], ["b"], []):
        client.submit_job(**JOB, tags=tags)
    ibm.script(looks(json=listing(*ibm.jobs.values())))
    assert resume_job(client, TAG) is None
    assert len(alive(ibm)) == 3


# -- resume_jobs ---------------------------------------------------------------------------------------------


def test_many_jobs_of_a_session_are_resumed_with_one_list(ibm, client):
    session = ibm.add_session().id
    tags = [f"{TAG}-{number}" for number in range(5)]
    names = [client.submit_job(**JOB, tags=[tag], session_id=session).id for tag in tags]
    found = resume_jobs(client, tags, [session])
    assert {tag: each.job.id for tag, each in found.items()} == dict(zip(tags, names, strict=True))
    assert len(ibm.requests("GET", JOBS)) == 1


def test_of_jobs_of_a_session_with_the_same_tag_the_oldest_is_resumed(ibm, client):
    session = ibm.add_session().id
    names = [client.submit_job(**JOB, tags=[TAG], session_id=session).id for _ in range(2)]
    assert resume_jobs(client, [TAG], [session])[TAG].job.id == names[0]
    assert alive(ibm) == names[:1]


def test_where_all_sessions_are_known_no_tag_is_looked_up_by_itself(ibm, client):
    sessions = [ibm.add_session().id for _ in range(2)]
    tags = [f"{TAG}-{number}" for number in range(9)]
    names = [
        client.submit_job(**JOB, tags=[tag], session_id=session).id
        for tag, session in zip(tags, sessions, strict=False)
    ]
    found = resume_jobs(client, tags, sessions, is_complete=True)
    assert [each.job and each.job.id for each in found.values()] == [*names, *[None] * 7]
    assert len(ibm.requests("GET", JOBS)) == 2


def test_jobs_without_a_known_session_are_resumed_by_their_tags(ibm, client):
    name = client.submit_job(**JOB, tags=[TAG], session_id=ibm.add_session().id).id
    found = resume_jobs(client, [TAG, "another"])
    assert found[TAG].job.id == name
    assert found["another"] == ("another", None)


def test_jobs_in_the_session_of_a_try_before_the_last_are_resumed_as_well(ibm, client):
    """Each failed try drains its session, so the next one submits what is missing in another."""
    first, second = ibm.add_session().id, ibm.add_session().id
    tags = [f"{TAG}-{number}" for number in range(2)]
    names = [
        client.submit_job(**JOB, tags=[tag], session_id=session).id
        for tag, session in zip(tags, (first, second), strict=True)
    ]
    found = resume_jobs(client, tags, [second])
    assert {tag: each.job.id for tag, each in found.items()} == dict(zip(tags, names, strict=True))


def test_where_one_job_is_the_others_are_found_with_one_list(ibm, client):
    session = ibm.add_session().id
    tags = [f"{TAG}-{number}" for number in range(5)]
    names = [client.submit_job(**JOB, tags=[tag], session_id=session).id for tag in tags]
    found = resume_jobs(client, tags)
    assert [each.job.id for each in found.values()] == names
    assert len(ibm.requests("GET", JOBS)) == 2


def test_a_failed_job_is_resumed_unless_it_is_to_be_repeated(ibm, client):
    failed = ended(ibm, client, status="Failed")
    assert resume_jobs(client, [TAG])[TAG].job.id == failed
    assert resume_jobs(client, [TAG], is_repeated=lambda job: job.id == failed)[TAG] == (f"{TAG}-1", None)


def test_the_last_submission_of_a_job_that_failed_is_resumed(ibm, client):
    first = ended(ibm, client, status="Failed")
    second = client.submit_job(**JOB, tags=[f"{TAG}-1"]).id
    for repeated in ([first], []):
        found = resume_jobs(client, [TAG], is_repeated=lambda job, ids=repeated: job.id in ids)
        assert (found[TAG].tag, found[TAG].job.id) == (f"{TAG}-1", second)


# -- what never leaves the machine ---------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["", "x" * 87, None, True, "a\nb", "a\x00"])
def test_a_wrong_tag_never_leaves_the_machine(ibm, client, tag):
    with pytest.raises(ConfigurationError, match="tag must be"):
        submit_once(client, tag, **JOB)
    assert ibm.journal == []


def test_the_tag_is_one_of_eight(ibm, client):
    with pytest.raises(ConfigurationError, match="at most 7"):
        submit_once(client, TAG, **JOB, tags=list("abcdefgh"))
    assert ibm.journal == []
    assert_one(ibm, submit_once(client, TAG, **JOB, tags=list("abcdefg")))


def test_wrong_fields_never_leave_the_machine(ibm, client):
    for change in ({"cost": -1}, {"cost": 10**5000}, {"params": {}}, {"backend": ""}, {"tags": [""]}):
        with pytest.raises(ConfigurationError, match=next(iter(change))):
            submit_once(client, TAG, **JOB | change)
    assert ibm.journal == []


@pytest.mark.parametrize("name", ["widht", 7, 10**5000, ("a",)], ids=["text", "number", "huge", "tuple"])
def test_an_unknown_field_is_named(name):
    with pytest.raises(ConfigurationError, match="unknown field; allowed are"):
        validate_job({"program_id": "sampler", "params": {"pubs": []}, name: 1})


@pytest.mark.parametrize("tags", ["mine", 7], ids=repr)
def test_wrong_tags_never_leave_the_machine(ibm, client, tags):
    with pytest.raises(ConfigurationError, match="tags"):
        submit_once(client, TAG, **JOB, tags=tags)
    assert ibm.journal == []


def test_nobody_looks_for_an_empty_tag(ibm, client):
    with pytest.raises(ConfigurationError, match="tag"):
        resume_job(client, "")
    assert ibm.journal == []
