# SPDX-License-Identifier: Apache-2.0
"""How many executions, and so seconds, a job takes at least."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_ibm_sessions.client.estimate import count_executions, estimate_usage

QASM = "OPENQASM 3.0; bit[2] meas; qubit[2] q;"


@pytest.mark.parametrize(
    ("params", "executions"),
    [
        ({"pubs": [QASM]}, 4096),
        ({"pubs": [[QASM]]}, 4096),
        ({"pubs": [[QASM, None, 100], [QASM, None, 50]]}, 150),
        ({"pubs": [[QASM]], "shots": 10}, 10),
        ({"pubs": [[QASM]], "options": {"default_shots": 20}}, 20),
        ({"pubs": [[QASM, [0.1, 0.2], 100]]}, 100),
        ({"pubs": [[QASM, [[0.1, 0.2]] * 3, 100]]}, 300),
        ({"pubs": [[QASM, [[[0.1, 0.2]] * 3] * 4, 100]]}, 1200),
        ({"pubs": [[QASM, {"a": [1, 2, 3]}, 100]]}, 300),
        ({"pubs": [[QASM, {"a": 1, "b": 2}, 100]]}, 100),
        (
            {
                "pubs": [[QASM, None, 100]],
                "options": {
                    "twirling": {
                        "enable_gates": True,
                        "num_randomizations": 32,
                        "shots_per_randomization": 10,
                    }
                },
            },
            320,
        ),
        (
            {
                "pubs": [[QASM, None, 100]],
                "options": {"twirling": {"enable_measure": True, "num_randomizations": 32}},
            },
            128,
        ),
        ({"pubs": [[QASM, None, 100]], "options": {"twirling": {"num_randomizations": 32}}}, 100),
        ({"pubs": []}, 0),
        ({}, 0),
        ({"pubs": "x", "options": []}, 0),
        ({"pubs": [[QASM, {"__type__": "ndarray", "__value__": "x"}, 7]]}, 7),
        ({"pubs": [[QASM, None, True], [QASM, None, "5"]], "shots": 3}, 6),
    ],
)
def test_of_a_sampler(params, executions):
    assert count_executions("sampler", params) == executions


@pytest.mark.parametrize(
    ("params", "executions"),
    [
        ({"pubs": [[QASM, "ZZ"]]}, 4096),
        ({"pubs": [[QASM, "ZZ", None, 0.1]]}, 100),
        ({"pubs": [[QASM, "ZZ", [[0.5]] * 3, 0.1]]}, 300),
        ({"pubs": [[QASM, "ZZ"]], "precision": 0.05}, 400),
        ({"pubs": [[QASM, "ZZ"]], "options": {"default_shots": 1000}}, 1000),
        ({"pubs": [[QASM, "ZZ"]], "options": {"default_precision": 0.5}}, 4),
    ],
)
def test_of_an_estimator(params, executions):
    assert count_executions("estimator", params) == executions


def test_of_an_executor_and_of_programs_that_are_not_known():
    assert count_executions("executor", {"quantum_program": {"shots": 100, "items": [{}, {}]}}) == 200
    assert count_executions("noise-learner", {"circuits": []}) == 0


def test_arrays_as_qiskit_encodes_them():
    pytest.importorskip("qiskit_ibm_runtime")
    import json

    import numpy as np
    from qiskit_ibm_runtime import RuntimeEncoder

    encoded = json.loads(json.dumps({"values": np.zeros((5, 4, 2))}, cls=RuntimeEncoder))
    assert count_executions("sampler", {"pubs": [[QASM, encoded["values"], 10]]}) == 200


def test_seconds_and_price():
    job = {"program_id": "sampler", "params": {"pubs": [[QASM, None, 10_000]]}}
    estimate = estimate_usage([job, job], Decimal("1.6"), "USD")
    assert (estimate.qpu_seconds, estimate.executions, estimate.cost) == (11, 20_000, Decimal("17.6"))
    assert str(estimate) == "11 s of QPU time, 17.60 USD"
    assert str(estimate_usage([job])) == "5.5 s of QPU time"
