# SPDX-License-Identifier: Apache-2.0
"""Connection arguments for sqlite: Airflow's processes wait for each other longer than the default of 5 s."""

from __future__ import annotations

CONNECT_ARGS = {"timeout": 10}
