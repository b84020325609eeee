"""The security headers of every answer, whoever writes it; an endpoint may say something else of its own answer."""


def security_headers(*, secure: bool) -> dict[str, str]:
    """Header names and values. `secure`: the issuer is https, so browsers may be told to keep to it (RFC 6797)."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        # Of what is loaded without CORS, as an image or a script would be; pages of allowed origins use CORS.
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    if secure:
        headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    return headers
