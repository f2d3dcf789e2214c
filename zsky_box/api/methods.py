"""What methods an address answers: HEAD wherever GET is answered, and OPTIONS that names them all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from litestar import Litestar, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Message, Scope

_METHODS: Final = "methods"


def with_heads(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """The handlers, and beside each that is got one for its headers alone (RFC 9110, 9.1): the server sends no body.

    The document tells of HEAD only where a client looks for it, at files.
    """
    both = list[HTTPRouteHandler]()
    for handler in handlers:
        both.append(handler)
        if handler.http_methods == {"GET"}:
            paths, guards = sorted(handler.paths), handler.guards
            twin = route(paths, http_method=HttpMethod.HEAD, opt=handler.opt, guards=guards, include_in_schema=False)
            both.append(twin(handler.fn))
    return both


def remember(app: Litestar) -> None:
    """Keep the methods of each address for `tell_methods`."""
    routes = [each for each in app.routes if isinstance(each, HTTPRoute)]
    app.state[_METHODS] = {each.path_format: ", ".join(sorted(each.route_handler_map)).encode() for each in routes}


async def tell_methods(message: Message, scope: Scope) -> None:
    """Litestar hook before each message: of an address with several handlers its OPTIONS would name but the first's."""
    if message["type"] == "http.response.start" and scope["type"] == "http" and scope["method"] == "OPTIONS":
        allowed = scope["litestar_app"].state[_METHODS].get(scope.get("path_template"))
        if allowed is not None:
            message["headers"] = [
                (name, allowed if name.lower() == b"allow" else value) for name, value in message["headers"]
            ]
