# SPDX-License-Identifier: Apache-2.0
"""How far jobs are: one look, whatever the client, in as few calls as it takes."""

from __future__ import annotations

import re

import pytest

from airflow_provider_ibm_sessions.client import Job, Session
from airflow_provider_ibm_sessions.client.errors import (
    ConfigurationError,
    IBMQuantumError,
    NotFoundError,
    ServerError,
)
from airflow_provider_ibm_sessions.client.flows import JobSet, Progress
from testing.bad_values import BAD_IDS
from testing.fake_ibm import Fault
from tests.client.conftest import BRIEF

JOBS = "/v1/jobs"
UNKNOWN = "d0000000000000000000"


@pytest.fixture
def session(ibm):
    return ibm.add_session().id


@pytest.fixture
def submit(ibm):
    """Jobs that nobody submitted over HTTP: what is counted is the looks."""

    def submit(count, session_id=None, **facts):
        life, pub = ibm.service.scheduler, ["OPENQASM 3.0; bit[2] c;", None, 10]
        facts = {
            "backend": "ibm_fez",
            "program_id": "sampler",
            "params": {"pubs": [pub]},
            "cost": 600.0,
        } | facts
        with ibm.service.lock:
            now = ibm.clock.now()
            made = [
                life.submit(now, user_id=ibm.user_id, session_id=session_id, **facts) for _ in range(count)
            ]
        return tuple(job.id for job in made)

    return submit


def look(api, *job_ids, session_id=None):
    return api.run_flow(JobSet(job_ids, session_id).poll())


def names(progress):
    return tuple(job.id for job in progress.jobs)


def lists(ibm):
    return len(ibm.requests("GET", JOBS))


def reads(ibm):
    return [entry.path.rpartition("/")[2] for entry in ibm.requests("GET", f"{JOBS}/*")]


# -- jobs by their ids ---------------------------------------------------------------------------------------


def test_jobs_are_in_the_order_in_which_they_were_named(ibm, api, submit):
    first, second, third = submit(3)
    progress = look(api, third, first, second)
    assert names(progress) == (third, first, second)
    assert (progress.final, progress.is_done, progress.session) == (0, False, None)
    assert lists(ibm) == 0


def test_jobs_end_one_after_the_other(ibm, api, submit):
    wanted = submit(3)
    for count in range(4):
        progress = look(api, *wanted)
        assert (progress.final, progress.is_done) == (count, count == 3)
        assert str(progress) == f"{count} of 3 jobs completed"
        ibm.clock.advance(1)


def test_jobs_that_fail_or_are_cancelled_are_done_too(ibm, api, submit):
    ibm.next_jobs([{"status": "Failed"}, {"status": "Completed"}, {"seconds": 50}])
    wanted = submit(3, cost=10.0)
    api.cancel_job(wanted[1])
    ibm.clock.advance(60)
    progress = look(api, *wanted)
    assert progress.is_done
    assert str(progress) == "0 of 3 jobs completed, 3 failed or cancelled"
    assert [job.final_status for job in progress.jobs] == ["Failed", "Cancelled", "Cancelled - Ran too long"]


def test_a_state_never_seen_before_is_not_done(ibm, api):
    ibm.script(Fault("GET", f"{JOBS}/*", json={"id": "x", "state": {"status": "Cancelling"}}))
    assert str(look(api, "x")) == "0 of 1 jobs completed"


@pytest.mark.parametrize(
    ("word", "said"), [("Completed", "1 of 1 jobs completed"), ("Failed", "0 of 1 jobs completed, 1 failed")]
)
def test_a_final_state_with_a_reason_is_done(ibm, api, word, said):
    """Such as IBM's own ``Cancelled - Ran too long``: nobody waits on for what has ended."""
    job = {"id": "x", "status": f"{word} - Some reason", "state": {"status": word}}
    ibm.script(Fault("GET", f"{JOBS}/*", json=job))
    progress = look(api, "x")
    assert progress.is_done
    assert str(progress).startswith(said)


@pytest.mark.parametrize("with_session", [False, True])
def test_an_unknown_job_is_not_found(ibm, api, session, submit, with_session):
    wanted = submit(2, session)
    with pytest.raises(NotFoundError, match=UNKNOWN):
        look(api, *wanted, UNKNOWN, session_id=session if with_session else None)


# -- the jobs of a session -----------------------------------------------------------------------------------


def test_many_jobs_of_a_session_take_one_list(ibm, api, session, submit):
    wanted = submit(30, session)
    submit(3)
    api.list_backends()
    before = len(ibm.journal)
    progress = look(api, session_id=session)
    assert names(progress) == wanted
    assert progress.session.id == session
    assert lists(ibm) == 1
    assert len(ibm.journal) - before <= 3


def test_a_look_at_named_jobs_of_a_session_takes_one_list_too(ibm, api, session, submit):
    wanted = submit(30, session)[::-1][:20]
    progress = look(api, *wanted, session_id=session)
    assert names(progress) == wanted
    assert (lists(ibm), len(reads(ibm))) == (1, 1)


def test_a_session_whose_jobs_have_all_ended_takes_two_calls(ibm, api, session, submit):
    submit(30, session)
    ibm.clock.advance(30)
    before = len(ibm.journal)
    assert str(look(api, session_id=session)).startswith("30 of 30 jobs completed, session active")
    assert [entry.path for entry in ibm.journal[before:] if entry.path.startswith("/v1")] == [
        JOBS,
        f"/v1/sessions/{session}",
    ]


def test_more_jobs_than_a_page_holds(ibm, api, session, submit):
    wanted = submit(230, session)
    ibm.clock.advance(20)
    progress = look(api, session_id=session)
    assert names(progress) == wanted
    assert (progress.final, len(progress.jobs)) == (100, 230)
    assert lists(ibm) == 2


def test_a_poll_asks_for_no_parameters(ibm, api, session, submit):
    submit(3, session)
    look(api, session_id=session)
    for entry in ibm.requests("GET", f"{JOBS}*"):
        assert entry.query["exclude_params"] == ["true"]


def test_jobs_of_a_session_follow_its_end(ibm, api, session, submit):
    ibm.settings.queue_seconds = 100
    submit(3, session)
    assert not look(api, session_id=session).is_done
    api.close_session(session)
    progress = look(api, session_id=session)
    assert progress.is_done
    assert {job.to_error().code for job in progress.jobs} == {"1217"}
    assert progress.session.is_closed


def test_an_unknown_session_is_not_found(ibm, api, submit):
    """IBM lists nothing for it, which looks like a session that has no jobs yet."""
    with pytest.raises(NotFoundError, match="Session not found"):
        look(api, session_id="unknown")
    with pytest.raises(NotFoundError):
        look(api, *submit(1), session_id="unknown")


def test_a_session_without_jobs_is_done_when_it_closes(ibm, api, session):
    progress = look(api, session_id=session)
    assert (progress.jobs, progress.is_done) == ((), False)
    assert str(progress) == "0 of 0 jobs completed, session open"
    api.close_session(session)
    assert look(api, session_id=session).is_done


@pytest.mark.parametrize("state", ["open", "active", "inactive"])
def test_a_session_that_may_get_jobs_is_not_done(ibm, api, state):
    assert not look(api, session_id=ibm.add_session(state=state).id).is_done


def test_trouble_that_passes_is_seen_out(ibm, api, session, submit):
    wanted = submit(3, session)
    ibm.script(*[Fault("GET", path, status=503) for path in (JOBS, f"{JOBS}/*", "/v1/sessions/*")])
    assert names(look(api, session_id=session)) == wanted


def test_trouble_that_lasts_is_an_error(ibm, connect, session, submit):
    submit(3, session)
    for path in (JOBS, f"{JOBS}/*", "/v1/sessions/*"):
        ibm.clear_faults()
        ibm.script(Fault("GET", path, status=503, times=None))
        with pytest.raises(ServerError):
            look(connect(BRIEF), session_id=session)


# -- a list that lags ----------------------------------------------------------------------------------------


def stale(ibm, wanted, states):
    """Let the next list show these jobs in these states."""
    shown = [
        {"id": name, "state": {"status": state}, "status": state}
        for name, state in zip(wanted, states, strict=True)
    ]
    ibm.script(Fault("GET", JOBS, json={"jobs": shown, "count": len(shown), "offset": 0, "limit": 200}))


def test_jobs_that_the_list_does_not_show_yet_are_read(ibm, api, session, submit):
    wanted = submit(4, session)
    ibm.clock.advance(1)
    stale(ibm, wanted[:2], ["Completed"] * 2)
    progress = look(api, *wanted[::-1], session_id=session)
    assert names(progress) == wanted[::-1]
    assert progress.is_done
    assert sorted(reads(ibm)) == sorted(wanted[2:])


def test_jobs_of_no_session_or_another_are_read(ibm, api, session, submit):
    wanted = submit(1) + submit(1, session) + submit(1, ibm.add_session().id)
    ibm.clock.advance(1)
    progress = look(api, *wanted, session_id=session)
    assert (names(progress), progress.final) == (wanted, 3)
    assert set(reads(ibm)) == {wanted[0], wanted[2]}


@pytest.mark.parametrize("named", [False, True])
def test_a_list_that_lags_does_not_hide_the_end_of_the_last(ibm, api, session, submit, named):
    wanted = submit(3, session)
    ibm.clock.advance(5)
    stale(ibm, wanted, ["Completed", "Completed", "Running"])
    progress = look(api, *(wanted if named else ()), session_id=session)
    assert progress.is_done
    assert reads(ibm) == [wanted[2]]


def test_a_list_that_lags_far_behind_costs_one_read(ibm, api, session, submit):
    wanted = submit(20, session)
    ibm.clock.advance(60)
    stale(ibm, wanted, ["Queued"] * 20)
    assert look(api, session_id=session).final == 1
    assert reads(ibm) == [wanted[0]]
    assert look(api, session_id=session).is_done


@pytest.mark.parametrize(("doubted", "is_read"), [([], False), ([1, 2], True)], ids=["trusted", "doubted"])
def test_a_list_that_is_trusted_costs_no_read_but_of_the_oldest_doubted(
    ibm, api, session, submit, doubted, is_read
):
    wanted = submit(3, session)
    ibm.clock.advance(5)
    stale(ibm, wanted, ["Queued"] * 3)
    api.run_flow(JobSet((), session).poll(None, [wanted[number] for number in doubted]))
    assert reads(ibm) == ([wanted[1]] if is_read else [])


def test_a_list_that_is_still_empty_is_not_the_end(ibm, api, session, submit):
    submit(2, session)
    stale(ibm, [], [])
    assert not look(api, session_id=session).is_done


@pytest.mark.parametrize("in_session", [False, True])
def test_a_reply_about_another_job_is_an_error_of_ours(ibm, api, session, submit, in_session):
    (wanted,) = submit(1)
    ibm.script(
        Fault("GET", f"{JOBS}/*", json={"id": "another", "state": {"status": "Completed"}}, times=None)
    )
    with pytest.raises(IBMQuantumError):
        look(api, wanted, session_id=session if in_session else None)


# -- in words ------------------------------------------------------------------------------------------------


def told(progress_session, done=7, total=20):
    jobs = [Job(id=f"j{n}", status="Completed" if n < done else "Queued") for n in range(total)]
    return str(Progress(tuple(jobs), progress_session))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"state": "active", "elapsed_time": 212.4, "max_ttl": 3600}, "active, active 3m 32s"),
        ({"state": "active", "elapsed_time": 0.0, "max_ttl": 3600}, "active, active 0s"),
        ({"state": "closed", "elapsed_time": 99}, "closed, active 1m 39s"),
        ({"state": "open", "max_ttl": 3600}, "open"),
        ({"state": "closed", "activated_at": "2026-01-01T00:00:00Z", "max_ttl": 3600}, "closed"),
        ({"state": "active", "activated_at": "2999-01-01T00:00:00Z"}, "active, active 0s"),
        ({"state": "active", "started_at": "2026-01-01T00:00:00Z", "max_ttl": 60}, "active, at most 0s left"),
    ],
)
def test_progress_in_words(facts, words):
    assert told(Session(id="x", **facts)) == f"7 of 20 jobs completed, session {words}"


def test_progress_in_words_without_a_session():
    assert told(None) == "7 of 20 jobs completed"


def test_progress_in_words_tells_failed_jobs_from_completed_ones():
    states = ["Completed"] * 7 + ["Failed", "Cancelled"] + ["Queued"] * 11
    jobs = tuple(Job(id=f"j{number}", status=state) for number, state in enumerate(states))
    session = Session(id="x", state="active", elapsed_time=5, max_ttl=3600)
    assert str(Progress(jobs, session)) == (
        "7 of 20 jobs completed, 2 failed or cancelled, session active, active 5s"
    )


def test_the_session_is_read_only_when_a_job_has_become_final(ibm, api, session, submit):
    submit(3, session)
    seen = look(api, session_id=session).final
    reads_of_session = len(ibm.requests("GET", f"/v1/sessions/{session}"))
    assert api.run_flow(JobSet((), session).poll(seen)).session is None
    assert len(ibm.requests("GET", f"/v1/sessions/{session}")) == reads_of_session
    ibm.clock.advance(60)
    assert api.run_flow(JobSet((), session).poll(seen)).session.id == session


def test_the_use_of_a_session_that_is_active(ibm, api, submit):
    """While it is active, IBM does not say how long it has been: it says since when."""
    session = ibm.add_session(state="active", age=212, max_ttl=3600).id
    submit(20, session)
    words = re.fullmatch(
        r"0 of 20 jobs completed, session active, active 3m (\d+)s, at most 56m (\d+)s left",
        str(look(api, session_id=session)),
    )
    assert 31 <= int(words[1]) <= 40
    assert 20 <= int(words[2]) <= 29


def test_the_use_of_a_session_that_is_closed(ibm, api, session, submit):
    submit(7, session)
    ibm.clock.advance(10)
    api.close_session(session)
    ibm.clock.advance(1000)
    words = "7 of 7 jobs completed, session closed, active 10s"
    assert str(look(api, session_id=session)) == words


# -- what never leaves the machine ---------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [{}, {"job_ids": ()}, {"session_id": ""}, {"session_id": None}], ids=str)
def test_there_must_be_something_to_look_at(facts):
    with pytest.raises(ConfigurationError, match="job_id or session_id"):
        JobSet(**facts)


@pytest.mark.parametrize("bad", BAD_IDS, ids=range(len(BAD_IDS)))
def test_a_wrong_id_is_named(bad):
    for session_id in (None, "good"):
        with pytest.raises(ConfigurationError, match="job_id must be 1 to 500 letters") as caught:
            JobSet(("good", bad), session_id)
        assert caught.value.field == "job_id"


@pytest.mark.parametrize("bad", BAD_IDS, ids=range(len(BAD_IDS)))
def test_a_wrong_session_is_named(bad):
    with pytest.raises(ConfigurationError, match="session_id must be 1 to 500 letters") as caught:
        JobSet(("good",), bad)
    assert caught.value.field == "session_id"


def test_a_text_is_no_list_of_ids():
    try:
        assert JobSet("d123").job_ids == ("d123",)
    except ConfigurationError as error:
        assert error.field == "job_id"
