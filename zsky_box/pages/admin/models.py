"""`/admin/models`: the catalogue, what of it fits this box, and putting models there, checking and removing them."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Template
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from zsky_box.api.deps import Services, services
from zsky_box.catalog import Installed
from zsky_box.checkup import disks_of
from zsky_box.clock import rfc3339
from zsky_box.errands import Errand, Order
from zsky_box.errors import Refusal, not_found
from zsky_box.install import fitting
from zsky_box.install.disk import in_gib
from zsky_box.install.stock import folder_bytes, read_inventory
from zsky_box.jobs import waiting
from zsky_box.manifest import FULL, JobType, ModelSpec, Recipe
from zsky_box.pages import frame
from zsky_box.pages.admin import places
from zsky_box.placement import published_bytes
from zsky_box.terms import KINDS

PATH: Final = "/admin/models"
PARTS_MAX: Final = 1_000
"""What is counted below this are parts of a model, and no bytes."""


class RecipeRow(Struct, frozen=True):
    """One way to run a model: what it takes of a card and of host memory in bytes, and the devices that it fits."""

    recipe: Recipe
    card_bytes: int
    host_bytes: int
    fits: tuple[str, ...]
    is_prepared: bool


class ModelRow(Struct, frozen=True, kw_only=True):
    """One model of the catalogue. `bytes_here` are its files', `download_bytes` about what would be fetched;
    `unfinished_bytes` what is here of an installation that was interrupted.
    """

    spec: ModelSpec
    installed: Installed | None
    bytes_here: int
    download_bytes: int
    unfinished_bytes: int | None
    resident: bool
    is_check: bool
    default_for: list[JobType]
    recipes: list[RecipeRow]
    open_jobs: int

    @property
    def fits(self) -> bool:
        """Whether some device of this box can run it."""
        return any(row.fits for row in self.recipes)

    @property
    def place(self) -> tuple[bool, bool, bool]:
        """Where it stands on the page: installed, begun to be installed, part of the box, not here."""
        is_begun = self.unfinished_bytes is not None
        return self.installed is None and not is_begun, self.spec.bundled, self.installed is None


@get(PATH, opt={"page": "owner"}, include_in_schema=False)
async def models(request: Request[Any, Any, Any]) -> Template:
    """The page."""
    box = services(request)
    rows = await box.store.read(lambda: _rows(box))
    weights = await asyncio.to_thread(lambda: disks_of(box.catalog.weights, box.catalog.weights))
    return places.page(
        request,
        "admin/models.html",
        tab="models",
        title="Models",
        rows=rows,
        free_bytes=weights[0].free,
        refused=box.catalog.refused,
        has_token=bool(os.environ.get("HF_TOKEN") or box.settings.hub_token_file),
        hub=box.settings.hub_url,
        **_errand(box),
    )


@get(f"{PATH}/now", opt={"page": "owner"}, include_in_schema=False)
async def errand_now(request: Request[Any, Any, Any]) -> Template:
    """How far the errand is, for the page that refreshes itself until it has ended."""
    return places.page(request, "admin/models_now.html", tab="models", title="Models", **_errand(services(request)))


@post(PATH, opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def begin(request: Request[Any, Any, Any]) -> Response[Any]:
    """Install, verify, or cancel what goes on."""
    box, form = services(request), await frame.form(request)
    name, actor = form.get("model", ""), places.actor(request)
    match form.get("do"):
        case "install":
            order = Order(
                recipe=form.get("recipe", ""),
                keep_full=form.get("keep_full") == "yes",
                anyway=form.get("anyway") == "yes",
                again=form.get("again") == "yes",
            )
            accepted = form.get("accept_licence") == "yes"
            await box.store.read(lambda: box.errands.install(name, order, accepted=accepted, actor=actor))
            told = f"{name} is being installed. It goes on while you leave this page."
        case "verify":
            await box.store.read(lambda: box.errands.verify(name))
            told = f"{name} is being verified."
        case "cancel":
            box.errands.cancel()
            told = "It is being stopped; what has arrived is kept."
        case _:
            raise Refusal(422, "invalid_field", "A model is installed or verified.", field="do")
    return frame.done(request, PATH, told)


@get(f"{PATH}/{{name:str}}/remove", opt={"page": "owner"}, include_in_schema=False)
async def ask_to_remove(request: Request[Any, Any, Any], name: FromPath[str]) -> Template:
    """Whether a model is to go."""
    box = services(request)
    if name not in box.catalog.specs:
        raise not_found("model")
    row = await box.store.read(lambda: _row(box, box.catalog.specs[name], box.scheduler.resident()))
    return places.page(request, "admin/model_remove.html", tab="models", title="Remove a model", row=row, in_gib=in_gib)


@post(f"{PATH}/{{name:str}}/remove", opt={"page": "owner"}, status_code=303, include_in_schema=False)
async def remove(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[Any]:
    """Take it away, on record."""
    box, actor = services(request), places.actor(request)
    await box.store.read(lambda: box.errands.remove(name, actor=actor))
    return frame.done(request, PATH, f"{name} is removed.")


def _errand(box: Services) -> dict[str, Any]:
    errand = box.errands.last()
    return {"errand": errand, "amount": None if errand is None else _amount(errand), "at": rfc3339, "in_gib": in_gib}


def _amount(errand: Errand) -> str:
    if errand.of == 0:
        return ""
    if errand.of <= PARTS_MAX:
        return f"{errand.done} of {errand.of} parts"
    return f"{in_gib(errand.done)} of {in_gib(errand.of)}"


def _rows(box: Services) -> list[ModelRow]:
    """What was put here first, then what came with the box, then the others; those that make something first."""
    resident = box.scheduler.resident()
    rows = [_row(box, spec, resident) for spec in box.catalog.specs.values()]
    return sorted(rows, key=lambda row: (*row.place, not row.spec.makes, row.spec.title.casefold()))


def _row(box: Services, spec: ModelSpec, resident: set[str]) -> ModelRow:
    catalog, installed = box.catalog, box.catalog.installed(spec)
    full = None if installed is None else installed.variants.get(FULL)
    sizes = published_bytes(spec) if full is None or not full.components else full.components
    return ModelRow(
        spec=spec,
        installed=installed,
        bytes_here=0 if installed is None or spec.bundled else _bytes_here(box, spec),
        download_bytes=sum(published_bytes(spec).values()),
        unfinished_bytes=None if spec.bundled else box.errands.unfinished_bytes(spec.name),
        resident=spec.name in resident,
        is_check=catalog.output_check is not None and catalog.output_check.name == spec.name,
        default_for=[kind for kind in KINDS if catalog.default(kind) is spec],
        recipes=[] if spec.bundled else _recipes(box, spec, installed, sizes),
        open_jobs=waiting.open_of_model(box.store, spec.name),
    )


def _bytes_here(box: Services, spec: ModelSpec) -> int:
    """As recorded; of a folder that was laid there by hand, as it is."""
    folder = box.catalog.folder(spec)
    inventory = read_inventory(folder)
    return folder_bytes(folder) if inventory is None else sum(file.bytes for file in inventory.files)


def _recipes(box: Services, spec: ModelSpec, installed: Installed | None, sizes: dict[str, int]) -> list[RecipeRow]:
    machine = fitting.Machine(cards=tuple(box.inventory.cards.values()), host_bytes=box.inventory.host_total_bytes)
    fits = fitting.fits(spec, sizes, machine)
    rows: list[RecipeRow] = []
    for recipe in spec.ways:
        needs = fitting.needs(spec, recipe, sizes)
        prepared = installed is not None and (not installed.variants or recipe.variant in installed.variants)
        rows.append(
            RecipeRow(recipe, needs.held_bytes + needs.working_bytes, needs.host_bytes, fits[recipe.name], prepared)
        )
    return rows


HANDLERS: Final[list[ControllerRouterHandler]] = [models, errand_now, begin, ask_to_remove, remove]
