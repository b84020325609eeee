"""What a new password must be. No composition rules, no expiry, never truncated (NIST SP 800-63B-4 §3.1.1.2)."""

from auth_service.accounts import names
from auth_service.accounts.passwords import MAX_BYTES, normalise
from auth_service.errors import WeakPassword


def require_strong(password: str, *, min_length: int, username: str, email: str, field: str = "password") -> None:
    """Raises WeakPassword, which says which rule is not met. Length is counted in code points after NFKC."""
    normalised = normalise(password)
    # The lesser of the two: one code point may become eighteen.
    if min(len(password), len(normalised)) < min_length:
        raise WeakPassword(f"The password needs at least {min_length} characters.", field=field)
    if len(normalised.encode()) > MAX_BYTES:
        raise WeakPassword(f"The password is longer than {MAX_BYTES} bytes.", field=field)
    if names.key(password) in (names.key(username), names.key(email)):
        raise WeakPassword("The password is the user name or the e-mail address.", field=field)
