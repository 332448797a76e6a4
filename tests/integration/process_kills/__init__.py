# SPDX-License-Identifier: Apache-2.0
"""Kill workers, schedulers and triggerers of a whole Airflow, and check that no session or job is lost."""
