# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of any kind end in a ``ConfigurationError`` that names the field, and in nothing else."""

from __future__ import annotations

from tests.client.fuzz_arguments import CHECKS, FIELDS, fuzz, fuzz_tasks


def test_500_arguments_for_each_check_give_typed_errors_only():
    found = fuzz(500)
    assert len(found) == len(CHECKS) + len(FIELDS)
    assert min(found.values()) > 100


def test_500_arguments_for_each_task_give_typed_errors_only():
    found = fuzz_tasks(500)
    assert len(found) > 7
    assert min(found.values()) > 100
