"""Every kind of caller of a route that sets or uses the cookie, by what a browser, or somebody else, says of it."""

from dataclasses import dataclass

OWN = "https://auth.test"
APP = "https://app.test"
EVIL = "https://evil.example"

NOT_ALLOWED = "origin_not_allowed"
CROSS_SITE = "cookie_needs_same_site"


@dataclass(frozen=True, slots=True)
class Caller:
    """`refusal` is the code by which such a caller is refused the cookie; None: it is not."""

    origins: tuple[bytes, ...]
    sites: tuple[bytes, ...]
    refusal: str | None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        origins = [(b"Origin", origin) for origin in self.origins]
        return origins + [(b"Sec-Fetch-Site", site) for site in self.sites]


def _caller(*origins: str | bytes, site: tuple[str, ...] | str = (), refusal: str | None = None) -> Caller:
    sites = (site,) if isinstance(site, str) else site
    return Caller(
        tuple(origin if isinstance(origin, bytes) else origin.encode() for origin in origins),
        tuple(value.encode() for value in sites),
        refusal,
    )


CALLERS = {
    "the issuer's own page": _caller(OWN, site="same-origin"),
    "the issuer's own page in an old browser": _caller(OWN),
    "an allowed origin": _caller(APP, site="same-site"),
    "an allowed origin in an old browser": _caller(APP),
    "an allowed origin, asked for by the user": _caller(APP, site="none"),
    "no origin, but the same by fetch metadata": _caller(site="same-origin"),
    "an allowed origin on another site": _caller(APP, site="cross-site", refusal=CROSS_SITE),
    "an allowed origin on another site, oddly written": _caller(APP, site="Cross-Site", refusal=CROSS_SITE),
    "the own origin after a detour over another site": _caller(OWN, site="cross-site", refusal=CROSS_SITE),
    "no origin, cross-site": _caller(site="cross-site", refusal=CROSS_SITE),
    "no origin, same-site": _caller(site="same-site", refusal=NOT_ALLOWED),
    "no origin, a typed address": _caller(site="none", refusal=NOT_ALLOWED),
    "no origin, a site in capitals": _caller(site="Same-Origin", refusal=NOT_ALLOWED),
    "no origin, an empty site": _caller(site="", refusal=NOT_ALLOWED),
    "no origin, a site twice": _caller(site=("same-origin", "same-origin"), refusal=NOT_ALLOWED),
    "no origin, two sites": _caller(site=("same-origin", "cross-site"), refusal=CROSS_SITE),
    "no origin, two sites in one header": _caller(site="same-origin, same-site", refusal=NOT_ALLOWED),
    "nothing at all": _caller(refusal=NOT_ALLOWED),
    "a sibling subdomain": _caller("https://evil.auth.test", site="same-site", refusal=NOT_ALLOWED),
    "the parent domain": _caller("https://test", site="same-site", refusal=NOT_ALLOWED),
    "a subdomain of the page's": _caller("https://evil.app.test", site="same-site", refusal=NOT_ALLOWED),
    "a foreign site": _caller(EVIL, site="cross-site", refusal=NOT_ALLOWED),
    "a foreign site in an old browser": _caller(EVIL, refusal=NOT_ALLOWED),
    "a foreign site that says it is the same": _caller(EVIL, site="same-origin", refusal=NOT_ALLOWED),
    "the opaque origin": _caller("null", site="cross-site", refusal=NOT_ALLOWED),
    "the opaque origin of a frame of ours": _caller("null", site="same-origin", refusal=NOT_ALLOWED),
    "an empty origin": _caller("", site="same-origin", refusal=NOT_ALLOWED),
    "an allowed origin twice": _caller(APP, APP, refusal=NOT_ALLOWED),
    "an allowed origin before another": _caller(APP, EVIL, refusal=NOT_ALLOWED),
    "an allowed origin after another": _caller(EVIL, APP, refusal=NOT_ALLOWED),
    "two origins with a comma": _caller(f"{APP}, {EVIL}", refusal=NOT_ALLOWED),
    "two origins with a space": _caller(f"{APP} {EVIL}", refusal=NOT_ALLOWED),
    "another port": _caller(f"{APP}:8443", site="same-site", refusal=NOT_ALLOWED),
    "the port that its scheme has anyway": _caller(f"{APP}:443", refusal=NOT_ALLOWED),
    "another scheme": _caller("http://app.test", site="cross-site", refusal=NOT_ALLOWED),
    "a scheme of sockets": _caller("wss://app.test", refusal=NOT_ALLOWED),
    "no scheme": _caller("app.test", refusal=NOT_ALLOWED),
    "a file": _caller("file://", site="cross-site", refusal=NOT_ALLOWED),
    "an extension": _caller("chrome-extension://app.test", site="none", refusal=NOT_ALLOWED),
    "a host in capitals": _caller("https://APP.test", refusal=NOT_ALLOWED),
    "a scheme in capitals": _caller("HTTPS://app.test", refusal=NOT_ALLOWED),
    "a dot at the end": _caller(f"{APP}.", refusal=NOT_ALLOWED),
    "a slash at the end": _caller(f"{APP}/", refusal=NOT_ALLOWED),
    "a path": _caller(f"{APP}/page", refusal=NOT_ALLOWED),
    "a query": _caller(f"{EVIL}?{APP}", refusal=NOT_ALLOWED),
    "a fragment": _caller(f"{EVIL}#{APP}", refusal=NOT_ALLOWED),
    "a user name that looks like a host": _caller("https://app.test@evil.example", refusal=NOT_ALLOWED),
    "a name that begins as an allowed one": _caller(f"{APP}.evil.example", refusal=NOT_ALLOWED),
    "a name that ends as an allowed one": _caller("https://evilapp.test", refusal=NOT_ALLOWED),
    "a name with a dot for any letter": _caller("https://appxtest", refusal=NOT_ALLOWED),
    "an encoded end": _caller(f"{APP}%00.evil.example", refusal=NOT_ALLOWED),
    "a letter that looks the same": _caller("https://аpp.test", refusal=NOT_ALLOWED),
    "bytes that are no text": _caller(b"https://app.test\xff", refusal=NOT_ALLOWED),
    "a space in front": _caller(f" {APP}", refusal=NOT_ALLOWED),
    "a tab behind": _caller(f"{APP}\t", refusal=NOT_ALLOWED),
    "an asterisk": _caller("*", refusal=NOT_ALLOWED),
}
