# SPDX-License-Identifier: Apache-2.0
"""The operations against the strict fake: what is sent, and how replies are read."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

import airflow_provider_ibm_sessions.client as package
from airflow_provider_ibm_sessions.client import SessionState
from airflow_provider_ibm_sessions.client.errors import (
    AuthenticationError,
    BadResponseError,
    ConfigurationError,
    NotFoundError,
    OutcomeUnknownError,
    ServerError,
)
from testing.bad_values import BAD_IDS, BAD_TTLS
from testing.fake_ibm import FakeIBM, Fault
from tests.client.conftest import ONE_TRY, TOKEN, exchanges


def test_the_life_of_a_session(ibm, api):
    session = api.create_session(backend="ibm_fez", max_ttl="1h 30m")
    assert (session.state, session.mode, session.backend_name) == ("open", "dedicated", "ibm_fez")
    assert session.max_ttl == 5400
    assert api.get_session(session.id) == session
    assert api.update_session(session.id, accepting_jobs=False) is None
    closed = api.get_session(session.id)
    assert closed.is_closed
    assert closed.state == SessionState.CLOSED
    assert closed.state_reason == "session_closed_early"
    assert closed.closed_at.tzinfo
    assert api.close_session(session.id) is None
    assert api.close_session(session.id) is None
    assert exchanges(ibm) == 1


def test_what_create_sends(ibm, api):
    api.create_session(backend="ibm_fez", mode="batch", max_ttl=timedelta(minutes=10))
    (request,) = ibm.requests("POST", "/v1/sessions")
    assert request.json == {"mode": "batch", "backend": "ibm_fez", "max_ttl": 600}


def test_what_update_and_close_send(ibm, api):
    name = ibm.add_session().id
    api.update_session(name, accepting_jobs=True)
    api.close_session(name)
    patch, delete = ibm.requests("PATCH") + ibm.requests("DELETE")
    assert (patch.path, patch.json) == (f"/v1/sessions/{name}", {"accepting_jobs": True})
    assert (delete.path, delete.body) == (f"/v1/sessions/{name}/close", b"")


def test_every_call_says_who_asks_and_in_which_version(ibm, api):
    name = ibm.add_session().id
    api.create_session(backend="ibm_fez", max_ttl=600)
    api.get_session(name)
    api.update_session(name, accepting_jobs=True)
    api.close_session(name)
    api.list_workloads()
    api.list_backends()
    calls = [entry for entry in ibm.journal if entry.path != TOKEN]
    assert len(calls) == 6
    for entry in calls:
        assert entry.headers["authorization"] == f"Bearer {ibm.tokens[0].value}"
        assert entry.headers["service-crn"] == ibm.crn
        assert entry.headers["ibm-api-version"] == "2026-04-15"
        assert entry.headers["accept"] == "application/json"
        assert entry.headers["x-qx-client-application"].startswith("airflow-provider-ibm-sessions/")
    assert ibm.connections == 1


def test_another_api_version_is_sent(ibm, connect):
    connect(api_version="2026-03-15").list_backends()
    assert ibm.journal[-1].headers["ibm-api-version"] == "2026-03-15"


def test_versions_need_no_token(ibm, api):
    versions = {each.version: each.status for each in api.list_versions()}
    assert versions["2026-04-15"] == "live"
    assert [entry.path for entry in ibm.journal] == ["/v1/versions"]
    assert "authorization" not in ibm.journal[0].headers


def test_backends(ibm, api):
    ibm.settings.backends["ibm_fez"].status = "offline"
    backends = {each.name: each for each in api.list_backends()}
    assert backends["ibm_fez"].status.name == "offline"
    assert backends["ibm_torino"].qubits == 133


def test_a_wrong_id_never_leaves_the_machine(ibm, api):
    calls = (
        api.get_session,
        api.close_session,
        lambda value: api.update_session(value, accepting_jobs=False),
    )
    for session_id in BAD_IDS:
        for call in calls:
            with pytest.raises(ConfigurationError, match="session_id must be 1 to 500 letters"):
                call(session_id)
    assert ibm.journal == []


def test_a_wrong_max_ttl_never_leaves_the_machine(ibm, api):
    for max_ttl in BAD_TTLS:
        with pytest.raises(ConfigurationError, match="max_ttl"):
            api.create_session(backend="ibm_fez", max_ttl=max_ttl)
    assert ibm.journal == []


def test_an_unknown_mode_never_leaves_the_machine(ibm, api):
    for mode in ("dedicatd", "", None, 3, "session"):
        with pytest.raises(ConfigurationError, match=r"mode.*dedicated.*batch") as caught:
            api.create_session(backend="ibm_fez", max_ttl=60, mode=mode)
        assert caught.value.field == "mode"
    assert ibm.journal == []


@pytest.mark.parametrize("backend", ["", None, 3, " ", "ibm\nfez"])
def test_a_wrong_backend_never_leaves_the_machine(ibm, api, backend):
    with pytest.raises(ConfigurationError, match="backend"):
        api.create_session(backend=backend, max_ttl=60)
    assert ibm.journal == []


def test_accepting_jobs_is_a_boolean(ibm, api):
    for accepting in ("false", 0, None, "yes"):
        with pytest.raises(ConfigurationError, match="accepting_jobs"):
            api.update_session("some-id", accepting_jobs=accepting)
    assert ibm.journal == []


@pytest.mark.parametrize(
    "filters",
    [
        {"limit": 51},
        {"limit": 0},
        {"limit": True},
        {"mode": "dedicated"},
        {"status": ["done"]},
        {"sort": "createdat"},
        {"user": "somebody"},
        {"created_after": "yesterday"},
        {"created_before": "2026-01-02"},
        {"backend": "ibm/fez"},
        {"tags": ["a\nb"]},
        {"search": "a\x1b[0m"},
        {"colour": "blue"},
        {"search": "x" * 70_000},
    ],
    ids=lambda filters: next(iter(filters)),
)
def test_a_wrong_filter_never_leaves_the_machine(ibm, api, filters):
    with pytest.raises(ConfigurationError) as caught:
        api.list_workloads(**filters)
    assert next(iter(filters)) in str(caught.value)
    assert ibm.journal == []


def test_ids_are_percent_encoded(ibm, api):
    with pytest.raises(NotFoundError):
        api.get_session("a~b.c_d-e")
    assert ibm.requests("GET")[0].path in ("/v1/sessions/a~b.c_d-e", "/v1/sessions/a%7Eb.c_d-e")


def test_what_ibm_does_not_know_is_not_found(ibm, api):
    for call in (api.get_session, api.close_session):
        with pytest.raises(NotFoundError, match="Session not found") as caught:
            call("unknown-id")
        assert (caught.value.status, caught.value.code) == (404, "not_found")
        assert not caught.value.retryable


# -- workloads -----------------------------------------------------------------------------------------------


def test_all_pages_of_workloads_are_walked_through(ibm, api):
    names = [ibm.add_session(age=age).id for age in range(23)]
    assert [each.id for each in api.list_workloads(limit=5)] == names
    pages = ibm.requests("GET", "/v1/workloads")
    assert len(pages) == 5
    assert {tuple(page.query["limit"]) for page in pages} == {("5",)}
    assert [each.id for each in api.list_workloads(limit=5, sort="createdAt")] == names[::-1]


def test_filters_stay_on_every_page_and_lists_are_repeated_keys(ibm, api):
    for age in range(3):
        ibm.add_session(age=age)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = api.list_workloads(
        mode="session",
        status=["pending", "in_progress"],
        user="me",
        backend="ibm_fez",
        created_after=since,
        limit=2,
    )
    assert len(found) == 3
    assert found[0].mode == "session"
    for page in ibm.requests("GET", "/v1/workloads"):
        assert page.query["status"] == ["pending", "in_progress"]
        assert (page.query["mode"], page.query["user"], page.query["backend"]) == (
            ["session"],
            ["me"],
            ["ibm_fez"],
        )
        assert datetime.fromisoformat(page.query["created_after"][0]) == since


def test_tags_are_repeated_keys_too(ibm, api):
    assert api.list_workloads(tags=["a", "b c&d"]) == []
    assert ibm.journal[-1].query["tags"] == ["a", "b c&d"]


def _page(name, following):
    return {"workloads": [{"id": name}], "next": following}


@pytest.mark.parametrize(
    "link", [{"href": "https://h/v1/workloads?next=same"}, "?next=same"], ids=["object", "text"]
)
def test_a_cursor_that_repeats_ends_the_list(ibm, api, link):
    ibm.script(*[Fault("GET", "/v1/workloads", json=_page("a", link)) for _ in range(9)])
    assert len(api.list_workloads()) <= 2
    assert len(ibm.requests("GET", "/v1/workloads")) == 2


def test_cursors_that_go_round_in_circles_end_the_list(ibm, api):
    """Without an end of its own, such a list would be read for ever."""
    pages = [_page(name, f"?next={name}") for name in "ab"]
    ibm.script(*[Fault("GET", "/v1/workloads", json=page) for page in pages * 10])
    api.list_workloads()
    assert len(ibm.requests("GET", "/v1/workloads")) <= 4


@pytest.mark.parametrize("link", [None, "", {"href": ""}])
def test_a_page_without_a_link_is_the_last(ibm, api, link):
    ibm.script(Fault("GET", "/v1/workloads", json=_page("a", link)))
    assert [each.id for each in api.list_workloads()] == ["a"]
    assert len(ibm.requests("GET")) == 1


def test_a_next_link_to_another_host_is_not_followed(ibm, api):
    with FakeIBM() as other:
        link = f"{other.url}/v1/workloads?next=MjAyNg%3D%3D"
        ibm.script(Fault("GET", "/v1/workloads", json=_page("a", {"href": link})))
        ibm.script(Fault("GET", "/v1/workloads", json=_page("b", None)))
        assert [each.id for each in api.list_workloads()] == ["a", "b"]
        assert other.journal == []
    assert ibm.journal[-1].query["next"] == ["MjAyNg=="]


NO_LINKS = ["http://[", "http://[::1", "http://\u2100/", f"?next={'x' * 70_000}", "https://h/x", "?next="]


@pytest.mark.parametrize("link", NO_LINKS, ids=range(len(NO_LINKS)))
def test_a_next_link_that_is_none_is_a_bad_reply(ibm, api, link):
    """To take it for the end of the list would hide what is on the pages after it."""
    ibm.script(Fault("GET", "/v1/workloads", json=_page("a", {"href": link})))
    with pytest.raises(BadResponseError, match="cursor"):
        api.list_workloads(limit=1)


@pytest.mark.parametrize("link", [{}, {"url": "?next=b"}, {"href": None}, ["?next=b"], 7], ids=str)
def test_a_link_of_another_shape_on_a_full_page_is_a_bad_response(ibm, api, link):
    ibm.script(Fault("GET", "/v1/workloads", json=_page("a", link)))
    with pytest.raises(BadResponseError, match="next"):
        api.list_workloads(limit=1)


@pytest.mark.parametrize("link", [{}, {"href": None}, {"href": "https://x/y?limit=10"}], ids=str)
@pytest.mark.parametrize("facts", [{"limit": 50}, {"limit": 1, "total_count": 1}], ids=["short", "counted"])
def test_a_link_without_a_cursor_ends_a_list_that_is_complete(ibm, api, link, facts):
    """By IBM's schema the last page may have an empty link."""
    ibm.script(Fault("GET", "/v1/workloads", json=_page("a", link) | facts))
    assert [each.id for each in api.list_workloads(limit=facts["limit"])] == ["a"]
    assert len(ibm.requests("GET")) == 1


def test_a_page_that_the_server_made_shorter_is_no_last_page(ibm, api):
    ibm.script(Fault("GET", "/v1/workloads", json=_page("a", {}) | {"limit": 1}))
    with pytest.raises(BadResponseError, match="cursor"):
        api.list_workloads()


# -- patience with replies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending_inactive", "pending_closed", "hibernating", "", None])
def test_a_state_never_seen_before_is_read_and_is_not_final(ibm, api, state):
    ibm.script(Fault("GET", "/v1/sessions/*", json={"id": "x", "state": state, "brand_new": {"a": [1]}}))
    session = api.get_session("x")
    assert session.state == state
    assert not session.is_closed
    assert session.model_extra == {"brand_new": {"a": [1]}}


def test_an_id_is_all_that_a_created_session_must_have(ibm, api):
    ibm.settings.create_reply = "id"
    session = api.create_session(backend="ibm_fez", max_ttl=60)
    assert session.id in ibm.sessions
    assert session.to_json() == {"id": session.id}


@pytest.mark.parametrize(
    "odd",
    [
        {"state": 5},
        {"max_ttl": "1h"},
        {"active_ttl": 59.5},
        {"timestamps": {"open": 1}},
        {"started_at": "today"},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_a_created_session_is_never_lost_over_an_odd_field(ibm, api, odd):
    """Its id stands in the reply: it must come out, as a session or as a candidate."""
    ibm.script(Fault("POST", "/v1/sessions", json={"id": "the-new-one"} | odd))
    try:
        names = {api.create_session(backend="ibm_fez", max_ttl=60).id}
    except OutcomeUnknownError as error:
        names = set(error.candidates)
    assert names == {"the-new-one"}


@pytest.mark.parametrize(
    ("field", "value"), [("active_ttl", 59.5), ("max_ttl", 600), ("interactive_ttl", 60.0)], ids=str
)
def test_a_number_with_a_fraction_is_kept(ibm, api, field, value):
    ibm.script(Fault("GET", "/v1/sessions/*", json={"id": "x", field: value}))
    assert api.get_session("x").to_json() == {"id": "x", field: value}


def test_a_boolean_is_no_number(ibm, api):
    ibm.script(Fault("GET", "/v1/sessions/*", json={"id": "x", "max_ttl": True, "active_ttl": False}))
    assert api.get_session("x").to_json() == {"id": "x"}


def test_a_time_without_a_zone_is_utc(ibm, api):
    ibm.script(Fault("GET", "/v1/sessions/*", json={"id": "x", "activated_at": "2026-11-01T12:00:00"}))
    assert api.get_session("x").activated_at == datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "since",
    [datetime(2026, 1, 2), date(2026, 1, 2), "2026-01-02T00:00:00", "2026-01-02", 5, True],  # noqa: DTZ001
    ids=repr,
)
def test_a_filter_by_a_time_without_a_zone_is_refused(ibm, api, since):
    for call in (api.list_workloads, api.list_jobs):
        for field in ("created_after", "created_before"):
            with pytest.raises(
                ConfigurationError, match=f"^{field}: must be a time with a time zone"
            ) as caught:
                call(**{field: since})
            assert caught.value.field == field
    assert ibm.journal == []


def test_a_filter_by_a_time_with_a_zone_is_sent_with_it(ibm, api):
    since = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    api.list_workloads(created_after=since)
    api.list_jobs(created_before=since.isoformat())
    for entry, field in zip(ibm.requests("GET"), ("created_after", "created_before"), strict=True):
        assert datetime.fromisoformat(entry.query[field][0]) == since


def test_a_session_is_plain_json(ibm, api):
    name = ibm.add_session(state="closed").id
    facts = api.get_session(name).to_json()
    assert facts["id"] == name
    assert datetime.fromisoformat(facts["closed_at"]).tzinfo
    assert facts["timestamps"][0]["status"] == "open"


# -- the header for somebody else's request ------------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["sync"], indirect=True)
def test_authorization_is_a_header_for_others(ibm, api):
    assert api.authorization() == f"Bearer {ibm.tokens[0].value}" == api.authorization()
    assert [entry.path for entry in ibm.journal] == [TOKEN]


@pytest.mark.parametrize("flavour", ["sync"], indirect=True)
def test_authorization_fails_like_every_call(ibm, connect):
    with pytest.raises(AuthenticationError):
        connect(api_key="wrong").authorization()
    ibm.script(Fault(path=TOKEN, status=503))
    with pytest.raises(ServerError) as caught:
        connect(ONE_TRY).authorization()
    assert not caught.value.sent
    assert connect().authorization()


# -- the package ---------------------------------------------------------------------------------------------


def test_public_names():
    assert sorted(package.__all__) == sorted(set(package.__all__))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018


def test_the_client_needs_no_airflow():
    code = (
        "import sys; from airflow_provider_ibm_sessions.client import *; "
        "print([name for name in sys.modules if name.split('.')[0] == 'airflow'])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]", ran.stderr
