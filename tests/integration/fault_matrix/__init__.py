# SPDX-License-Identifier: Apache-2.0
"""
The fault matrix: every operation x every fault x once or for ever x first or later call x sync or deferred.

``python -m tests.integration.fault_matrix`` runs it and prints a table. One cell is one Dag run against a
strict fake IBM of
its own, with one fault at one operation. The operators and triggers are the real ones, over real sockets;
only Airflow around them is a small stand-in (``small_airflow``), and waiting is short (``running``). What is
right is decided by ``rules``, and held against the fake's own books (``judging``).
"""
