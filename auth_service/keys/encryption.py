"""Encryption of the private keys at rest: Fernet, under keys that only the deployment holds."""

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class WrongEncryptionKey(Exception):
    """None of `AUTH_KEY_ENCRYPTION_KEYS` decrypts a stored signing key."""


class KeyCipher:
    """The first key encrypts, all decrypt: a new one is added last everywhere, then moved first."""

    def __init__(self, encryption_keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in encryption_keys])

    def encrypt(self, plain: bytes) -> bytes:
        return self._fernet.encrypt(plain)

    def decrypt(self, encrypted: bytes) -> bytes:
        """Raises WrongEncryptionKey."""
        try:
            return self._fernet.decrypt(encrypted)
        except InvalidToken:
            raise WrongEncryptionKey(
                "no key in AUTH_KEY_ENCRYPTION_KEYS decrypts the stored signing key: set the key it was stored with"
            ) from None
