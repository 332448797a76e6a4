# SPDX-License-Identifier: Apache-2.0
"""
Times without a zone, booleans and texts in numeric fields, ids with control characters, in every argument.

The arguments are found in the signatures, so a new operator or method is tested as well. An argument that no
other has needs wrong values in ``testing/bad_values.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, BaseOperator, get_current_context, task
from airflow.triggers.base import BaseTrigger

from airflow_provider_ibm_sessions.client import AsyncIBMQuantumClient, IBMQuantumClient
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, IBMQuantumError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from testing.bad_values import BAD_ARGUMENTS, GOOD_TRIGGER_ARGUMENTS
from testing.signatures import INTERNAL, classes, make, methods, own_arguments


def assert_names(text: str, argument: str) -> None:
    """Check that an error says on one line which argument is wrong."""
    assert argument in text[:100], text
    assert text.isprintable(), text
    assert len(text) < 600, text


LATE = {"jobs", "program_params", "cost"}
"""Templated arguments that are checked when the task runs. It imports what that needs, as for a storage."""
TASKS = classes(BaseOperator, "operators", "sensors", "decorators")


@pytest.mark.parametrize("cls", TASKS, ids=lambda cls: cls.__name__)
def test_every_argument_of_a_task_is_checked_when_the_dag_is_read_or_before_anything_is_sent(
    ibm, connection, run, cls
):
    late: list[tuple[str, Any]] = []
    for argument in own_arguments(cls):
        assert argument in BAD_ARGUMENTS, f"add wrong values of {argument} to testing/bad_values.py"
        for value in BAD_ARGUMENTS[argument]:
            try:
                make(cls, **{argument: value})
            except ConfigurationError as error:
                assert_names(error.message, argument)
            else:
                may_be_late = argument in cls.template_fields and (
                    argument in LATE or value in (None, "nosuch://x")
                )
                assert may_be_late, (argument, value, "is accepted when the Dag is read")
            if argument in cls.template_fields:
                late.append((argument, value))
    accepted: list[Any] = []

    @task
    def run_each() -> int:
        context = get_current_context()
        for number, (argument, value) in enumerate(late):
            # Each has a record of its own: what the one before has started is not resumed.
            wrong = make(cls, task_id=f"wrong_{number}", **{argument: "{{ rendered }}"})
            setattr(wrong, argument, value)
            try:
                wrong.execute(context)
            except AirflowFailException as error:
                assert_names(str(error), argument)
            except Exception as error:
                accepted.append((argument, value, repr(error)))
            else:
                accepted.append((argument, value))
        return len(late)

    with DAG(f"wrong_{cls.__name__}", schedule=None, default_args={"retries": 0}) as dag:
        run_each()
    assert run(dag).xcom("run_each") == len(late)
    assert accepted == []
    assert [f"{each.method} {each.path}" for each in ibm.journal] == []


def wrong_calls(owner: type) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return a call for each wrong value of the public methods' arguments: name, argument, all arguments."""
    for name, fields, good in methods(owner):
        for argument in fields & BAD_ARGUMENTS.keys():
            for value in BAD_ARGUMENTS[argument]:
                yield name, argument, {**good, argument: value}
        unknown = fields - BAD_ARGUMENTS.keys() - INTERNAL
        assert not unknown, f"add wrong values of {unknown} of {name} to testing/bad_values.py"


def refuses(call: Any, argument: str) -> bool:
    """Return True if the call ends in an error that names the argument."""
    try:
        outcome = call()
        if isinstance(outcome, Iterator):
            next(outcome, None)
    except ConfigurationError as error:
        assert_names(error.message, argument)
        return not error.sent
    except IBMQuantumError:
        return False
    return False


def test_every_argument_of_the_hooks_methods_is_checked_before_anything_is_sent(ibm, connection, airflow_db):
    hook = IBMQuantumHook()
    calls = list(wrong_calls(IBMQuantumHook))
    accepted = [
        (name, argument, arguments[argument])
        for name, argument, arguments in calls
        if not refuses(lambda name=name, arguments=arguments: getattr(hook, name)(**arguments), argument)
    ]
    assert accepted == []
    assert len({name for name, _, _ in calls}) > 12
    assert ibm.journal == []


def test_every_argument_of_the_clients_methods_is_checked_before_anything_is_sent(
    ibm, connection, airflow_db
):
    credentials = IBMQuantumHook().credentials

    async def outcome_of(call: Any) -> Any:
        outcome = call()
        return [each async for each in outcome] if isinstance(outcome, AsyncIterator) else await outcome

    with asyncio.Runner() as runner, IBMQuantumClient(credentials) as client:
        looped = AsyncIBMQuantumClient(credentials)
        accepted = []
        for name, argument, arguments in wrong_calls(IBMQuantumClient):
            for owner in (client, looped):

                def call(owner=owner, name=name, arguments=arguments):
                    outcome = getattr(owner, name)(**arguments)
                    return outcome if owner is client else runner.run(outcome_of(lambda: outcome))

                if not refuses(call, argument):
                    accepted.append((name, argument, arguments[argument]))
        runner.run(looped.close())
    assert accepted == []
    assert ibm.journal == []


@pytest.mark.parametrize("cls", classes(BaseTrigger, "triggers"), ids=lambda cls: cls.__name__)
def test_every_argument_of_a_trigger_is_checked_when_it_is_made(cls):
    wrong = {**BAD_ARGUMENTS, "end_time": BAD_ARGUMENTS["timeout"]}
    # Without jobs, the trigger waits for those of the session.
    wrong["job_ids"] = [each for each in wrong["job_ids"] if each != []]
    arguments = own_arguments(cls)
    good = {name: value for name, value in GOOD_TRIGGER_ARGUMENTS.items() if name in arguments}
    assert cls(**good).serialize()
    # The task makes the requirements, of arguments that it has checked.
    for argument in arguments.keys() - {"resume_data", "created_at", "requirements"}:
        for value in wrong[argument]:
            with pytest.raises(ConfigurationError) as caught:
                cls(**{**good, argument: value})
            assert_names(caught.value.message, argument.rstrip("s"))
