"""The web application over a box: all routes, what refuses for them, and what they share while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from litestar import Litestar, Router
from litestar.exceptions import HTTPException
from litestar.logging import LoggingConfig
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig

from zsky_box import pages
from zsky_box.api import (
    account,
    files,
    generate,
    health,
    jobs,
    methods,
    metrics,
    overage,
    problems,
    quote,
    statements,
    streams,
    terminal,
    uploads,
)
from zsky_box.api.access import authenticate, keep_private, tell_limits
from zsky_box.api.bodies import LargeBodies, with_picture_max_bytes
from zsky_box.api.document import build, config
from zsky_box.app.box import Box
from zsky_box.errors import Refusal, StoreError
from zsky_box.pages import docs, wrong
from zsky_box.pages.files import StaticFiles, static_file
from zsky_box.pages.marked import marked
from zsky_box.pages.said import Said
from zsky_box.pages.usage import month_title
from zsky_box.pages.usage_tables import dollars
from zsky_box.settings import CHECKOUT, Settings


def create_app(box: Box) -> Litestar:
    """The web application; its lifespan starts and closes the box."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None]:
        await asyncio.to_thread(box.start)
        try:
            yield
        finally:
            await asyncio.to_thread(box.close)

    pages.answer_head(static_file)
    app = Litestar(
        route_handlers=[
            _v1(box.settings),
            files.get_file,
            files.head_file,
            *methods.with_heads([health.healthz, health.readyz, metrics.metrics]),
            terminal.run_command,
            pages.router(),
            static_file,
        ],
        lifespan=[lifespan],
        before_send=[tell_limits, keep_private, methods.tell_methods],
        exception_handlers={
            Refusal: wrong.for_browsers(problems.from_refusal, wrong.refused),
            HTTPException: wrong.for_browsers(problems.from_framework, wrong.of_framework),
            StoreError: wrong.for_browsers(problems.from_store, wrong.of_store),
            Exception: wrong.for_browsers(problems.from_any, wrong.of_any),
        },
        openapi_config=config(),
        template_config=TemplateConfig(
            directory=CHECKOUT / "web" / "templates", engine=JinjaTemplateEngine, engine_callback=_with_filters
        ),
        request_max_body_size=box.settings.body_max_bytes,
        multipart_form_part_limit=uploads.PARTS_MAX,
        logging_config=LoggingConfig(configure_root_logger=False, log_exceptions="never"),
    )
    methods.remember(app)
    app.state["services"] = box.services
    app.state["streams"] = streams.StreamCount(
        box.settings.streams_per_key_max, box.settings.streams_per_account_max, box.settings.streams_max
    )
    app.state["large_bodies"] = LargeBodies()
    app.state["document"] = build(app)
    app.state["docs"] = docs.draw(app, app.state["document"])
    app.state["static"] = StaticFiles(CHECKOUT / "web" / "static")
    app.state["said"] = Said()
    app.state["paths"] = frozenset(route.path for route in app.routes)
    app.state["forms"] = frozenset(route.path for route in app.routes if "GET" not in getattr(route, "methods", ()))
    return app


def _with_filters(templates: JinjaTemplateEngine) -> None:
    templates.engine.filters["marked"] = marked
    templates.engine.filters["dollars"] = dollars
    templates.engine.filters["month"] = month_title


def _v1(settings: Settings) -> Router:
    """The API, behind its one guard. A body is larger than others' where it may hold a picture."""
    beside_fields, alone = with_picture_max_bytes(settings), settings.upload_max_bytes + uploads.FORM_MAX_BYTES
    return Router(
        "/v1",
        guards=[authenticate],
        route_handlers=[
            Router("", request_max_body_size=beside_fields, route_handlers=[generate.generate, quote.quote]),
            Router("", request_max_body_size=alone, route_handlers=[uploads.upload]),
            streams.account_events,  # these have no headers alone: they have no end
            streams.job_events,
            *methods.with_heads(
                [
                    uploads.get_upload,
                    uploads.delete_upload,
                    generate.rerun,
                    jobs.job_status,
                    jobs.list_jobs,
                    jobs.get_job,
                    jobs.get_decisions,
                    jobs.cancel,
                    jobs.delete_job,
                    account.me,
                    account.me_csv,
                    account.models,
                    overage.get_overage,
                    overage.toggle,
                    overage.set_cap,
                    statements.get_usage,
                    statements.get_usage_csv,
                    statements.list_ledger,
                    statements.list_ledger_csv,
                    statements.list_statements,
                    statements.get_statement,
                    health.document,
                ]
            ),
        ],
    )
