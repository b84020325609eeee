"""Trusted proxies: whose `X-Forwarded-For` is believed, and which address a request therefore came from."""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from starlette.datastructures import Headers
from starlette.types import Scope

_TRANSLATED = IPv6Network("64:ff9b::/96")  # IPv4 as an IPv6-only network sees it (RFC 6052)


def client_address(scope: Scope, trusted: Sequence[IPv4Network | IPv6Network]) -> str | None:
    """The address of the nearest hop that is not a trusted proxy; None where there is none (a Unix socket).

    Read from the right: everything left of the first untrusted hop was written by that hop, and may be a lie.
    """
    peer = scope.get("client")
    address = _parse(peer[0]) if peer else None
    if address is None:
        return None
    forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for")) if _is_trusted(address, trusted) else ""
    for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
        parsed = _parse(_without_port(hop))
        if parsed is None:
            break
        address = parsed
        if not _is_trusted(address, trusted):
            break
    return str(address)


def _without_port(hop: str) -> str:
    """Some proxies write `address:port`, and then put brackets around IPv6."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in trusted)
