# SPDX-License-Identifier: Apache-2.0
"""Whatever a response is, it gives a result or an error of our tree; ``make fuzz`` reads many more."""

from __future__ import annotations

import random

import pytest

from tests.client.fuzz import RAISES_NOTHING, READS, fuzz


@pytest.mark.parametrize("name", READS)
def test_random_responses_give_errors_of_ours_only(name):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    outcomes = fuzz(name, 500, seed)
    assert outcomes.total() == 500
    assert len(outcomes) > 3 or name in RAISES_NOTHING, "nothing has been tried"
