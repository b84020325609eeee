"""How many connections the public port may have open at once, so that a flood of them leaves files for the rest."""

import resource

from auth_service.metrics import PUBLIC_CONNECTIONS

_OTHER_FILES = 256  # for the stores, the internal port and the log


def usable_connections(wanted: int) -> int:
    """`wanted`, or fewer where the system allows this process fewer files."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - _OTHER_FILES))


class ConnectionLimit:
    """Counts the open connections of one port of this process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0

    def enter(self) -> bool:
        """Count one more, unless there are as many as there may be. Who was let in has to leave."""
        if self._open >= self._limit:
            return False
        self._open += 1
        PUBLIC_CONNECTIONS.inc()
        return True

    def leave(self) -> None:
        self._open -= 1
        PUBLIC_CONNECTIONS.dec()
