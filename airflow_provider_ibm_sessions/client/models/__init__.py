# SPDX-License-Identifier: Apache-2.0
"""Models of what IBM Quantum takes and sends, under the field names of its REST reference."""
