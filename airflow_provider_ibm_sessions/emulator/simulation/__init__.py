# SPDX-License-Identifier: Apache-2.0
"""
Circuits computed with Aer, in processes of their own.

``simulator`` hands jobs to worker processes and imports nothing of Qiskit; ``worker`` is such a process,
``programs`` what runs in it.
"""
