# SPDX-License-Identifier: Apache-2.0
"""Wrong arguments of any kind end in a ``ConfigurationError`` that names the field, and in nothing else."""

from __future__ import annotations

from tests.client.fuzz_arguments import CHECKS, FIELDS, fuzz


def test_500_arguments_for_each_check_give_typed_errors_only():
    found = fuzz(500)
    assert len(found) == len(CHECKS) + len(FIELDS)
    assert min(found.values()) > 100
