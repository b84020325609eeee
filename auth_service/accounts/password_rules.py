"""What a new password must be. No composition rules, no expiry, never truncated (NIST SP 800-63B-4 §3.1.1.2).

How soon it would be guessed is `predictability.py`'s.
"""

import re
from collections.abc import Iterator

from auth_service.accounts import names
from auth_service.accounts.bounded_threads import BoundedThreads
from auth_service.accounts.passwords import MAX_BYTES, normalise
from auth_service.accounts.predictability import weakness
from auth_service.errors import WeakPassword
from auth_service.metrics import NEW_PASSWORDS_REFUSED

_PLACES = 128  # for half a second of what people choose
_ADVICE = "Take one that is harder to guess, such as four words that do not belong together."


class PasswordRules:
    """The rules for every new password, whoever sets it. An imported hash has no password to judge."""

    def __init__(self, *, min_length: int, host: str, client_id: str) -> None:
        """`host` and `client_id` are names of this service, in its address and in its tokens: easy to guess here."""
        # One thread, since judging holds the GIL; and not one of those that hash, so that no login waits for it.
        self._thread = BoundedThreads("new password", count=1, places=_PLACES, refused=NEW_PASSWORDS_REFUSED)
        self._min_length = min_length
        self._service = {
            word: "the name of this service" for name in ("auth-service", host, client_id) for word in _words(name)
        }

    async def require(self, password: str, *, username: str, email: str, field: str = "password") -> None:
        """Raises WeakPassword, which names the rule that is not met, and Unavailable if the queue of judging is full.

        Length is counted in code points after NFKC.
        """
        normalised = normalise(password)
        # The smaller count of the two: NFKC may turn one code point into eighteen.
        if min(len(password), len(normalised)) < self._min_length:
            raise WeakPassword(f"The password needs at least {self._min_length} characters.", field=field)
        if len(normalised.encode()) > MAX_BYTES:
            raise WeakPassword(f"The password is longer than {MAX_BYTES} bytes.", field=field)
        if names.key(password) in (names.key(username), names.key(email)):
            raise WeakPassword(f"The password is the user name or the e-mail address. {_ADVICE}", field=field)
        known = (
            self._service
            | dict.fromkeys(_words(email), "the e-mail address")
            | dict.fromkeys(_words(username), "the user name")
        )
        # In its thread: for a millisecond and more, nothing else would be served.
        reason = await self._thread.run(lambda: weakness(normalised, known))
        if reason is not None:
            raise WeakPassword(f"The password is {reason}. {_ADVICE}", field=field)

    def close(self) -> None:
        self._thread.close()


def _words(name: str) -> Iterator[str]:
    """The name and its parts, as they are and run together, as a guesser would try them."""
    lowered = normalise(name).lower()
    for part in (lowered, *re.split(r"[@.\s]", lowered), *re.split(r"[\W_]+", lowered)):
        yield from filter(None, (part, re.sub(r"[\W_]+", "", part)))
