# SPDX-License-Identifier: Apache-2.0
"""
An emulator of IBM Quantum: its REST API and IAM on loopback, in front of simulated circuits.

``service`` is the API without sockets and circuits, which the tests' strict fake shares; ``simulation``
computes the jobs with Aer. Needs the extra ``local``.
"""
