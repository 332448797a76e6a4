# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of any kind end in a ``ConfigurationError`` that names the field, and in nothing else."""

from __future__ import annotations

from tests.client.fuzz_arguments import CHECKS, FIELDS, fuzz, fuzz_calls, fuzz_tasks, fuzz_triggers


def test_500_arguments_for_each_check_give_typed_errors_only():
    found = fuzz(500)
    assert len(found) == len(CHECKS) + len(FIELDS)
    assert min(found.values()) > 100


def test_500_arguments_for_each_task_give_typed_errors_only():
    found = fuzz_tasks(500)
    assert len(found) > 7
    assert min(found.values()) > 100


def test_500_arguments_for_each_trigger_give_typed_errors_only():
    found = fuzz_triggers(500)
    assert len(found) > 5
    assert min(found.values()) > 100


def test_500_arguments_for_the_methods_of_client_and_hook_give_typed_errors_only(airflow_db):
    found = fuzz_calls(500)
    assert min(found.values()) > 100
