"""Trusted proxies: what a client writes into `X-Forwarded-For` never changes the address that is counted for it."""

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auth_service.edge.proxies import client_address

_TRUSTED = tuple(map(ip_network, ("10.0.0.0/8", "192.0.2.7", "fd00::/8")))
_PROXY = "10.0.0.1"
_CLIENT = "203.0.113.9"


def _address(peer: str | None, *headers: str, trusted: tuple[object, ...] = _TRUSTED) -> str | None:
    scope = {
        "type": "http",
        "client": None if peer is None else (peer, 4711),
        "headers": [(b"x-forwarded-for", value.encode("latin-1")) for value in headers],
    }
    return client_address(scope, trusted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "headers", "counted"),
    [
        # IPv4 as an IPv6-only network sees it (RFC 6052).
        ("64:ff9b::203.0.113.9", ["6.6.6.6"], _CLIENT),
        (_PROXY, ["64:ff9b::cb00:7109"], _CLIENT),
        # Nobody is trusted who is not on the list, whatever is written.
        (_CLIENT, ["6.6.6.6"], _CLIENT),
        (_CLIENT, ["10.0.0.2"], _CLIENT),
        (_CLIENT, ["6.6.6.6, 10.0.0.2", "192.0.2.7"], _CLIENT),
        ("2001:db8::9", ["6.6.6.6"], "2001:db8::9"),
        # Behind one proxy: what it wrote is the last, what the client wrote comes before it.
        (_PROXY, [_CLIENT], _CLIENT),
        (_PROXY, [f"6.6.6.6, {_CLIENT}"], _CLIENT),
        (_PROXY, [f"10.0.0.9, 6.6.6.6, {_CLIENT}"], _CLIENT),
        (_PROXY, ["6.6.6.6", _CLIENT], _CLIENT),
        (_PROXY, ["6.6.6.6, 10.0.0.9", f"10.0.0.8,{_CLIENT}"], _CLIENT),
        (_PROXY, [f"garbage, {_CLIENT}"], _CLIENT),
        (_PROXY, [f",,, ,{_CLIENT} , ,"], _CLIENT),
        # Behind several.
        (_PROXY, [f"6.6.6.6, {_CLIENT}, 10.1.2.3"], _CLIENT),
        (_PROXY, [f"6.6.6.6, {_CLIENT}", "192.0.2.7", "fd00::1"], _CLIENT),
        ("fd00::1", [f"6.6.6.6, {_CLIENT}, 192.0.2.7"], _CLIENT),
        # A neighbour of a trusted address is not trusted.
        (_PROXY, ["6.6.6.6, 192.0.2.8"], "192.0.2.8"),
        ("192.0.2.8", ["6.6.6.6"], "192.0.2.8"),
        ("11.0.0.1", ["6.6.6.6"], "11.0.0.1"),
        # One address has one spelling.
        ("::ffff:10.0.0.1", [_CLIENT], _CLIENT),
        ("::ffff:203.0.113.9", ["6.6.6.6"], _CLIENT),
        (_PROXY, ["::ffff:203.0.113.9"], _CLIENT),
        (_PROXY, ["6.6.6.6, ::FFFF:203.0.113.9, ::ffff:10.0.0.5"], _CLIENT),
        (_PROXY, ["2001:DB8:0:0::9"], "2001:db8::9"),
        (_PROXY, ["2001:db8::9%eth0"], "2001:db8::9"),
        # With a port, as some proxies write it.
        (_PROXY, [f"6.6.6.6:1, {_CLIENT}:4711"], _CLIENT),
        (_PROXY, ["[2001:db8::9]:4711"], "2001:db8::9"),
        (_PROXY, ["[2001:db8::9]"], "2001:db8::9"),
        (_PROXY, [f"{_CLIENT}:1, 10.0.0.3:2"], _CLIENT),
        # Where a proxy wrote no address, nothing before it counts: the proxy itself is the nearest that is known.
        (_PROXY, ["6.6.6.6, unknown"], _PROXY),
        (_PROXY, ["6.6.6.6, 203.0.113"], _PROXY),
        (_PROXY, ["6.6.6.6, 203.0.113.09"], _PROXY),
        (_PROXY, ["6.6.6.6, 0x0a000001"], _PROXY),
        (_PROXY, ["6.6.6.6, 203.0.113.9/32"], _PROXY),
        (_PROXY, ["6.6.6.6, \xb2"], _PROXY),
        (_PROXY, ["6.6.6.6, garbage, 10.0.0.7"], "10.0.0.7"),
        (_PROXY, [], _PROXY),
        (_PROXY, [""], _PROXY),
        (_PROXY, ["10.0.0.4"], "10.0.0.4"),
        # A Unix socket has no address, and nobody to believe.
        (None, ["6.6.6.6"], None),
        ("", ["6.6.6.6"], None),
    ],
)
def test_the_nearest_hop_that_is_not_trusted_is_counted(peer: str | None, headers: list[str], counted: str) -> None:
    assert _address(peer, *headers) == counted


def test_without_trusted_proxies_nobody_is_believed() -> None:
    for peer in (_PROXY, "127.0.0.1", "::1", _CLIENT):
        assert _address(peer, "6.6.6.6", trusted=()) == peer


_WRITTEN_BY_A_CLIENT = st.lists(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)
    | st.lists(st.ip_addresses().map(str) | st.sampled_from([_PROXY, "unknown", ""]), max_size=4).map(", ".join),
    max_size=4,
)


@given(_WRITTEN_BY_A_CLIENT, st.ip_addresses(), st.booleans())
@example(["0.0.0.0"], IPv4Address("10.0.0.0"), False)  # noqa: S104 — an address that is told
def test_nothing_that_a_client_writes_changes_what_is_counted_for_it(
    lies: list[str], client: object, appended: bool
) -> None:
    """A proxy adds its client to the end: to the last header there is, or as one more."""
    told = [*lies[:-1], f"{lies[-1]}, {client}"] if lies and appended else [*lies, str(client)]
    if _address(str(client), "6.6.6.6") == _address(str(client)):  # else it is a trusted proxy itself, and believed
        assert _address(_PROXY, *told) == _address(_PROXY, str(client))
    assert _address(_CLIENT, *told) == _CLIENT
