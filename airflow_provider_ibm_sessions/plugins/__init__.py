# SPDX-License-Identifier: Apache-2.0
"""The page of IBM Quantum in Airflow's own UI."""
