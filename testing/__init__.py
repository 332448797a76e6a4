# SPDX-License-Identifier: Apache-2.0
"""Helpers of tests, benchmarks and scripts: a strict fake IBM, whole Airflows, processes, Dag tasks."""
