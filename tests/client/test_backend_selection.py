# SPDX-License-Identifier: Apache-2.0
"""Which QPU is chosen, and what is said about the others."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_ibm_sessions.client.backend_selection import BackendRequirements
from airflow_provider_ibm_sessions.client.errors import ConfigurationError, NoBackendError
from airflow_provider_ibm_sessions.client.models.instance import Backend


def qpu(name, *, wait=None, two_q=0.003, readout=0.01, state="online", reason="", family="Heron", **fields):
    """Return a QPU as IBM describes it."""
    described = {
        "name": name,
        "status": {"name": state, "reason": reason},
        "qubits": 156,
        "queue_length": 5,
        "processor_type": {"family": family, "revision": "2"},
        "performance_metrics": {
            "two_q_error_best": {"value": 0.0001},
            "two_q_error_median": {"value": two_q},
            "readout_error_median": {"value": readout},
        },
        "wait_time_seconds": None if wait is None else {"average": 10 * wait, "p50": wait, "p95": 99 * wait},
    }
    return Backend.model_validate(described | fields)


QPUS = [
    qpu("ibm_fez", wait=600, queue_length=2, two_q=0.004),
    qpu("ibm_torino", wait=60, queue_length=9, two_q=0.008, qubits=133),
    qpu("ibm_kingston", wait=300, queue_length=4, two_q=0.002),
    qpu("ibm_miami", wait=1, queue_length=0, state="offline", reason="maintenance"),
    qpu("ibm_quebec", wait=1, queue_length=0, state="paused"),
    qpu("mock_fez", wait=0, queue_length=0),
    qpu("ibm_simulator", wait=0, queue_length=0, is_simulator=True),
]


def select(qpus=QPUS, **requirements):
    return BackendRequirements.validate(**requirements).select(qpus)


def refusal(qpus=QPUS, **requirements):
    with pytest.raises(NoBackendError) as caught:
        select(qpus, **requirements)
    return caught.value


@pytest.mark.parametrize(
    ("requirements", "best"),
    [
        ({}, "ibm_torino"),
        ({"order_by": "queue_length"}, "ibm_fez"),
        ({"order_by": "two_q_error"}, "ibm_kingston"),
        ({"min_qubits": 150}, "ibm_kingston"),
        ({"min_qubits": "150"}, "ibm_kingston"),
        ({"among": ["ibm_fez", "ibm_miami"]}, "ibm_fez"),
        ({"among": '["ibm_fez"]'}, "ibm_fez"),
        ({"exclude": "ibm_torino"}, "ibm_kingston"),
        ({"exclude": []}, "ibm_torino"),
        ({"processor_family": "heron", "max_queue_length": 2}, "ibm_fez"),
        ({"order_by": "queue_length", "max_wait": "5m"}, "ibm_kingston"),
        ({"order_by": "queue_length", "max_wait": timedelta(minutes=10)}, "ibm_fez"),
        ({"max_two_q_error": 0.004}, "ibm_kingston"),
        ({"max_two_q_error": "0.002", "max_readout_error": 0.01}, "ibm_kingston"),
    ],
    ids=str,
)
def test_the_best_that_meets_all_is_chosen(requirements, best):
    assert select(**requirements).backend.name == best


def test_it_says_what_it_was_chosen_by():
    selection = select(exclude=["ibm_torino"])
    assert selection.to_json() == {
        "name": "ibm_kingston",
        "state": "online",
        "qubits": 156,
        "processor_family": "Heron",
        "queue_length": 4,
        "wait_time": 300,
        "two_q_error": 0.002,
        "readout_error": 0.01,
        "order_by": "wait_time",
        "is_fallback": False,
        "candidates": ["ibm_kingston", "ibm_fez"],
        "reasons": {
            "ibm_torino": "excluded",
            "ibm_miami": "offline (maintenance)",
            "ibm_quebec": "paused",
            "mock_fez": "a device for dry runs, which runs nothing",
            "ibm_simulator": "a simulator",
        },
    }
    assert str(selection) == "QPU ibm_kingston is chosen by wait_time 300.0. Also met by ibm_fez"


def test_without_wait_times_the_queue_decides():
    selection = select([qpu("ibm_fez", queue_length=7), qpu("ibm_torino", queue_length=3)])
    assert (selection.backend.name, selection.order_by, selection.is_fallback) == (
        "ibm_torino",
        "queue_length",
        True,
    )
    assert "chosen by queue_length 3, since IBM tells no wait times on this plan" in str(selection)


def test_an_unknown_figure_is_last_and_meets_no_bound():
    qpus = [
        qpu("ibm_new", queue_length=None, two_q=None, readout=None, qubits=None),
        qpu("ibm_old", wait=9999),
    ]
    for order in ("wait_time", "queue_length", "two_q_error"):
        assert select(qpus, order_by=order).candidates == ("ibm_old", "ibm_new")
    bounds = {
        "min_qubits": 1,
        "max_wait": 9999,
        "max_queue_length": 99,
        "max_two_q_error": 1,
        "max_readout_error": 1,
    }
    for bound, value in bounds.items():
        assert select(qpus, **{bound: value}).candidates == ("ibm_old",)
    assert refusal([Backend(name="ibm_odd")]).reasons == {"ibm_odd": "its state is unknown"}


def test_equal_ones_are_chosen_by_the_other_figures_and_then_by_name():
    qpus = [qpu("ibm_c", wait=5), qpu("ibm_b", wait=5), qpu("ibm_a", wait=5, queue_length=6)]
    assert select(qpus).candidates == ("ibm_b", "ibm_c", "ibm_a")


def test_each_that_does_not_do_is_named_with_all_its_reasons():
    error = refusal(max_queue_length=1, max_two_q_error=0.001, min_qubits=140, processor_family="Nighthawk")
    assert error.message.startswith(
        "No QPU meets the requirements: ibm_fez: processor family Heron, not Nigh"
    )
    assert set(error.reasons) == {backend.name for backend in QPUS}
    assert error.reasons["ibm_torino"] == (
        "133 qubits, min_qubits is 140, processor family Heron, not Nighthawk, queue length 9, "
        "max_queue_length is 1, two-qubit error 0.008, max_two_q_error is 0.001"
    )
    assert not error.retryable


@pytest.mark.parametrize(
    ("requirements", "may_help"),
    [
        ({"among": ["ibm_miami"]}, True),
        ({"max_queue_length": 1}, True),
        ({"max_two_q_error": 0.0001}, True),
        ({"among": ["ibm_miami"], "min_qubits": 1000}, False),
        ({"among": ["mock_fez"]}, False),
        ({"among": ["ibm_retired"]}, False),
        ({"exclude": [backend.name for backend in QPUS]}, False),
    ],
    ids=str,
)
def test_it_knows_if_waiting_may_help(requirements, may_help):
    assert refusal(**requirements).retryable is may_help


def test_an_unknown_name_is_told_with_the_names_that_there_are():
    error = refusal(QPUS[:2], among=["ibm_retired", "ibm_fez"], max_queue_length=0)
    assert error.reasons["ibm_retired"] == "not a QPU of this instance: retired, or misspelled"
    assert error.message.endswith("The instance has ibm_fez, ibm_torino")
    assert error.retryable, "ibm_fez may do later"


def test_a_wait_time_that_no_qpu_of_the_plan_has_is_not_waited_for():
    error = refusal([qpu("ibm_fez")], max_wait=60)
    assert "use max_queue_length in place of max_wait" in error.message
    assert not error.retryable


def test_an_instance_without_qpus_says_so():
    assert refusal([]).message == "No QPU meets the requirements: the instance has none"


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("order_by", "price", "must be one of wait_time, queue_length, two_q_error, got 'price'"),
        ("min_qubits", 0, "must be a whole number from 1"),
        ("min_qubits", 1.5, "must be a whole number from 1"),
        ("min_qubits", "many", "must be a whole number from 1"),
        ("min_qubits", True, "must be a whole number from 1"),
        ("max_queue_length", -1, "must be a whole number from 0"),
        ("max_wait", "-5m", "must be 1 to 2147483647 seconds"),
        ("max_two_q_error", -0.1, "must be a number from 0 to 1"),
        ("max_readout_error", 1.1, "must be a number from 0 to 1"),
        ("max_readout_error", "nan", "must be a number from 0 to 1"),
        ("among", [], "must be a list of names of QPUs"),
        ("among", ["a/b"], "among[0] must be the name of a QPU"),
        ("among", "None", "among is empty"),
        ("exclude", {"ibm_fez": 1}, "must be a list of names of QPUs"),
        ("processor_family", "", "must be a string of 1 to"),
        ("backend", "ibm_fez", "is no requirement of a QPU: there are min_qubits, among"),
    ],
)
def test_wrong_requirements_are_named(field, value, allowed):
    with pytest.raises(ConfigurationError) as caught:
        BackendRequirements.validate(**{field: value})
    assert str(caught.value).startswith(field)
    assert allowed in str(caught.value)


def test_plain_json_restores_the_requirements():
    requirements = BackendRequirements.validate(among=("ibm_fez", "ibm_torino"), max_wait="1h", min_qubits=5)
    assert BackendRequirements.validate(**requirements.to_json()) == requirements
