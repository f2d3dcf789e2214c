"""The caller and the catalogue: `/v1/me` and `/v1/models`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get

from zsky_box import sheets
from zsky_box.api import tables
from zsky_box.api.access import caller_of
from zsky_box.api.deps import Services, services
from zsky_box.api.overage import stands
from zsky_box.api.problems import documented
from zsky_box.catalog import Catalog
from zsky_box.manifest import ModelSpec
from zsky_box.schemas import KeyView, LicenceView, MeView, ModelList, ModelView, VocabularyView
from zsky_box.sheets import told
from zsky_box.terms import KINDS

COLUMNS: Final = (
    *("account", "name", "plan", "test", "key_id", "key_name", "key_last_four", "key_scopes"),
    *("period_start", "period_end", "type", "granted", "used", "pending", "left"),
)


@get(
    "/me",
    opt={"scope": "read", "csv": True},
    operation_id="getMe",
    tags=["account"],
    summary="Who you are",
    responses=tables.answers(MeView),
)
async def me(request: Request[Any, Any, Any]) -> Response[Any]:
    """The account and key of the request, and what is left of this month's included units."""
    if tables.prefers_csv(request):
        return await _me_sheet(request)
    return Response(await _me(request), media_type=tables.JSON, headers=tables.NO_STORE)


@get(
    "/me.csv",
    opt={"scope": "read"},
    operation_id="getMeCsv",
    tags=["account"],
    summary="Who you are, as CSV",
    responses=tables.documented_sheet(),
)
async def me_csv(request: Request[Any, Any, Any]) -> Response[Any]:
    """The same as a table, with a row for each type of included units."""
    return await _me_sheet(request)


async def _me_sheet(request: Request[Any, Any, Any]) -> Response[Any]:
    found = await _me(request)
    key, period = found.key, found.period
    who = [found.account, told(found.name), found.plan, "true" if found.test else "false"]
    who += [key.id, told(key.name), told(key.last_four), " ".join(key.scopes), period.start, period.end]
    rows = [
        [*who, kind, units.granted, units.used, units.pending, units.left] for kind, units in found.included.items()
    ]
    return tables.sheet(services(request).store, iter([sheets.lines([COLUMNS, *rows])]), "me")


async def _me(request: Request[Any, Any, Any]) -> MeView:
    box, caller = services(request), caller_of(request)
    money = await stands(box, caller)
    key = caller.key
    return MeView(
        account=caller.account.id,
        name=caller.account.name,
        plan=money.plan,
        test=key.test,
        key=KeyView(id=key.id, name=key.name, last_four=key.last_four, scopes=list(key.scopes)),
        included=money.included,
        period=money.period,
    )


@get(
    "/models",
    opt={"scope": "read"},
    operation_id="listModels",
    tags=["models"],
    summary="What this box can run",
    responses=documented(),
)
async def models(request: Request[Any, Any, Any]) -> ModelList:
    """Each model with its limits, defaults and licence, whether it is installed, and whether it is in memory now."""
    return ModelList(data=await model_views(services(request)))


async def model_views(box: Services) -> list[ModelView]:
    """The catalogue as the running box has it."""
    resident = box.scheduler.resident()
    specs = list(box.catalog.specs.values())
    return await box.store.read(lambda: [_model(box.catalog, spec, resident) for spec in specs])


def catalog_views(catalog: Catalog) -> dict[str, Any]:
    """The catalogue as the list of models that the API would answer with, while the service is stopped."""
    return msgspec.to_builtins(ModelList(data=[_model(catalog, spec, set()) for spec in catalog.specs.values()]))


def _model(catalog: Catalog, spec: ModelSpec, resident: set[str]) -> ModelView:
    video = "video" in spec.makes
    installed = catalog.installed(spec)
    return ModelView(
        id=spec.name,
        title=spec.title,
        makes=list(spec.makes),
        installed=installed is not None,
        resident=spec.name in resident,
        default_for=[kind for kind in KINDS if catalog.default(kind) is spec],
        resolutions=list(spec.limits.resolutions) if spec.makes else [],
        aspect_ratios=list(spec.limits.aspect_ratios) if spec.makes else [],
        fps=list(spec.limits.fps),
        min_duration=spec.limits.min_duration_seconds if video else None,
        max_duration=spec.limits.max_duration_seconds if video else None,
        default_duration=spec.default_duration_seconds if video else None,
        default_fps=spec.default_fps if video else None,
        max_images=spec.limits.max_images if "image" in spec.makes else 0,
        negative_prompt=spec.limits.negative_prompt,
        reference_image=spec.limits.reference_image,
        strength=spec.limits.strength,
        vocabulary=_vocabulary(spec),
        experimental=spec.experimental,
        licence=LicenceView(name=spec.licence.name, url=spec.licence.url, terms=spec.licence.terms),
        commercial_use=spec.licence.commercial_use,
        revision=spec.revision if installed is None else installed.revision,
    )


def _vocabulary(spec: ModelSpec) -> VocabularyView | None:
    known = spec.limits.vocabulary
    if known is None:
        return None
    return VocabularyView(
        knows={topic: list(words) for topic, words in known.knows.items()}, examples=[*known.examples]
    )
