# SPDX-License-Identifier: Apache-2.0
"""The tests that ``make compat`` runs on each version of Airflow that the package claims."""
