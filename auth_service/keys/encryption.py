"""Encryption of the private keys at rest: Fernet, under keys that only the deployment holds."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class WrongEncryptionKey(Exception):
    """None of `AUTH_KEY_ENCRYPTION_KEYS` decrypts a stored signing key."""


class KeyCipher:
    """The first key encrypts, all decrypt: a new one is added last everywhere, then moved first."""

    def __init__(self, encryption_keys: Sequence[str]) -> None:
        fernets = [Fernet(key) for key in encryption_keys]
        self._first = fernets[0]
        self._any = MultiFernet(fernets)

    def encrypt(self, plain: bytes) -> bytes:
        return self._first.encrypt(plain)

    def decrypt(self, encrypted: bytes) -> bytes:
        """Raises WrongEncryptionKey."""
        try:
            return self._any.decrypt(encrypted)
        except InvalidToken:
            raise WrongEncryptionKey(
                "no key in AUTH_KEY_ENCRYPTION_KEYS decrypts the stored signing key: set the key it was stored with"
            ) from None

    def rewrap(self, encrypted: bytes) -> bytes | None:
        """The same encrypted under the first key; None where it is already. Raises WrongEncryptionKey."""
        try:
            self._first.decrypt(encrypted)
        except InvalidToken:
            return self.encrypt(self.decrypt(encrypted))
        return None
