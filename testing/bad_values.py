# SPDX-License-Identifier: Apache-2.0
"""Wrong values that several tests give: ids, and durations for ``max_ttl``."""

from __future__ import annotations

from datetime import timedelta

BAD_IDS = [
    "../x",
    "a/b",
    "a b",
    "a\n",
    "a?b",
    "a#b",
    "a%2fb",
    "x" * 501,
    "ид",
    "٣",
    "..",
    ".",
    "~",
    7,
]
BAD_TTLS = [
    0,
    -1,
    True,
    False,
    "2 fortnights",
    "",
    " ",
    "0",
    "-5",
    "1h 30",
    "30m 1h",
    "1.5h",
    3600.5,
    float("nan"),
    float("inf"),
    None,
    [],
]
BAD_TTLS += [
    "٣",
    "1e3",
    "0x10",
    2**31,
    10**30,
    "9" * 5000,
    "99999d",
    timedelta(0),
    timedelta(days=-1),
    timedelta.max,
]
