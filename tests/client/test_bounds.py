# SPDX-License-Identifier: Apache-2.0
"""No response costs more than it is worth: bytes, depth, charsets, rows, pages and delays are bounded."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import tracemalloc
import zlib

import pytest

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, client, responses, results
from airflow_provider_ibm_sessions.client._http import timeouts, transport
from airflow_provider_ibm_sessions.client._results.arrays import MemoryBudget
from airflow_provider_ibm_sessions.client.errors import (
    AuthenticationError,
    BadResponseError,
    ConfigurationError,
    IBMQuantumError,
    OutcomeUnknownError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.models import paging
from airflow_provider_ibm_sessions.client.polling import MAX_DELAY, FailureTolerance
from airflow_provider_ibm_sessions.client.results import decode_results
from tests.client.conftest import ONE_TRY, credentials_for, http

MB = 2**20


@pytest.fixture
def api(connect, canned):
    return connect(ONE_TRY, url=canned.url)


def padded(head, unit, size):
    return head + unit * ((size - len(head)) // len(unit)) + b"0]}"


# -- content codings -----------------------------------------------------------------------------------------

BOMB = gzip.compress(gzip.compress(b'{"id":"x","a":"' + b"0" * 20_000_000 + b'"}'))
CODINGS = {
    "gzip": gzip.compress(b'{"id":"x"}'),
    "deflate": zlib.compress(b'{"id":"x"}'),
    "GZIP": gzip.compress(b'{"id":"x"}'),
    "gzip, gzip": BOMB,
    "identity, gzip": gzip.compress(b'{"id":"x"}'),
    "br": b"\x0b\x02\x80{}\x03",
    "zstd": b"(\xb5/\xfd",
    "made-up": b'{"id":"x"}',
}


@pytest.mark.parametrize(("coding", "body"), CODINGS.items(), ids=CODINGS)
def test_a_compressed_response_is_refused_before_it_is_unpacked(api, canned, coding, body):
    canned.reply = http({"id": "x"})
    api.get_session("x")  # with its token: to mask one takes memory for all that were masked before
    canned.reply = http(body, Content_Encoding=coding)
    tracemalloc.start()
    try:
        with pytest.raises(BadResponseError, match="compressed"):
            api.get_session("x")
        assert tracemalloc.get_traced_memory()[1] < 2 * MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " identity , identity"])
def test_identity_is_no_compression(api, canned, coding):
    canned.reply = http({"id": "x"}, Content_Encoding=coding)
    assert api.get_session("x").id == "x"


@pytest.mark.parametrize(
    ("status", "kind"),
    [("503 Busy", ServerError), ("429 Slow", RateLimitedError), ("401 Who", AuthenticationError)],
)
def test_of_a_compressed_error_the_status_counts(api, canned, status, kind):
    canned.reply = http(BOMB, status, Content_Encoding="gzip, gzip", Retry_After="7")
    with pytest.raises(kind) as caught:
        api.get_session("x")
    assert caught.value.retry_after == 7


def test_of_an_error_without_end_the_status_counts(api, canned):
    """What a proxy says of an outage may be retried, as the closing of a session must be."""
    canned.reply = http(b" " * (MB + 9), "502 Bad Gateway")
    with pytest.raises(ServerError, match=r"\(HTTP 502\)") as caught:
        api.close_session("x")
    assert caught.value.retryable


def test_a_compressed_token_is_refused(ibm, connect, canned):
    canned.reply = http(BOMB, Content_Encoding="gzip, gzip")
    with pytest.raises(BadResponseError, match="compressed") as caught:
        connect(ONE_TRY, iam_url=canned.url.removesuffix("/api")).create_session("ibm_fez")
    assert not caught.value.sent


# -- many small parts ---------------------------------------------------------------------------------------

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\na\r\n{"id": "x"\r\n'
LAST_CHUNKS = b"1\r\n}\r\n0\r\n"
SMALL_PARTS = {
    "interim responses": b"HTTP/1.1 103 \r\n\r\n" * 1500 + http({"id": "x"}),
    "headers": JSON_HEAD + b"a:\r\n" * 7000 + b'Content-Length: 10\r\n\r\n{"id":"x"}',
    "chunks of one byte": CHUNKED + b"1\r\n \r\n" * 10_000 + LAST_CHUNKS + b"\r\n",
    "chunks of one byte after a large one": CHUNKED
    + b"%x\r\n%b\r\n" % (MB // 2, b" " * (MB // 2))
    + b"1\r\n \r\n" * 10_000
    + LAST_CHUNKS
    + b"\r\n",
    "chunks with extensions": CHUNKED + b"1;a=b\r\n \r\n" * 10_000 + LAST_CHUNKS + b"\r\n",
}
NO_BODY = {
    "interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000 + http({"id": "x"}),
    "headers of an interim response": b"HTTP/1.1 103 \r\n" + b"a:\r\n" * 20_000 + b"\r\n" + http({"id": "x"}),
    "headers": JSON_HEAD + b"a:\r\n" * 20_000 + b'Content-Length: 10\r\n\r\n{"id":"x"}',
    "cookies": JSON_HEAD + b"Set-Cookie: a=b\r\n" * 5000 + b'Content-Length: 10\r\n\r\n{"id":"x"}',
    "trailers": CHUNKED + LAST_CHUNKS + b"a:\r\n" * 20_000 + b"\r\n",
}


async def read_beside(ibm, url):
    """Return the session that is read, and the turns that another task had meanwhile."""
    turns = 0

    async def other_task():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(other_task())
    try:
        async with AsyncIBMQuantumClient(credentials_for(ibm, url=url, timeout=60), ONE_TRY) as api:
            return await api.get_session("x"), turns
    finally:
        other.cancel()


@pytest.mark.parametrize("kind", SMALL_PARTS)
def test_a_response_of_many_small_parts_leaves_turns_to_other_tasks(ibm, canned, kind):
    canned.reply = SMALL_PARTS[kind]
    session, turns = asyncio.run(read_beside(ibm, canned.url))
    assert session.id == "x"
    small = SMALL_PARTS[kind].count(b"\r\n \r\n")
    assert turns >= small // transport.PARTS_PER_TURN + len(canned.reply) // timeouts.BODY_READ
    if not small:
        assert turns >= len(canned.reply) // timeouts.HEAD_READ


@pytest.mark.parametrize("kind", NO_BODY)
def test_in_an_event_loop_what_is_no_body_is_bounded(ibm, canned, kind):
    canned.reply = NO_BODY[kind]
    with pytest.raises(TransportError, match="more than 32,768 bytes of headers"):
        asyncio.run(read_beside(ibm, canned.url))


def test_cookies_are_not_kept(ibm, canned):
    """They are never sent, and would be kept for as long as a triggerer runs."""
    canned.reply = http({"id": "x"}, Set_Cookie="a=b; Max-Age=99999")
    with transport.open_client(credentials_for(ibm, url=canned.url)) as blocking:
        blocking.get(canned.url)

    async def cookies_in_a_loop():
        async with transport.open_async_client(credentials_for(ibm, url=canned.url)) as looped:
            await looped.get(canned.url)
            return list(looped.cookies.jar)

    assert list(blocking.cookies.jar) == asyncio.run(cookies_in_a_loop()) == []


# -- bytes ---------------------------------------------------------------------------------------------------


def test_a_description_is_at_most_one_mebibyte(api, canned):
    canned.reply = http(padded(b'{"id":"x","new":[', b"{},", MB + 9))
    for call in (api.get_session, api.get_job, api.job_metrics):
        with pytest.raises(BadResponseError, match=r"Get a .*longer than 1,048,576 bytes"):
            call("x")
    with pytest.raises(OutcomeUnknownError, match="longer than"):
        api.submit_job("sampler", backend="ibm_fez", params={"pubs": ["OPENQASM 3.0;"]})
    with pytest.raises(BadResponseError, match="longer than"):
        api.close_session("x")


def test_a_page_of_200_jobs_with_long_reasons_fits(api, canned):
    job = {"tags": ["x" * 86] * 8, "state": {"status": "Failed", "reason": "x" * 15_000}}
    jobs = [{"id": f"j{number}"} | job for number in range(200)]
    canned.reply = http({"jobs": jobs, "count": 200})
    assert len(api.list_jobs()) == 200


@pytest.mark.parametrize("call", ["list_jobs", "list_workloads", "list_backends"])
def test_a_page_is_at_most_four_mebibytes(api, canned, call):
    canned.reply = http(padded(b'{"new":[', b"{},", 4 * MB + 9))
    with pytest.raises(BadResponseError, match="longer than 4,194,304 bytes"):
        getattr(api, call)()


def test_results_may_be_longer(api, canned):
    """A million shots take 7 MB."""
    canned.reply = http({"results": [{"data": {"c": {"samples": ["0x3"] * 500_000}}}]})
    assert len(api.job_results("x")["results"][0]["data"]["c"]["samples"]) == 500_000


@pytest.mark.parametrize("item", ["[]", "{}", "1", '"0x3"', '{"a":1}', "[0,[1]]"])
def test_results_of_more_values_than_a_worker_can_hold_are_refused_before_they_are_read(
    api, canned, monkeypatch, item
):
    """Five hundred megabytes of empty lists would take ten gigabytes."""
    monkeypatch.setattr(responses, "MAX_VALUES", 1000)
    canned.reply = http({"results": [[json.loads(item)] * 1100]})
    with pytest.raises(BadResponseError, match="more than 1,000 values, too many") as caught:
        api.job_results("x")
    assert not caught.value.retryable
    canned.reply = http({"results": [[json.loads(item)] * 150], "metadata": "x" * 3000})
    assert len(api.job_results("x")["results"][0]) == 150


def test_the_copy_of_results_is_bounded(monkeypatch):
    monkeypatch.setattr(results, "MemoryBudget", lambda: MemoryBudget(100_000))
    learned = {"schema_version": "v0.1", "data": [{"generators_sparse": [["XX", [0, 1]]] * 2000}]}
    report = decode_results(learned).to_json()
    assert "too large to decode here" in report["error"]
    assert report["results"] == learned


@pytest.mark.parametrize("rows", ["{}", "0", "[]", '{"id":"x"}'])
@pytest.mark.parametrize("kind", ["jobs", "workloads", "devices", "versions"])
def test_a_page_of_countless_rows_is_refused_without_an_error_for_each(api, canned, kind, rows):
    calls = {"jobs": "list_jobs", "workloads": "list_workloads", "devices": "list_backends"}
    canned.reply = http(padded(f'{{"{kind}":['.encode(), rows.encode() + b",", 900_000))
    with pytest.raises(BadResponseError) as caught:
        getattr(api, calls.get(kind, "list_versions"))()
    assert len(str(caught.value)) < 1000


def test_states_without_number_cost_the_list_of_states_only(api, canned):
    canned.reply = http(padded(b'{"id":"x","timestamps":[', b"{},", 900_000))
    session = api.get_session("x")
    assert (session.id, session.timestamps) == ("x", None)


def test_a_long_response_is_read_beside_the_event_loop(ibm, canned, monkeypatch):
    """In a thread alone it would not be: the decoder of the standard library does not let go of the lock."""
    beats, during = [0], []
    plain = json.loads

    def loads(*args, **kwargs):
        before = beats[0]
        parsed = plain(*args, **kwargs)
        during.append(beats[0] - before)
        return parsed

    async def beat():
        while True:
            beats[0] += 1
            await asyncio.sleep(0)

    async def main():
        async with AsyncIBMQuantumClient(credentials_for(ibm, url=canned.url), ONE_TRY) as api:
            beating = asyncio.create_task(beat())
            await api.job_results("x")
            canned.reply = http({"id": "x"})
            await api.get_session("x")
            beating.cancel()

    canned.reply = http({"results": ["0x3"] * 200_000})
    assert len(canned.reply) > client.MAX_READ_IN_LOOP
    monkeypatch.setattr(responses.json, "loads", loads)
    asyncio.run(main())
    _token, long, short = during
    assert long > 3
    assert short == 0, "short ones are not worth a thread"


# -- charsets ------------------------------------------------------------------------------------------------

CHARSETS = ["hex", "zip", "bz2", "base64", "rot13", "uu", "idna", "punycode", "undefined", "unicode_escape"]
CHARSETS += ["utf-7", "utf-16", "nonsense", "raw_unicode_escape", "mbcs", "\xfc", "'"]


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_codec_that_the_server_names_is_not_used(api, canned, charset):
    for body in (b"+ADw-x\xff\\u0041", zlib.compress(b"x" * 1000)):
        canned.reply = http(body, kind=f"text/plain; charset={charset}")
        assert api.job_logs("x") == body.decode("utf-8", "replace")
        with pytest.raises(IBMQuantumError) as caught:
            api.job_results("x")
        assert "URL" not in str(caught.value)


def test_logs_in_utf_8_arrive(api, canned):
    canned.reply = http("ψ\n\U0001d11e".encode(), kind="text/plain; charset=utf-8")
    assert api.job_logs("x") == "ψ\n\U0001d11e"


# -- depth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [101, 250, 500, 5000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_a_description_that_is_nested_too_deep_is_refused(api, canned, depth, opening, closing):
    nested = opening * depth + "0" + closing * depth
    canned.reply = http(f'{{"id":"x","new":{nested}}}'.encode())
    for call in (api.get_session, api.get_job, api.close_session):
        with pytest.raises(BadResponseError, match="nested") as caught:
            call("x")
        assert not caught.value.retryable
    canned.reply = http(f'{{"errors":[{{"message":{nested},"code":{nested}}}]}}'.encode(), "400 Bad")
    with pytest.raises(IBMQuantumError):
        api.get_session("x")


def test_what_is_read_can_be_written_again(api, canned):
    canned.reply = http(b'{"id":"x","new":' + b"[" * 98 + b"]" * 98 + b"}")
    assert api.get_session("x").model_dump_json()


# -- pages ---------------------------------------------------------------------------------------------------

LISTS = {"jobs": "list_jobs", "workloads": "list_workloads"}


def endless(kind, per_page, new_rows=True, new_cursors=True):
    """Answer each request with another page."""
    number = [0]

    def reply(_request):
        number[0] += 1
        first = number[0] * per_page if new_rows else 0
        rows = [{"id": f"row-{first + index}"} for index in range(per_page)]
        cursor = number[0] if new_cursors else 0
        return http({kind: rows, "next": {"href": f"?next={cursor}"}, "count": 10**9, "total_count": 10**9})

    return reply


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_new_rows_without_end_ends(api, canned, kind):
    canned.reply = endless(kind, 1000)
    with pytest.raises(BadResponseError, match="does not end after 20 pages with 20000 rows"):
        getattr(api, LISTS[kind])()
    assert len(canned.requests) == 20


def test_a_list_of_pages_without_end_ends(api, canned, monkeypatch):
    monkeypatch.setattr(paging, "MAX_PAGES", 30)
    for per_page, new_rows in ((0, True), (2, False)):
        canned.requests.clear()
        canned.reply = endless("workloads", per_page, new_rows)
        with pytest.raises(BadResponseError, match="does not end after 30 pages"):
            api.list_workloads()
        assert len(canned.requests) == 30


def test_a_server_that_ignores_the_offset_gives_each_job_once(api, canned):
    for count in ({}, {"count": 100}):
        canned.requests.clear()
        canned.reply = http({"jobs": [{"id": "j1"}, {"id": "j2"}]} | count)
        assert [job.id for job in api.list_jobs(limit=2)] == ["j1", "j2"]
        assert len(canned.requests) == 2


def test_a_page_that_begins_with_rows_of_the_last_one_gives_each_once(api, canned):
    pages = [["a", "b"], ["b", "c"], ["c"]]

    def reply(_request):
        return http({"jobs": [{"id": name} for name in pages[len(canned.requests) - 1]]})

    canned.reply = reply
    assert [job.id for job in api.list_jobs(limit=2)] == ["a", "b", "c"]


@pytest.mark.parametrize("count", [0, 1, 2, -5, True, 2**70, "many"])
def test_a_count_that_cannot_be_true_does_not_end_a_list_early(api, canned, count):
    """A job that is not seen is submitted again, and paid for again."""

    def reply(_request):
        page = [["a", "b"], ["c"]][min(len(canned.requests), 2) - 1]
        return http({"jobs": [{"id": name} for name in page], "count": count})

    canned.reply = reply
    assert [job.id for job in api.list_jobs(limit=2)] == ["a", "b", "c"]


@pytest.mark.parametrize("limit", [2, 1, 0, -3, True, None, 2**70])
def test_a_page_that_is_shorter_than_was_asked_for_does_not_end_a_list_of_jobs(api, canned, limit):
    """A server may send fewer rows than it was asked for, and say so."""

    def reply(_request):
        page = [["a", "b"], ["c"], []][min(len(canned.requests), 3) - 1]
        return http({"jobs": [{"id": name} for name in page], "limit": limit})

    canned.reply = reply
    is_told = type(limit) is int and 0 < limit < 200
    assert [job.id for job in api.list_jobs()] == (["a", "b", "c"] if is_told else ["a", "b"])


@pytest.mark.parametrize("cursor", ["\\ud800", "%00", "a%0Ab", "x" * 1001])
def test_a_cursor_that_cannot_be_sent_is_refused(api, canned, cursor):
    page = f'{{"workloads":[{{"id":"a"}}],"next":{{"href":"?next={cursor}"}}}}'
    canned.reply = http(page.encode())
    with pytest.raises(BadResponseError, match="cursor of the next page"):
        api.list_workloads()
    with pytest.raises(ConfigurationError, match="next: must be a string"):
        api.list_workloads(next="\ud800")


@pytest.mark.parametrize("total", [0, 1, -5, True])
def test_a_total_that_cannot_be_true_does_not_hide_a_lost_cursor(api, canned, total):
    rows = [{"id": "a"}, {"id": "b"}]
    canned.reply = http({"workloads": rows, "next": {"href": "?limit=2"}, "total_count": total})
    with pytest.raises(BadResponseError, match="holds no cursor"):
        api.list_workloads(limit=2)


@pytest.mark.parametrize("limit", [-1, 0])
def test_a_limit_that_cannot_be_true_does_not_fail_a_list_that_ends(api, canned, limit):
    canned.reply = http({"workloads": [{"id": "a"}], "next": {}, "limit": limit})
    assert [workload.id for workload in api.list_workloads(limit=2)] == ["a"]


# -- delays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [86_400.0, 1e9, MAX_DELAY + 1])
def test_a_poll_is_not_delayed_for_a_day(asked):
    tolerance = FailureTolerance(honours_retry_after=True)
    assert tolerance.tolerates(ServerError("x", retry_after=asked))
    assert tolerance.delay == MAX_DELAY


def test_the_decoder_for_threads_reads_what_the_other_one_reads():
    text = '{"a": [1, -2.5e3, true, null, "\\u00e9\\ud834\\udd1e"], "b": {}, "c": Infinity}'
    assert json.loads(text, cls=responses._SharingDecoder) == json.loads(text)
    for broken in ("", "[1,", '{"a" 1}', "nul"):
        with pytest.raises(ValueError, match=r".+"):
            json.loads(broken, cls=responses._SharingDecoder)
    assert "c_make_scanner" not in repr(responses._SharingDecoder().scan_once), sys.version
