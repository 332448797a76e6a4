# SPDX-License-Identifier: Apache-2.0
"""
The home of the Airflow that this process runs: a new temporary directory.

Import this module before Airflow, which reads its configuration from the environment when it is imported.
"""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
"""The directory. Whoever starts the process removes it at its end."""

_CREDENTIALS = (
    "IBM_CLOUD_API_KEY",
    "IBM_QUANTUM_CRN",
    "IBM_QUANTUM_API_VERSION",
    "AIRFLOW_CONN_IBM_QUANTUM_DEFAULT",
)

os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="false",
    AIRFLOW__CORE__UNIT_TEST_MODE="false",
    AIRFLOW__CORE__FERNET_KEY=base64.urlsafe_b64encode(os.urandom(32)).decode(),
    AIRFLOW__CORE__DAGS_FOLDER=str(AIRFLOW_HOME / "dags"),
    AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="300",
)
(AIRFLOW_HOME / "dags").mkdir()
for _name in _CREDENTIALS:
    os.environ.pop(_name, None)
