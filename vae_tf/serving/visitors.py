"""Who may ask: a page in the user's own browser can reach every address that the user can."""

import ipaddress
import urllib.parse

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response

FORBIDDEN = 403


class Visitors:
    """Middleware that refuses pages of other origins, and on loopback any name but loopback's.

    A page of another site would make the server work, and by DNS rebinding (its own name, made to point
    to 127.0.0.1) read the answers: then the name in the address is the page's. Browsers always send a
    `Host`, and an `Origin` with whatever else than a GET; other clients are not asked for an `Origin`.

    Args:
        app: the ASGI application.
        address: that the server listens on, as a number.
        allowed: names of hosts, which may be in addresses and in origins.
        cors: whether pages of any origin may ask.
    """

    def __init__(self, app, address, allowed, cors):
        self.app, self.cors = app, cors
        self.allowed = {name.lower() for name in allowed}
        self.only_known = bool(allowed) or _is_loopback(address)

    async def __call__(self, scope, receive, send):
        headers = Headers(scope=scope)
        message = self._refusal(headers.get("host"), headers.get("origin"))
        if message:
            body = orjson.dumps({"error": message})
            refusal = Response(body, FORBIDDEN, media_type="application/json")
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, host, origin):
        if host is not None and self.only_known and not self._knows(_name(host)):
            return f"The host {host[:100]!r} is not known here: vae-tf serve --allow-host NAME lets it ask."
        if origin is None or self.cors or origin.partition("://")[2] == host:
            return None
        if _name(origin.partition("://")[2]) in self.allowed:
            return None
        hint = "vae-tf serve --cors lets any page ask, --allow-host NAME those of a host."
        return f"Pages of {origin[:100]!r} may not ask: {hint}"

    def _knows(self, name):
        return name in self.allowed or name == "localhost" or _is_loopback(name)


def _name(netloc):
    """The host's name of `name:port`, in small letters; None where it is no such thing."""
    try:
        return urllib.parse.urlsplit(f"//{netloc}").hostname
    except ValueError:
        return None


def _is_loopback(name):
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
