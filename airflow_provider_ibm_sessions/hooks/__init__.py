# SPDX-License-Identifier: Apache-2.0
"""The hook of the IBM Quantum provider."""
