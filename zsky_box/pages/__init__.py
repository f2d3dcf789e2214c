"""The browser's pages: thin handlers over the same rooms as the API's."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, Router
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ControllerRouterHandler

from zsky_box.errors import Refusal, StoreError
from zsky_box.pages import (
    admin,
    create,
    docs,
    frame,
    library,
    reference,
    result,
    settings,
    setup,
    sign_in,
    usage,
    wrong,
)
from zsky_box.pages.entry import FORM_MAX_BYTES, enter

HANDLERS: Final[list[ControllerRouterHandler]] = [
    create.create,
    create.submit,
    create.job_request,
    reference.take_reference,
    reference.picture,
    sign_in.home,
    sign_in.sign_in,
    sign_in.try_sign_in,
    sign_in.sign_out,
    setup.setup,
    setup.set_up,
    *settings.HANDLERS,
    docs.docs,
    docs.create_test_key,
    *admin.HANDLERS,
    usage.show_usage,
    usage.list_statements,
    usage.show_statement,
    library.library,
    library.save,
    library.delete,
    result.result,
    result.receipt,
    result.rerun,
    result.cancel,
]


def router() -> Router:
    """All pages, behind the one guard, with their headers and their own way to refuse."""
    for handler in HANDLERS:
        answer_head(handler)
    return Router(
        "/",
        guards=[enter],
        route_handlers=HANDLERS,
        after_request=_with_headers,
        request_max_body_size=FORM_MAX_BYTES,
        include_in_schema=False,
        exception_handlers={
            Refusal: wrong.refused,
            HTTPException: wrong.of_framework,
            StoreError: wrong.of_store,
            Exception: wrong.of_any,
        },
    )


def answer_head(handler: ControllerRouterHandler) -> None:
    """Whatever is got can also be asked for without its body (RFC 9110, 9.1), which the server leaves out."""
    if isinstance(handler, HTTPRouteHandler) and "GET" in handler.http_methods:
        handler.http_methods.add("HEAD")


def _with_headers(response: Response[Any]) -> Response[Any]:
    for name, value in frame.HEADERS.items():
        response.headers.setdefault(name, value)
    return response
