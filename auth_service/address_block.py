"""Address blocks: what one subscriber is given, and so what counts as one address."""

import ipaddress


def block_of(address: str, prefix: int = 64) -> str:
    """`address` itself, or the network of an IPv6 address: the /64, in which its owner may use any, or a larger one."""
    return str(ipaddress.IPv6Network((address, prefix), strict=False)) if ":" in address else address
