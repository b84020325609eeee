"""Address blocks: what one subscriber is given, and so what counts as one address."""

import ipaddress


def block_of(address: str, prefix: int = 64) -> str:
    """`address` itself, or the /64 network of an IPv6 address, whose owner may use any address in it."""
    return str(ipaddress.IPv6Network((address, prefix), strict=False)) if ":" in address else address
