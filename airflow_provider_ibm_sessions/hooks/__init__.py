# SPDX-License-Identifier: Apache-2.0
"""The hook of the IBM Quantum provider."""

DEFAULT_CONN_ID = "ibm_quantum_default"
