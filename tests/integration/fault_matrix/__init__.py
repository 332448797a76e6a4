# SPDX-License-Identifier: Apache-2.0
"""
The fault matrix: every operation x every fault x once or lasting x first or later call x sync or deferred.

``python -m tests.integration.fault_matrix`` runs it and prints a table. One cell is one Dag run against a
strict fake IBM of its own, with one fault at one operation. The operators and triggers are the real ones,
over real sockets; only Airflow around them is a small stub (``airflow_stub``), and delays are short
(``runner``). What is right is defined by ``expectations``, and checked against the fake's recorded state
(``checks``); that the checks see mistakes is tested by ``mutation_check``.
"""
