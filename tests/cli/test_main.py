# SPDX-License-Identifier: Apache-2.0
"""The command, as a person and as a script use it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_ibm_sessions.cli.main import FAILED, INTERRUPTED, REFUSED, UNKNOWN, WRONG, parser
from airflow_provider_ibm_sessions.client.credentials import ENV_API_KEY, ENV_CRN
from airflow_provider_ibm_sessions.client.usage import format_duration
from testing.connections import connection_to
from testing.fake_ibm import Fault
from tests.client.conftest import QUICK, assert_hidden
from tests.server.conftest import BEARER, BODY, TOKEN, request_of, until

COMMAND = [sys.executable, "-m", "airflow_provider_ibm_sessions.cli.main"]
CREATE = ["create", "--mode", "batch", "--backend", "ibm_fez", "--max-ttl", "10m"]


def test_a_session_from_its_opening_to_its_end(ibm, run):
    code, out, _ = run(*CREATE)
    assert code == 0
    name = dict(line.split(None, 1) for line in out.splitlines())["id"]
    assert ibm.sessions[name].max_ttl == 600
    assert json.loads(run("get", name, "--json")[1])["state"] == "open"
    assert run("update", name, "--accepting-jobs", "false")[0] == 0
    assert not ibm.sessions[name].accepting_jobs
    code, out, _ = run("close", name, "--json")
    assert (code, json.loads(out)["state"]) == (0, "closed")
    assert ibm.state()["accepting"] == []


def test_what_is_open_is_listed(ibm, run):
    batch = ibm.add_session(mode="batch", age=20).id
    session = ibm.add_session(age=10, user="somebody").id
    ended = ibm.add_session(state="closed").id
    code, out, _ = run("list")
    assert code == 0
    heading, *rows = [line.split() for line in out.splitlines()]
    assert heading[:3] == ["id", "mode", "state"]
    assert [row[:3] for row in rows] == [[session, "dedicated", "open"], [batch, "batch", "open"]]
    assert [each["id"] for each in json.loads(run("list", "--mine", "--json")[1])] == [batch]
    assert [each["id"] for each in json.loads(run("list", "--mode", "batch", "--json")[1])] == [batch]
    assert not any("status" in each for each in json.loads(run("list", "--json")[1]))
    assert [row.split()[2] for row in run("list", "--all")[1].splitlines() if ended in row] == ["closed"]
    assert len(json.loads(run("list", "--all", "--limit", "1", "--json")[1])) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["get", "a/b"], "id"),
        (["create", "--mode", "fast", "--backend", "ibm_fez"], "mode"),
        (["create", "--mode", "batch", "--backend", "ibm_fez", "--max-ttl", "soon"], "max_ttl"),
        (["create", "--mode", "batch"], "--backend"),
        (["update", "x", "--accepting-jobs", "perhaps"], "accepting_jobs"),
        (["list", "--limit", "many"], "--limit"),
        (["list", "--limit", "0"], "from 1 to"),
        (["serve", "rest", "--port", "70000"], "port 70000"),
        (["delete", "x"], "delete"),
        (["serve", "rest", "--host", "0.0.0.0"], "IBM_QUANTUM_SESSIONS_TOKEN"),
        (["serve", "mcp", "--host", "192.0.2.1"], "bearer token"),
        (["serve", "rest", "--token-file", "/nowhere"], "--token-file"),
        (["serve", "rest", "--name", "quantum.example:443"], "quantum.example:443"),
        (["serve", "mcp", "--stdio", "--host", "0.0.0.0"], "--host"),
        (["serve", "mcp", "--stdio", "--token-file", "x"], "--token-file"),
        (["serve", "mcp", "--stdio", "--no-token"], "--no-token"),
        (["serve", "rest", "--host", "0.0.0.0", "--no-token"], "bearer token"),
        (["serve", "rest", "--max-ttl", "soon"], "max_ttl"),
        (["create", "--mode", "batch", "--backend", "q", "--max-ttl", "99999d"], "2147483647 seconds"),
        (["get", "None"], "session_id is empty"),
        (["close", "a\nb"], "id"),
        (["get", "x" * 501], "id"),
        (["create", "--mode", "batch", "--backend", "None"], "backend: is empty"),
        (["create", "--mode", "batch", "--backend", "\x1b[0m"], "backend: must be the name of a QPU"),
        (["create", "--mode", "batch", "--backend", "q", "--max-ttl", "true"], "max_ttl"),
        (["create", "--mode", "batch\x00", "--backend", "q"], "mode"),
        (["list", "--backend", "ibm/fez"], "backend: must be the name of a QPU"),
        (["list", "--mode", "session"], "--mode"),
        (["list", "--limit", "1.5"], "from 1 to"),
        (["list", "--conn-id", ""], "ibm_quantum_conn_id is empty"),
        (["list", "--conn-id", "a\x1b[0m"], "ibm_quantum_conn_id must be the id of an Airflow connection"),
        (["sweep", "--scope", "everything"], "scope must be one of airflow, user, instance"),
        (["sweep", "--min-age", "-1"], "min_age must be 1 to"),
        (["sweep", "--min-age", "soon"], "min_age must be 1 to"),
        (["serve", "rest", "--host", "\xe9" * 70, "--name", "x"], "bearer token"),
        (["serve", "mcp", "--port", "-1"], "port -1"),
        (["serve", "mcp", "--max-ttl", "0"], "max_ttl"),
        (["drain", "a/b"], "id"),
        (["jobs", "--session", "a/b"], "session_id"),
        (["jobs", "--tag", "x" * 87], "tags"),
        (["jobs", "--limit", "0"], "from 1 to"),
        (["results", "a/b"], "job_id"),
        (["results", "x", "--raw", "--json"], "--raw"),
        (["cancel", "x", "a/b"], "job_id"),
        (["cancel"], "JOB_ID"),
        ([], "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_named_and_ibm_hears_nothing(ibm, run, arguments, named):
    code, out, err = run(*arguments)
    assert (code, out) == (WRONG, "")
    assert named in err
    assert ibm.journal == []


def test_exit_codes_tell_what_happened(ibm, run, monkeypatch):
    monkeypatch.setattr("airflow_provider_ibm_sessions.client.client.RetryPolicy", lambda: QUICK)
    code, _, err = run("get", "unknown")
    assert code == REFUSED
    assert "Session not found" in err
    ibm.script(Fault("GET", "/v1/sessions/*", html=True))
    assert run("get", "x")[0] == FAILED
    ibm.script(Fault("POST", "/v1/sessions", status=500, phase="after"))
    code, out, err = run(*CREATE)
    assert (code, out) == (UNKNOWN, "")
    assert "may have been carried out" in err
    assert all(name in err for name in ibm.sessions)


def test_without_a_connection_the_environment_serves(run, monkeypatch):
    code, _, err = run("get", "x", conn_id=None)
    assert code == WRONG
    assert ENV_API_KEY in err
    assert ENV_CRN in err
    monkeypatch.setenv(ENV_API_KEY, "a-key")
    monkeypatch.setenv(ENV_CRN, "crn:of:something:else")
    code, _, err = run("get", "x", conn_id=None)
    assert code == WRONG
    assert "It must look like crn:v1:" in err


def test_an_unknown_connection_is_named(run, airflow_db):
    code, _, err = run("get", "x", "--conn-id", "nowhere")
    assert code == WRONG
    assert "'nowhere'" in err


def test_a_fault_gives_no_secret_away(ibm, run):
    ibm.script(Fault(path="/v1/*", echo=True, status=400))
    code, out, err = run("get", "x")
    assert code == REFUSED
    assert "Cannot process" in err
    assert_hidden(ibm, out + err)


# -- as a process of its own ---------------------------------------------------------------------------------


def started(environment, *arguments, **options):
    everything = {**os.environ, **environment}
    return subprocess.Popen(
        [*COMMAND, *arguments], env=everything, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGTERM] * 3, [signal.SIGINT] * 3],
    ids=str,
)
def test_a_session_whose_creation_is_interrupted_is_closed(ibm, environment, numbers):
    ibm.script(Fault("POST", "/v1/sessions", delay=1.0, phase="after"))
    process = started(environment, *CREATE, "--conn-id", "quantum", stdout=subprocess.PIPE)
    until(lambda: ibm.sessions)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (INTERRUPTED, "")
    [name] = ibm.sessions
    assert name in err
    assert err.count("which can take minutes") == 1
    assert ibm.state()["accepting"] == []


def test_a_session_whose_id_cannot_be_printed_is_closed(ibm, environment):
    reading, writing = os.pipe()
    os.close(reading)
    process = started(environment, *CREATE, "--conn-id", "quantum", stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=300)
    assert process.returncode == FAILED
    [name] = ibm.sessions
    assert name in err
    assert ibm.state()["accepting"] == []


def test_a_session_whose_id_no_disk_takes_is_closed(ibm, environment):
    with open("/dev/full", "w") as full:
        process = started(environment, *CREATE, "--conn-id", "quantum", stdout=full)
        _, err = process.communicate(timeout=300)
    assert process.returncode == FAILED
    assert "No space left" in err
    assert "Traceback" not in err
    assert ibm.state()["accepting"] == []


@pytest.mark.parametrize("arguments", [CREATE, ["list"], ["serve", "mcp", "--stdio"]], ids=" ".join)
def test_without_an_output_nothing_is_sent(ibm, environment, arguments):
    closed = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *arguments, "--conn-id", "quantum"]
    done = subprocess.run(
        closed, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == FAILED
    assert "standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr
    assert ibm.journal == []


def test_a_database_that_fails_is_told_in_a_line(ibm, environment, tmp_path):
    process = started(environment | {"AIRFLOW_HOME": str(tmp_path)}, "sweep", "--conn-id", "quantum")
    _, err = process.communicate(timeout=300)
    assert process.returncode == FAILED
    assert "Airflow's database: " in err.splitlines()[-1]
    assert "Traceback" not in err


def test_what_a_terminal_does_not_have_is_shown_otherwise(ibm, environment):
    name = ibm.add_session(user="josé").id
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    process = started(environment | ascii_only, "get", name, "--conn-id", "quantum", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "jos\\xe9" in out


def test_airflows_log_is_not_in_the_answer(ibm, environment):
    ibm.add_session()
    loud = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
    process = started(environment | loud, "list", "--json", "--conn-id", "quantum", stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    assert len(json.loads(out)) == 1
    assert "debug" in err


@pytest.mark.parametrize("interface", ["rest", "mcp"])
def test_it_serves_until_it_is_told_to_end(ibm, environment, interface, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    more = ["--port", "0", "--token-file", str(tmp_path / "token"), "--conn-id", "quantum"]
    process = started(environment, "serve", interface, *more)
    try:
        serving = next(line for line in process.stderr if line.startswith("Serving on "))
        url = serving.split()[-1].removesuffix("/mcp")
        assert httpx.get(f"{url}/health", timeout=30).json() == {"live": True, "ready": True}
        if interface == "rest":
            assert httpx.post(f"{url}/v1/sessions", json=BODY, timeout=30).status_code == 401
            assert httpx.post(f"{url}/v1/sessions", json=BODY, headers=BEARER, timeout=30).status_code == 200
            assert len(ibm.sessions) == 1
        process.terminate()
        _, err = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGTERM)
    finally:
        process.kill()
    assert_hidden(ibm, err)
    assert TOKEN not in err


class Service:
    """One that serves in a process of its own, and a caller who opens a session there and waits."""

    def __init__(self, process):
        serving = next(line for line in process.stderr if line.startswith("Serving on "))
        self.process = process
        self.place = urlsplit(serving.split()[-1])

    def open_session(self):
        connection = socket.create_connection((self.place.hostname, self.place.port), timeout=300)
        connection.sendall(request_of(self.place, "POST", "/v1/sessions", BODY))
        return connection

    def told(self, numbers):
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.2)


@pytest.fixture
def service(ibm, environment):
    process = started(environment, "serve", "rest", "--port", "0", "--no-token", "--conn-id", "quantum")
    try:
        yield Service(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT] * 3, [signal.SIGTERM, signal.SIGINT], [signal.SIGHUP] * 2], ids=str
)
def test_a_service_ends_in_order_however_it_is_told(ibm, service, numbers, stays):
    ibm.script(Fault("POST", "/v1/sessions", delay=1.5, phase="after"))
    with service.open_session() as caller:
        until(lambda: ibm.sessions)
        if not stays:
            caller.close()
        service.told(numbers)
        answer = caller.recv(10_000) if stays else b""
        _, err = service.process.communicate(timeout=300)
    assert err.count("which can take minutes") == 1
    assert answer.startswith(b"HTTP/1.1 200") is stays
    assert len(ibm.state()["accepting"]) == int(stays)


def test_a_service_whose_terminal_has_gone_ends_in_order(ibm, service):
    ibm.script(Fault("POST", "/v1/sessions", delay=1.5, phase="after"))
    with service.open_session() as caller:
        until(lambda: ibm.sessions)
        caller.close()
        service.process.stderr.close()
        service.told([signal.SIGHUP, signal.SIGTERM])
        service.process.wait(timeout=300)
    assert ibm.state()["accepting"] == []


def test_a_change_prints_the_session_as_it_is_afterwards(ibm, run):
    name = ibm.add_session().id
    code, out, err = run("update", name, "--accepting-jobs", "false", "--json")
    assert (code, json.loads(out)["accepting_jobs"], err) == (0, False, "")
    code, out, err = run("close", name)
    assert (code, err) == (0, "")
    assert dict(line.split(None, 1) for line in out.splitlines())["state"] == "closed"


def test_a_change_that_cannot_be_read_back_is_done_all_the_same(ibm, run):
    name = ibm.add_session().id
    ibm.script(Fault("GET", f"/v1/sessions/{name}", status=403, times=None))
    code, out, err = run("close", name, "--json")
    assert (code, json.loads(out)) == (0, {"id": name, "done": True})
    assert "could not be read afterwards" in err
    assert ibm.sessions[name].state == "closed"


def test_a_closed_session_that_is_to_accept_jobs_is_an_error(ibm, run):
    name = ibm.add_session(state="closed").id
    code, out, err = run("update", name, "--accepting-jobs", "true", "--json")
    assert (code, json.loads(out)["state"]) == (REFUSED, "closed")
    assert f"Session {name} is closed" in err


def test_drain_leaves_queued_jobs_to_run(ibm, run):
    name = ibm.add_session().id
    code, out, err = run("drain", name, "--json")
    assert (code, json.loads(out)["accepting_jobs"], err) == (0, False, "")


@pytest.mark.parametrize("command", ["drain", "close"])
def test_a_change_that_ibm_does_not_make_is_an_error(ibm, run, command):
    name = ibm.add_session().id
    ibm.script(Fault(path=f"/v1/sessions/{name}*", no_content=True))
    code, out, err = run(command, name)
    assert (code, "open" in out) == (FAILED, True)
    assert f"Session {name} is still open" in err or f"Session {name} still accepts jobs" in err


def test_a_session_that_may_not_be_read_is_listed_all_the_same(ibm, run):
    name = ibm.add_session(user="somebody").id
    ibm.script(Fault("GET", "/v1/sessions/*", status=403, times=None))
    code, out, err = run("list", "--json")
    assert (code, [(each["id"], each["state"]) for each in json.loads(out)]) == (0, [(name, None)])
    assert "The state of 1 sessions could not be read" in err


@pytest.mark.parametrize(
    "arguments", [["get", "x"], ["close", "x"], ["drain", "x"], ["update", "x", "--accepting-jobs", "true"]]
)
def test_an_error_is_said_once(ibm, run, arguments):
    code, _, err = run(*arguments)
    assert code == REFUSED
    assert len(err.splitlines()) == 1, err


def test_a_connection_costs_no_warning_of_airflows(ibm, environment):
    process = started(environment, "list", "--conn-id", "quantum", stdout=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_another_backend_than_was_asked_for_is_told(ibm, run):
    given = {"id": "x", "mode": "batch", "backend_name": "ibm_torino", "state": "open", "max_ttl": 600}
    ibm.script(Fault("POST", "/v1/sessions", json=given))
    code, _, err = run(*CREATE)
    assert code == 0
    assert "granted the backend ibm_torino, not the ibm_fez asked for" in err


def test_a_shorter_max_ttl_than_was_asked_for_is_told(ibm, run):
    create = ["create", "--mode", "batch", "--backend", "ibm_fez", "--max-ttl"]
    code, out, err = run(*create, "9h", "--json")
    assert (code, json.loads(out)["max_ttl"]) == (0, 28_800)
    assert "granted a max_ttl of 8h, less than the 9h" in err
    assert run(*create, "8h")[2] == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (5_400, "1h 30m"),
        (86_461, "1d 1m 1s"),
        (12.5, "12.5s"),
        (67.35931, "1m 7.36s"),
        (28_800, "8h"),
    ],
)
def test_durations_have_units(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "command",
    [
        *("", "create", "get", "update", "close", "drain", "list", "jobs", "results", "cancel", "backends"),
        *("sweep", "usage", "emulator", "serve", "serve rest", "serve mcp"),
    ],
)
def test_every_help_has_examples_that_can_be_parsed(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    examples = re.findall(r"^  ibm-quantum-sessions (.*)", out.partition("Examples:")[2], re.MULTILINE)
    assert examples
    for example in examples:
        if not example.endswith("--help"):
            parser().parse_args(example.split())


def test_a_service_prints_the_token_that_it_makes_and_no_other(ibm, environment):
    process = started(environment, "serve", "rest", "--port", "0", "--conn-id", "quantum")
    try:
        url = next(line for line in process.stderr if line.startswith("Serving on ")).split()[-1]
        header = next(process.stderr).partition("Authorization: ")[2].strip()
        assert httpx.post(f"{url}/v1/sessions", json=BODY, timeout=30).status_code == 401
        headers = {"Authorization": header}
        assert httpx.post(f"{url}/v1/sessions", json=BODY, headers=headers, timeout=30).status_code == 200
        process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert header.partition(" ")[2] not in err
    assert "POST create-session" in err


def test_options_are_written_out(run):
    code, _, err = run("sweep", "--clo")
    assert code == WRONG
    assert "--clo" in err


def test_a_list_that_is_cut_off_says_so(ibm, run):
    for _ in range(3):
        ibm.add_session()
    code, out, err = run("list", "--limit", "2", "--json")
    assert (code, len(json.loads(out))) == (0, 2)
    assert "more than these 2" in err
    assert "more than these" not in run("list", "--limit", "3")[2]


def test_airflow_offers_it(ibm, airflow_db):
    """``airflow ibm-quantum`` works on the default connection."""
    ibm.add_session()
    environment = {**os.environ, "AIRFLOW_CONN_IBM_QUANTUM_DEFAULT": connection_to(ibm)}
    command = [sys.executable, "-m", "airflow", "ibm-quantum", "list", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout[done.stdout.index("[") :])
    assert found["id"] in ibm.sessions


def test_airflow_pays_little_for_the_offer():
    """Every start of ``airflow`` asks for the commands; that loads neither the client nor a web framework."""
    code = (
        "import sys\n"
        "from airflow_provider_ibm_sessions.cli import airflow as airflow_command\n"
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('airflow', 'fastapi', 'httpx', 'mcp', 'pydantic', 'starlette', 'uvicorn')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_who_has_no_mcp_is_told_what_to_install():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('mcp', 'mcp_types'): raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from airflow_provider_ibm_sessions.cli import main as commands\n"
        "from airflow_provider_ibm_sessions.server import rest\n"
        "sys.exit(commands.main(['serve', 'mcp']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == WRONG
    assert "airflow-provider-ibm-sessions[mcp]" in done.stderr


def test_a_shell_completes_commands_and_modes():
    script = """
        eval "$(register-python-argcomplete ibm-quantum-sessions)"
        for COMP_LINE in "ibm-quantum-sessions re" "ibm-quantum-sessions create --mode "; do
          COMP_POINT=${#COMP_LINE} COMP_TYPE=9
          _python_argcomplete ibm-quantum-sessions
          echo "${COMPREPLY[*]}"
        done
    """
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert [line.split() for line in done.stdout.splitlines()] == [["results"], ["dedicated", "batch"]]
