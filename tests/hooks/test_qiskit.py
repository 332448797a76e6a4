# SPDX-License-Identifier: Apache-2.0
"""
Qiskit on a connection: whose token, how often a POST is sent, how long and how much is waited for.

The service is Qiskit's own; where circuits are run, the examples test it against an emulator.
"""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from functools import partial

import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_ibm_runtime import QiskitRuntimeService, Session
from qiskit_ibm_runtime.api.client_parameters import ClientParameters
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError

from airflow_provider_ibm_sessions.client import results
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    OutcomeUnknownError,
    ServerError,
    TransportError,
)
from airflow_provider_ibm_sessions.client.retries import RetryPolicy
from airflow_provider_ibm_sessions.hooks import qiskit
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.qiskit import PLACEHOLDER_API_KEY, route_logs
from testing.fake_ibm import Fault
from testing.result_payloads import npy
from tests.client.conftest import Canned, http
from tests.conftest import connection_to

PARAMS = {"pubs": [["OPENQASM 3.0;"]], "version": 2}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Retries that end soon."""
    policy = RetryPolicy(max_elapsed=0.3, initial_backoff=0.01, max_backoff=0.02, list_lag=0.1)
    monkeypatch.setattr("airflow_provider_ibm_sessions.client.client.RetryPolicy", lambda: policy)


@pytest.fixture
def service(ibm, connection):
    return IBMQuantumHook().qiskit_service()


def backends(service):
    """A call of Qiskit's own that goes to the API."""
    return [backend["name"] for backend in service._active_api_client.list_backends()]


def run_job(service, tags=None):
    """What a primitive's ``run`` calls."""
    return service._active_api_client.program_run(
        "sampler", "ibm_fez", PARAMS, None, None, None, job_tags=tags
    )


def test_speaks_with_our_token(ibm, service):
    assert "ibm_fez" in backends(service)
    assert ibm.state()["token_exchanges"] == 1


def test_the_key_is_not_given_to_qiskit(ibm, service):
    assert ibm.api_key not in json.dumps(service.active_account())
    assert PLACEHOLDER_API_KEY in json.dumps(service.active_account())


def test_no_key_even_when_iam_is_down(ibm, connection):
    ibm.script(Fault(method="POST", path="/identity/token", status=503, times=None))
    with pytest.raises(ServerError, match="Get an IAM token"):
        backends(IBMQuantumHook().qiskit_service())
    assert ibm.requests("POST", "/identity/token")[-1].status == 503
    assert ibm.leaks == []


def test_a_token_that_is_refused_is_renewed_once(ibm, service):
    backends(service)
    ibm.revoke_tokens()
    assert "ibm_fez" in backends(service)
    assert ibm.state()["token_exchanges"] == 2


def test_a_token_that_is_refused_for_ever_is_an_error(ibm, service):
    ibm.script(Fault(method="GET", path="/v1/backends", status=401, times=None))
    before = len(ibm.requests("GET", "/v1/backends"))
    with pytest.raises(IBMNotAuthorizedError):
        backends(service)
    assert len(ibm.requests("GET", "/v1/backends")) == before + 2


# -- kind: work sent twice by a library ----------------------------------------------------------------------


lost = pytest.mark.parametrize(
    "fault",
    [{"status": status} for status in (500, 502, 503, 504, 520, 521, 522, 524)] + [{"drop": True}],
    ids=str,
)


@lost
def test_a_job_whose_response_is_lost_is_found_and_not_posted_again(ibm, service, fault):
    ibm.script(Fault(method="POST", path="/v1/jobs", phase="after", **fault))
    found = run_job(service)
    assert [found["id"]] == list(ibm.jobs)
    assert found["backend"] == "ibm_fez"
    assert len(ibm.requests("POST", "/v1/jobs")) == 1


@lost
def test_a_job_that_never_arrived_is_posted_again_once_it_was_looked_for(ibm, service, fault):
    ibm.script(Fault(method="POST", path="/v1/jobs", phase="before", **fault))
    assert [run_job(service)["id"]] == list(ibm.jobs)
    kinds = [entry.operation for entry in ibm.journal if entry.operation in ("create_job", "list_jobs")]
    assert kinds[0] == "create_job"
    assert set(kinds[1 : kinds.index("create_job", 1)]) == {"list_jobs"}
    assert ibm.state()["duplicate_submits"] == []


def test_a_job_that_ibm_never_answers_is_of_unknown_outcome(ibm, service):
    ibm.script(Fault(method="POST", path="/v1/jobs", status=504, phase="before", times=None))
    with pytest.raises(OutcomeUnknownError, match=r"Qiskit's POST /v1/jobs: .*may have been carried out"):
        run_job(service)
    assert ibm.jobs == {}


def test_each_job_has_a_tag_of_its_own_beside_the_users(ibm, service):
    run_job(service)
    run_job(service, ["mine", "too"])
    first, second = (job.tags for job in ibm.jobs.values())
    assert [tag for tag in first + second if tag not in ("mine", "too")] == [*first, second[-1]]
    assert second[:-1] == ["mine", "too"]
    assert first[0] != second[-1]


def test_an_eighth_tag_of_the_users_is_refused_before_anything_is_sent(ibm, service):
    with pytest.raises(ConfigurationError, match="job_tags must be a list of at most 7 strings"):
        run_job(service, list("abcdefgh"))
    assert ibm.requests("POST", "/v1/jobs") == []


def test_a_job_that_ibm_refuses_is_an_error_of_qiskits(ibm, service):
    with pytest.raises(RequestsApiError, match="Program not found") as caught:
        service._active_api_client.program_run("nosuch", "ibm_fez", {}, None, None, None)
    assert caught.value.status_code == 404
    assert len(ibm.requests("POST", "/v1/jobs")) == 1


def test_a_session_is_not_posted_again_either(ibm, service):
    ibm.script(Fault(method="POST", path="/v1/sessions", status=504, phase="after", times=3))
    with pytest.raises(OutcomeUnknownError):
        service._active_api_client.create_session("ibm_fez", ibm.crn, 60, "dedicated")
    assert len(ibm.sessions) == len(ibm.requests("POST", "/v1/sessions")) == 1


def test_a_job_that_was_surely_not_taken_is_posted_again(ibm, service):
    ibm.script(Fault(method="POST", path="/v1/jobs", status=429))
    assert run_job(service)["id"] in ibm.jobs
    assert len(ibm.requests("POST", "/v1/jobs")) == 2


def test_what_changes_nothing_is_asked_again(ibm, service):
    before = len(ibm.requests("GET", "/v1/backends"))
    ibm.script(Fault(method="GET", path="/v1/backends", status=503))
    assert "ibm_fez" in backends(service)
    assert len(ibm.requests("GET", "/v1/backends")) == before + 2


def test_errors_of_ibm_reach_qiskit(ibm, service):
    with pytest.raises(RequestsApiError) as caught:
        service._active_api_client.job_get("no-such-job")
    assert caught.value.status_code == 404


# -- kind: waiting for ever, and reading without end ---------------------------------------------------------


def test_a_silent_server_is_not_waited_for_longer_than_the_connection_says(ibm, monkeypatch):
    """Qiskit passes no timeout for backends, and 900 s for a job."""
    monkeypatch.setenv("AIRFLOW_CONN_C", connection_to(ibm, timeout=0.5))
    service = IBMQuantumHook("c").qiskit_service()
    ibm.script(Fault(path="/v1/*", delay=25, times=None))
    with pytest.raises(TransportError, match="Qiskit's GET /v1/backends"):
        backends(service)
    with pytest.raises(OutcomeUnknownError, match="Qiskit's POST /v1/jobs"):
        run_job(service)


def test_qiskit_goes_through_the_proxy_of_the_connection(ibm, connection, monkeypatch):
    with Canned() as proxy:
        proxy.reply = b"HTTP/1.1 403 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        facts = json.loads(
            connection_to(ibm, iam_url="https://iam.example", proxy=proxy.url.removesuffix("/api"))
        )
        monkeypatch.setenv("AIRFLOW_CONN_C", json.dumps(facts | {"host": "https://api.example/api"}))
        with pytest.raises(TransportError):
            backends(IBMQuantumHook("c").qiskit_service())
        assert {request.split()[0] for request in proxy.requests} == {b"CONNECT"}
        proxy.shutdown()


def test_qiskit_follows_no_redirect(ibm, service):
    with Canned() as elsewhere:
        ibm.script(
            Fault(
                method="GET", path="/v1/backends", status=307, headers={"Location": elsewhere.url}, times=None
            )
        )
        with pytest.raises(BadResponseError, match="redirect"):
            backends(service)
        assert elsewhere.requests == []
        elsewhere.shutdown()


def test_a_response_to_qiskit_is_bounded_in_size(ibm, service, monkeypatch):
    monkeypatch.setattr(qiskit, "MAX_PAYLOAD_BYTES", 100)
    with pytest.raises(BadResponseError, match="longer than 100 bytes"):
        backends(service)


def test_qiskit_is_given_no_result_that_expands_to_gigabytes(ibm, service, monkeypatch):
    job = run_job(service)["id"]
    api = service._active_api_client
    path = f"/v1/jobs/{job}/results"
    ibm.script(
        Fault("GET", path, json=[npy(bytes(900_000))]), Fault("GET", path, json=[npy(bytes(1_100_000))])
    )
    monkeypatch.setattr(results, "check_expansion", partial(results.check_expansion, most=1_000_000))
    assert api.job_results(job)
    with pytest.raises(BadResponseError, match="too large for Qiskit to decode"):
        api.job_results(job)


def test_qiskit_is_given_no_parameters_that_expand_to_gigabytes(ibm, service, monkeypatch):
    job = run_job(service)["id"]
    api = service._active_api_client
    params = {"pubs": [npy(bytes(1_100_000))]}
    ibm.script(Fault("GET", f"/v1/jobs/{job}", json={"id": job, "params": params}))
    monkeypatch.setattr(results, "check_expansion", partial(results.check_expansion, most=1_000_000))
    with pytest.raises(BadResponseError, match="too large for Qiskit to decode"):
        api.job_get(job)


def test_qiskit_is_given_no_results_that_are_nested_too_deep_for_it():
    with pytest.raises(BadResponseError, match="nested too deep"):
        results.check_for_qiskit(b"[" * 100_000 + b"]" * 100_000)
    assert results.check_for_qiskit(b"no JSON") is None


def test_qiskit_speaks_to_no_other_host(ibm, service):
    session = service._active_api_client._session
    with Canned() as elsewhere:
        elsewhere.reply = http({})
        with pytest.raises(ConfigurationError, match="is not sent: the connection is for"):
            session.get(f"{elsewhere.url}/v1/backends", bare=True, params={})
        assert elsewhere.requests == []
        elsewhere.shutdown()


def test_copies_of_a_client_share_its_connections(service):
    adapter = service._active_api_client._session.get_adapter("https://x")
    assert copy.deepcopy(adapter) is adapter


# -- kind: private parts of Qiskit ---------------------------------------------------------------------------


def test_the_private_parts_that_are_used_are_there(service):
    """If this fails, a new Qiskit has moved what ``hooks/qiskit.py`` relies on: see its three properties."""
    assert hasattr(ClientParameters, "get_auth_handler")
    assert service._active_api_client._session.adapters.keys() == {""}
    assert service._client_params.token == PLACEHOLDER_API_KEY
    bound = Session(GenericBackendV2(2), create_new=False)
    assert (bound._session_id, bound._active) == (None, True)


@pytest.mark.parametrize("missing", ["get_auth_handler", "_session", "_active_api_client"])
def test_a_qiskit_without_them_is_refused_by_name(ibm, connection, monkeypatch, missing):
    if missing == "get_auth_handler":
        monkeypatch.delattr(ClientParameters, missing)
    elif missing == "_session":
        monkeypatch.setattr("qiskit_ibm_runtime.qiskit_runtime_service.RuntimeClient", lambda _: object())
    else:
        monkeypatch.setattr(QiskitRuntimeService, "__init__", lambda self, **_: setattr(self, "_x", 1))
        missing = "_client_params"
    with pytest.raises(
        AirflowOptionalProviderFeatureException, match=rf"qiskit-ibm-runtime \d.*has no .*{missing}"
    ):
        IBMQuantumHook().qiskit_service()
    assert ibm.leaks == []


# -- kind: noise ---------------------------------------------------------------------------------------------

GREEN = """
import logging, sys
import airflow.sdk, airflow.settings  # as in a task: Airflow has set its own logging up
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record)
root = logging.getLogger()
root.handlers[:] = [Keep()]
root.setLevel(logging.INFO)
import airflow_provider_ibm_sessions.hooks.qiskit
from qiskit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
logging.getLogger("qiskit_ibm_runtime.sampler").info("Submitting the job.")
logging.getLogger("qiskit_ibm_runtime").warning("A warning.")
logging.getLogger("qiskit_ibm_runtime.api.rest.runtime").info("Posting the API request.")
circuit = QuantumCircuit(2)
circuit.h(0); circuit.cx(0, 1); circuit.measure_all()
generate_preset_pass_manager(optimization_level=1).run(circuit)
names = [(record.name.split(".")[0], record.levelname, record.getMessage()) for record in records]
assert ("qiskit_ibm_runtime", "INFO", "Submitting the job.") in names, names
assert ("qiskit_ibm_runtime", "WARNING", "A warning.") in names, names
assert not [name for name in names if name[2].startswith(("Pass:", "Posting"))], names
"""


def test_qiskit_logs_at_its_own_levels_and_not_to_stderr():
    done = subprocess.run([sys.executable, "-c", GREEN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


READING = """
import logging
import airflow.sdk, airflow.settings  # as in a task: Airflow has set its own logging up
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
root = logging.getLogger()
root.handlers[:] = [Keep()]
root.setLevel(logging.INFO)
from airflow_provider_ibm_sessions.operators._job_results import JobResultCollector, ResultStorage
JobResultCollector(None, None, ResultStorage(None, 1000)).collect([])
import qiskit_ibm_runtime.executor_sampler
assert not [line for line in records if line.startswith("Pass:")], records
"""


def test_reading_results_brings_no_lines_of_qiskits_compiler_into_the_log():
    done = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[-500:]) == (0, "")


def test_qiskit_does_not_warn_that_it_uses_the_connection(connection, caplog):
    IBMQuantumHook().qiskit_service()
    assert "saved account" not in caplog.text


def test_a_log_file_that_a_user_has_chosen_is_kept(tmp_path):
    logger = logging.getLogger("qiskit_ibm_runtime")
    file = logging.FileHandler(tmp_path / "log")
    logger.addHandler(file)
    try:
        route_logs()
        assert file in logger.handlers
    finally:
        logger.removeHandler(file)
        file.close()


def test_a_level_that_a_user_has_chosen_is_kept():
    code = (
        "import logging; logger = logging.getLogger('qiskit.passmanager'); logger.setLevel('INFO')\n"
        "import airflow_provider_ibm_sessions.hooks.qiskit; assert logger.level == logging.INFO"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_qiskit_is_imported_only_when_it_is_asked_for():
    code = (
        "import sys, airflow_provider_ibm_sessions.hooks.ibm_quantum as _; assert 'qiskit' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
