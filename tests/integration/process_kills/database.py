# SPDX-License-Identifier: Apache-2.0
"""How Airflow's processes open sqlite: they wait somewhat longer for each other than 5 s."""

from __future__ import annotations

CONNECT_ARGS = {"timeout": 10}
