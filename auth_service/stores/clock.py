"""The one clock of the service: PostgreSQL's `clock_timestamp()`, read by the statement that opens an operation.

Replicas' and Redis nodes' clocks therefore do not matter. The statements live where the operations do; this file only
says how such a reading becomes `now`, and how long this process waited for it.
"""

import time
from datetime import datetime, timedelta


class Clock:
    """Turns a reading of PostgreSQL's clock into `now`. Tests move time by setting `offset`."""

    def __init__(self, *, offset: timedelta = timedelta(0)) -> None:
        self.offset = offset

    def now(self, reading: datetime) -> datetime:
        return reading + self.offset

    def elapsed(self, since: float) -> timedelta:
        """What has passed in this process since `since`, a reading of `time.monotonic`: how long something waited."""
        return timedelta(seconds=time.monotonic() - since)
