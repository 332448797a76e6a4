# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import signal
import threading
from typing import TYPE_CHECKING

from .fake import FakeIBM

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. The first line of output says where, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m testing.fake_ibm", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plan", choices=("open", "premium", "flex", "payg"), default="premium")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--token-lifetime", type=int, default=3600, metavar="SECONDS")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="further settings")
    given = vars(parser.parse_args(arguments))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with FakeIBM(**given.pop("settings"), **given) as ibm:
        about = {"url": ibm.url, "iam_url": ibm.iam_url, "api_key": ibm.api_key, "crn": ibm.crn}
        print(json.dumps(about), flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
