# SPDX-License-Identifier: Apache-2.0
"""The private parts of Qiskit by which runs are recorded: Qiskit has them, or is refused by name."""

from __future__ import annotations

import inspect

import pytest
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException
from qiskit_ibm_runtime import QiskitRuntimeService, RuntimeJobV2
from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS
from qiskit_ibm_runtime.utils.validations import validate_isa_circuits

from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
from airflow_provider_ibm_sessions.hooks.qiskit_recorder import _RUN_PARAMETERS, RecordedRun


def test_qiskit_has_the_parts_that_are_used():
    """True of qiskit-ibm-runtime 0.50 and 0.51."""
    assert tuple(inspect.signature(QiskitRuntimeService._run).parameters) == _RUN_PARAMETERS
    assert tuple(inspect.signature(validate_isa_circuits).parameters) == ("circuits", "target")
    assert all(hasattr(each, "decoder") for each in QUANTUM_PROGRAM_PARAMS_CONVERTERS.values())


@pytest.mark.parametrize("change", ["missing", "other parameters"])
def test_a_qiskit_without_them_is_refused_by_name(ibm, connection, monkeypatch, change):
    if change == "missing":
        monkeypatch.delattr(QiskitRuntimeService, "_run")
    else:
        monkeypatch.setattr(QiskitRuntimeService, "_run", lambda self, program_id, inputs, shots: None)
    expected = r"qiskit-ibm-runtime \d.*has no QiskitRuntimeService._run\(self, program_id"
    with pytest.raises(AirflowOptionalProviderFeatureException, match=expected):
        IBMQuantumHook().qiskit_recorder("ibm_fez")
    assert ibm.journal == []


def test_a_recorded_run_has_the_attributes_of_a_job_and_no_others():
    public = [name for name in dir(RuntimeJobV2) if not name.startswith("_")]
    assert {"result", "status", "job_id", "cancel", "metrics"} <= set(public)
    for name in public:
        with pytest.raises(ConfigurationError, match=rf"^{name}\(\) of a job is not available"):
            getattr(RecordedRun(), name)
    assert not hasattr(RecordedRun(), "tolist")
    assert repr(RecordedRun())
