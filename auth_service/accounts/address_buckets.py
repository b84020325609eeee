"""Address buckets: which addresses are counted together, which not at all, and under what key."""

import hashlib
import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from auth_service.address_block import block_of

_DIGEST_LENGTH = 32  # hexadecimal digits: 128 bits, so nobody finds another name with the same


class AddressBuckets:
    """The bucket of an address; those in the `unthrottled` networks have none of their own."""

    def __init__(self, unthrottled: Sequence[IPv4Network | IPv6Network]) -> None:
        self._unthrottled = unthrottled

    def counts(self, address: str | None) -> bool:
        """Whether `address` has a bucket of its own. One that is not known shares one with all such."""
        if address is None:
            return True
        parsed = ipaddress.ip_address(address)
        return not any(parsed in network for network in self._unthrottled)


def bucket_key(*parts: str | None) -> str:
    """A key for what these name, in which nobody reads them: Redis and its dumps hold no names and no addresses."""
    text = "\0".join(part or "" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def address_part(address: str | None) -> str | None:
    """What stands for `address` in a key: all addresses of one subscriber are one."""
    return None if address is None else block_of(address)
