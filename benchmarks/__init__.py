# SPDX-License-Identifier: Apache-2.0
"""The provider's costs, measured: ``python -m benchmarks``, from the repository's root."""
