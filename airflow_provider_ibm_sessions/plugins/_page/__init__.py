# SPDX-License-Identifier: Apache-2.0
"""The routes and the scripts of the page; loaded by the API server at the first request to them."""
