# SPDX-License-Identifier: Apache-2.0
"""
The session operations for people and programs outside of Airflow: REST, MCP and a command.

All three read ``client/operations.py`` and work at one :class:`Desk`. Nothing here is imported by Dags.
"""
