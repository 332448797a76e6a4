# SPDX-License-Identifier: Apache-2.0
"""A cluster of Airflow on loopback, with two of everything, whose parts are killed, stopped and cut off."""
