"""How many connections the public port may have open at once: a flood of them must leave files for all else."""

from auth_service.metrics import PUBLIC_CONNECTIONS


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
