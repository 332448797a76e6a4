# SPDX-License-Identifier: Apache-2.0
"""Sensors of the IBM Quantum provider."""
