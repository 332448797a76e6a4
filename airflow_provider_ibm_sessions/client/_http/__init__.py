# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire: connections, timeouts, TLS. Nobody who changes a feature needs to enter."""
