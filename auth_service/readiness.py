"""Whether this process has started, may be sent traffic, and is going away.

The probes read it; `application.py` writes it.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Readiness:
    """`answered` holds, of the stores and the keys, those that have answered once; `problems` what is wrong now."""

    answered: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    draining: bool = False

    @property
    def started(self) -> bool:
        return self.answered >= {"postgresql", "redis", "keys"}

    @property
    def ready(self) -> bool:
        return "keys" in self.answered and not self.draining
