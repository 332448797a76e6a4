# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for IBM Quantum sessions."""

__version__ = "0.1.0"
