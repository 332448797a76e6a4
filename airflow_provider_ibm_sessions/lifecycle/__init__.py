# SPDX-License-Identifier: Apache-2.0
"""Keep a session safe across the tries of a task, its death and other people's clicks."""
