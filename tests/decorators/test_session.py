# SPDX-License-Identifier: Apache-2.0
"""``@task.ibm_quantum_session``, on localqpu: a live Qiskit session, which never stays open."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest
from airflow.sdk import DAG, task

from airflow_provider_ibm_sessions import hooks
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from testing.airflow_runs import with_rendered
from testing.dag_tasks import registered_sessions
from testing.fake_ibm import Fault
from testing.session_requests import submit_job


def session_of(result, task_id="work"):
    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

    return IBMQuantumHook().get_session(result.xcom(task_id, "session")["id"])


@pytest.mark.parametrize(("mode", "kind"), [("dedicated", "Session"), ("batch", "Batch")])
def test_the_function_gets_a_live_session_that_is_drained_when_it_returns(localqpu, dag, run, mode, kind):
    with dag:

        @task.ibm_quantum_session(backend=localqpu.backend, mode=mode, max_ttl="5m")
        def work(factor, session, params=None):
            from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

            assert params is not None
            before = IBMQuantumHook().get_session(session.session_id)
            return [type(session).__name__, session.session_id, before.accepting_jobs, factor * 2]

        work(21)
    result = run(dag)
    assert result.state == "success"
    name, session_id, accepting, answer = result.xcom("work")
    assert (name, accepting, answer) == (kind, True, 42)
    session = session_of(result)
    assert session.id == session_id
    assert session.accepting_jobs is False
    assert session_id in result.xcom("work", "_link_IBMQuantumSessionLink")
    patches = [r for r in localqpu.requests() if session_id in r["path"] and r["method"] != "GET"]
    assert [r["method"] for r in patches] == ["PATCH"]


def test_the_session_is_closed_when_the_function_raises(localqpu, dag, run, output):
    with dag:

        @task.ibm_quantum_session(backend=localqpu.backend)
        def work(session):
            raise ValueError("the optimiser went astray")

        work()
    result = run(dag)
    assert result.state == "failed"
    session = session_of(result)
    assert session.is_closed
    assert "the optimiser went astray" in output()
    sent = [r for r in localqpu.requests() if session.id in r["path"] and r["method"] == "DELETE"]
    assert len(sent) == 1


def test_the_session_is_closed_when_the_time_is_over(localqpu, dag, run, time_out):
    entered = []
    with dag:

        @task.ibm_quantum_session(backend=localqpu.backend, execution_timeout=timedelta(minutes=10))
        def work(session):
            import time

            entered.append(session)
            time.sleep(60)

        work()
    time_out(lambda: entered)
    result = run(dag)
    assert result.state == "failed"
    assert session_of(result).is_closed


def test_it_can_be_mapped_and_its_arguments_are_templated(localqpu, run):
    with DAG("mapped_sessions", schedule=None, params={"backend": localqpu.backend}) as dag:

        @task.ibm_quantum_session(backend="{{ params.backend }}", max_ttl="{{ 20 * 60 }}")
        def work(number, session):
            return [number, session.session_id]

        work.expand(number=[1, 2])
    result = run(dag)
    assert result.state == "success"
    found = result.xcom_of_each("work")
    assert [number for number, _ in found] == [1, 2]
    assert len({session_id for _, session_id in found}) == 2
    asked = [details["max_ttl"] for details in result.xcom_of_each("work", "session")]
    assert len(set(asked)) == 2, "each has a mark of its own"
    assert all(1200 - 1200 / 16 <= seconds < 1200 for seconds in asked)


def test_a_killed_task_closes_its_session(localqpu, dag, run):
    with dag:

        @task.ibm_quantum_session(backend=localqpu.backend)
        def work(session, task=None):
            task.on_kill()  # as Airflow calls it on SIGTERM, in the midst of the function

        work()
    result = run(dag)
    assert session_of(result).is_closed


def test_a_function_without_the_argument_is_refused_when_the_dag_is_read(dag):
    with pytest.raises(ConfigurationError, match="must have an argument 'session'"), dag:

        @task.ibm_quantum_session(backend="ibm_fez")
        def work(other):
            pass

        work(1)


class TestFunctionsThatCannotBeCalled:
    """They are refused when the Dag is read, before a session is opened for nothing."""

    def make(self, function):
        return task.ibm_quantum_session(backend="ibm_fez")(function)

    def test_a_coroutine_function(self, dag):
        async def work(session):
            return 1

        with (
            dag,
            pytest.raises(ConfigurationError, match="work must be a plain function: neither 'async def'"),
        ):
            self.make(work)()

    def test_a_generator_function(self, dag):
        def work(session):
            yield 1

        with dag, pytest.raises(ConfigurationError, match="work must be a plain function"):
            self.make(work)()

    def test_an_asynchronous_generator_function(self, dag):
        async def work(session):
            yield 1

        with dag, pytest.raises(ConfigurationError, match="work must be a plain function"):
            self.make(work)()

    @pytest.mark.parametrize("push", [True, False], ids=["with XCom", "without"])
    def test_a_plain_function_that_returns_a_coroutine(self, ibm, connection, dag, run, output, push):
        """It is seen when it is called only: the session is closed, and the task is not green."""

        async def inner():
            raise AssertionError("nobody awaits it")

        with dag:

            @task.ibm_quantum_session(backend="ibm_fez", max_ttl="8h", do_xcom_push=push)
            def work(session):
                return inner()

            work()
        assert run(dag).state == "failed"
        assert "work must run to its end when it is called: it returned a coroutine" in output()
        assert ibm.state()["sessions"] == {"closed": 1}

    def test_one_whose_session_is_given_by_position(self, dag):
        def work(session, x):
            return x

        with dag, pytest.raises(ConfigurationError, match="'session' of work is set by the task") as caught:
            self.make(work)(3)
        assert "by keyword" in str(caught.value)

    def test_one_whose_session_is_given_by_keyword(self, dag):
        def work(x, session):
            return x

        with dag, pytest.raises(ConfigurationError, match="'session' of work is set by the task"):
            self.make(work)(3, session="mine")


def test_without_qiskit_no_session_is_opened(ibm, connection, dag, run, output, monkeypatch):
    """The extra is not installed where the task runs: Python finds no such module."""
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime", None)
    monkeypatch.delitem(sys.modules, "airflow_provider_ibm_sessions.hooks.qiskit", raising=False)
    monkeypatch.delattr(hooks, "qiskit", raising=False)
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez")
        def work(session):
            pass

        work()
    assert run(dag).state == "failed"
    assert "Qiskit is not installed: pip install 'airflow-provider-ibm-sessions[qiskit]'" in output()
    assert ibm.journal == []


def test_a_session_that_may_still_bill_stays_registered_until_it_is_closed(ibm, connection, dag, run):
    """Draining lets a queue run on; a sweep must know whose it is."""
    ibm.settings.job_seconds = 600
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez", max_ttl=3600)
        def queues(session):
            submit_job(ibm, session.session_id)

        @task.ibm_quantum_session(backend="ibm_fez", max_ttl=3600)
        def idle(session):
            pass

        queues()
        idle()
    result = run(dag)
    assert result.state == "success"
    draining, closed = (result.xcom(name, "session")["id"] for name in ("queues", "idle"))
    assert not ibm.sessions[draining].accepting_jobs
    assert ibm.sessions[closed].state == "closed"
    assert draining in registered_sessions()
    assert closed not in registered_sessions()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"backend": "no such name"}, "backend"), ({"mode": "x"}, "mode"), ({"max_ttl": "soon"}, "max_ttl")],
    ids=str,
)
def test_bad_arguments_open_nothing(ibm, connection, dag, run, output, wrong, field):
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez")
        def work(session):
            pass

        with_rendered(work().operator, **wrong)
    assert run(dag).state == "failed"
    assert f"{field} must be" in output()
    assert ibm.journal == []


class TestASessionThatEndsBeforeTheFunction:
    """One error says so, instead of Qiskit's in frames of the function."""

    @pytest.fixture
    def lose(self, qpu, dag, run, output):
        """Return what runs a function that loses its session, and returns the output."""

        def lose(end):
            with dag:

                @task.ibm_quantum_session(backend="ibm_fez", retries=1, retry_delay=timedelta(0))
                def work(session):
                    from qiskit_ibm_runtime.executor_sampler import Sampler

                    compiled = compiled_for(session)
                    with session:  # closes it again when the error arises
                        end(session.session_id)
                        Sampler(mode=session).run([compiled]).result()

                work()
            result = run(dag)
            assert result.state == "failed"
            assert result.tasks["work"].try_number == 1, "a retry would pay again"
            text = output()
            assert text.count("AirflowFailException: work has lost its session: ") == 1
            assert "IBMRuntimeError" in text, "the function's own traceback"
            return text

        return lose

    def test_by_another_client(self, lose):
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        text = lose(lambda session_id: IBMQuantumHook().get_conn().close_session(session_id))
        assert "work has lost its session: clear the task to run it again in a new one. Session " in text
        assert " was closed outside of this task. " in text
        [line] = [line for line in text.splitlines() if "had ended when the function failed" in line]
        assert "[info" in line

    def test_by_the_page_which_is_named(self, lose):
        from airflow_provider_ibm_sessions.cli.metastore import hook_from_database

        def end(session_id):
            hook_from_database("ibm_quantum_default", "the page in Airflow").close_session(session_id)

        assert " was closed by the page in Airflow. " in lose(end)

    def test_by_its_max_ttl(self, lose, qpu):
        def wait(session_id):
            session = qpu.service.scheduler.sessions[session_id]
            session.started_at = qpu.clock.now() - session.max_ttl
            with qpu.service.lock:
                qpu.service.scheduler._expire(session, qpu.clock.now())

        assert "work has lost its session: raise max_ttl, which was reached. Session " in lose(wait)


def compiled_for(session):
    from qiskit import QuantumCircuit, transpile

    circuit = QuantumCircuit(1)
    circuit.measure_all()
    return transpile(circuit, session.service.backend("ibm_fez"))


def test_a_job_that_fails_in_a_with_statement_fails_and_is_retried_as_any_other(qpu, dag, run, output):
    """Leaving ``with session:`` closes the session, which is no loss of it."""
    calls = []
    qpu.service.settings.failures += [9999, 9999]
    with dag:

        @task.ibm_quantum_session(backend="ibm_fez", retries=1, retry_delay=timedelta(0))
        def work(session):
            from qiskit_ibm_runtime.executor_sampler import Sampler

            calls.append(session.session_id)
            with session:
                Sampler(mode=session).run([compiled_for(session)]).result()

        work()
    assert run(dag).state == "failed"
    assert len(set(calls)) == 2
    text = output()
    assert "RuntimeJobFailureError" in text
    assert "Error code 9999" in text
    assert "has lost its session" not in text


class TestAnErrorThatIsNotOfALostSession:
    @pytest.fixture
    def fail(self, ibm, connection, dag, run, output):
        """Return what runs a function that must fail, and returns the output; the session is closed."""

        def fail(function, **arguments):
            with dag:

                @task.ibm_quantum_session(backend="ibm_fez", max_ttl="1h", **arguments)
                def work(session):
                    function(session)

                work()
            assert run(dag).state == "failed"
            assert ibm.state()["sessions"] == {"closed": 1}
            text = output()
            assert "has lost its session" not in text
            return text

        return fail

    def close_elsewhere(self, session):
        from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

        IBMQuantumHook().get_conn().close_session(session.session_id)

    def test_of_a_session_that_the_function_has_drained(self, fail):
        def work(session):
            session.close()
            session._run("sampler", {})

        assert "IBMRuntimeError: 'The session is closed.'" in fail(work)

    def test_of_a_session_that_the_function_has_closed(self, fail):
        from qiskit_ibm_runtime.exceptions import RuntimeJobFailureError

        def work(session):
            session.cancel()
            raise RuntimeJobFailureError("Error code 1217; Session has been closed")

        assert "Error code 1217; Session has been closed" in fail(work)

    def test_of_a_session_that_the_function_has_closed_by_a_hook(self, fail):
        from qiskit_ibm_runtime.exceptions import IBMRuntimeError

        def work(session):
            from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook

            IBMQuantumHook().close_session(session.session_id)
            raise IBMRuntimeError("Failed to run program")

        assert "Failed to run program" in fail(work)

    @pytest.mark.parametrize("kind", ["RuntimeJobFailureError", "RuntimeJobMaxTimeoutError"])
    def test_of_a_job(self, fail, kind):
        from qiskit_ibm_runtime import exceptions

        def work(session):
            self.close_elsewhere(session)
            raise getattr(exceptions, kind)("Error code 1305; Ran too long")

        assert f"{kind}: 'Error code 1305; Ran too long'" in fail(work)

    def test_of_the_function_itself(self, fail):
        def work(session):
            self.close_elsewhere(session)
            raise ValueError("the optimiser went astray")

        assert "ValueError: the optimiser went astray" in fail(work)

    def test_the_session_is_closed_if_it_cannot_be_read(self, fail, ibm, quick):
        from qiskit_ibm_runtime.exceptions import IBMRuntimeError

        def work(session):
            ibm.script(Fault("GET", "/v1/sessions/*", status=500))
            raise IBMRuntimeError("Failed to run program")

        assert "Failed to run program" in fail(work)
        assert not ibm.faults.left

    def test_the_session_is_closed_if_the_time_is_over_while_it_is_read(
        self, fail, ibm, time_out, monkeypatch
    ):
        from qiskit_ibm_runtime.exceptions import IBMRuntimeError

        monkeypatch.setattr("airflow_provider_ibm_sessions.hooks.ibm_quantum._WORKER_KILL_TIMEOUT", 60.0)
        started = []

        def work(session):
            ibm.script(Fault("GET", "/v1/sessions/*", delay=60))
            started.append(session)
            raise IBMRuntimeError("Failed to run program")

        time_out(lambda: started and not ibm.faults.left)
        assert "AirflowTaskTimeout" in fail(work, execution_timeout=timedelta(minutes=10))
        assert started[0].session_id not in registered_sessions(), "the close was confirmed"
