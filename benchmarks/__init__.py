# SPDX-License-Identifier: Apache-2.0
"""What the provider costs: ``python -m benchmarks``, from the repository's root."""
