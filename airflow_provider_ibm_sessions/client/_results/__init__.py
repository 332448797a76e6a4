# SPDX-License-Identifier: Apache-2.0
"""Formats in which IBM sends results, read without Qiskit except for :mod:`.primitives`."""
