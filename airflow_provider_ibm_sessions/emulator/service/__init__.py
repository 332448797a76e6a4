# SPDX-License-Identifier: Apache-2.0
"""
IBM Quantum's REST API and IAM without sockets: requests in, responses out, on a clock of its own.

Follows IBM's API reference and what has been seen of the live service. Where IBM documents nothing, the
docstrings say so and a setting decides. Knows no circuits: a ``JobRunner`` decides how a job ends.
"""
