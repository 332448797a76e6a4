# SPDX-License-Identifier: Apache-2.0
"""The command line: ``ibm-quantum-sessions``, and ``airflow ibm-quantum``."""
