# SPDX-License-Identifier: Apache-2.0
"""
The session operations for people and programs outside of Airflow: REST, MCP and a command.

All three read ``exposure.py`` and call IBM through one :class:`SessionService`. No Dag imports this.
"""
