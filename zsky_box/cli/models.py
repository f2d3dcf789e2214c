"""`zsky-box models`: what the box can run, and putting it there, checking it and taking it away."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from zsky_box import devices, inventory, settings
from zsky_box.catalog import RECORD_NAME, Catalog, open_catalog
from zsky_box.cli import show
from zsky_box.cli.command import INTERRUPTED, CommandError, Group, json_option
from zsky_box.cli.install_report import shown
from zsky_box.cli.session import Session, open_reader
from zsky_box.clock import rfc3339, system_clock
from zsky_box.db import FILE_NAME, Rows
from zsky_box.formats import RESOLUTIONS, Resolution
from zsky_box.install.disk import in_gib
from zsky_box.install.fitting import Machine
from zsky_box.install.hub import Hub
from zsky_box.install.installing import Outcome, Tools, Wish, install
from zsky_box.install.removing import remove
from zsky_box.install.source import FolderSource, HubSource, Source
from zsky_box.install.staging import locked
from zsky_box.install.stock import compare, read_inventory
from zsky_box.jobs import waiting
from zsky_box.manifest import ModelSpec
from zsky_box.settings import Settings

_USES: Final = {
    "yes": "Commercial use: allowed.",
    "no": "Commercial use: not allowed.",
    "conditional": "Commercial use: on conditions.",
}
_TOKEN_BYTES_MAX: Final = 4_096


@click.group(name="models", cls=Group)
def models_group() -> None:
    """Models: list, install, verify, measure, remove.

    Example: zsky-box models install flux2-klein-4b
    """


@models_group.command(name="list")
@json_option
@click.pass_obj
def models_list(folder: Path, as_json: bool) -> None:
    """List the models: what they make, whether they are installed, and who may use them.

    Example: zsky-box models list
    """
    from zsky_box.api.account import catalog_views

    session = Session(folder)
    listed = session.request("GET", "/v1/models") if session.is_running() else catalog_views(open_catalog(folder))
    show.told(listed, as_json, show.models)


@models_group.command(name="install")
@click.argument("name", metavar="NAME")
@click.option(
    "--from",
    "from_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder in the diffusers layout, such as on a USB disk; no network is used.",
)
@click.option("--accept-licence", is_flag=True, help="The licence is accepted; nothing is asked.")
@click.option("--revision", default="", metavar="REV", help="A branch, tag or commit (default: the newest).")
@click.option("--recipe", "--variant", metavar="NAME", help="The recipe to prepare for (default: what fits best).")
@click.option("--keep-full", is_flag=True, help="Keep the full weights beside quantised ones.")
@click.option("--anyway", is_flag=True, help="Install it even if no recipe fits this box.")
@click.option("--again", is_flag=True, help="Install it anew, even if this revision is here.")
@json_option
@click.pass_obj
def models_install(
    folder: Path,
    name: str,
    from_folder: Path | None,
    accept_licence: bool,
    revision: str,
    recipe: str | None,
    keep_full: bool,
    anyway: bool,
    again: bool,
    as_json: bool,
) -> None:
    """Fetch, check and quantise a model. It is quantised once, for this box's cards; interrupted, the command goes on.

    Example: zsky-box models install flux2-klein-4b --accept-licence
    """
    configured, catalog = settings.load(folder), open_catalog(folder)
    found = inventory.take(configured, catalog.specs.get(configured.output_check))  # as the service counts
    spec = _known(catalog, name)
    if from_folder is not None and revision:
        raise CommandError("A folder has one revision: --revision goes with a hub, --from without.")
    if from_folder is None and not spec.repository:
        raise CommandError(f"The manifest of {name} names no repository; give its folder with --from DIR.")
    _accept(spec, accepted=accept_licence, as_json=as_json)
    source = FolderSource(from_folder) if from_folder is not None else _hub_source(spec, configured, revision)
    wish = Wish(requested=revision or spec.revision, recipe=recipe, keep_full=keep_full, anyway=anyway, again=again)
    try:
        with shown(as_json=as_json) as report, locked(catalog.weights, spec.name) as staging:
            tools = Tools(
                machine=Machine(cards=tuple(found.cards.values()), host_bytes=found.host_total_bytes),
                report=report,
                now=lambda: rfc3339(system_clock()),
                floor_bytes=configured.free_space_floor_bytes,
            )
            outcome = install(spec, staging, source, wish, tools)
    except KeyboardInterrupt:
        raise CommandError("Interrupted. What has arrived is kept; the same command goes on.", INTERRUPTED) from None
    finally:
        source.close()
    show.told({"event": "installed", "name": spec.name, **_told(outcome)}, as_json, _say_installed)


@models_group.command(name="verify")
@click.argument("name", metavar="[NAME]", required=False)
@json_option
@click.pass_obj
def models_verify(folder: Path, name: str | None, as_json: bool) -> None:
    """Compare all files with what was installed. Without NAME, those of every installed model.

    Exits with 1 when one byte is not as it was, or a file is missing or too many. Example: zsky-box models verify
    """
    catalog = open_catalog(folder)
    weights = catalog.weights
    # A bundled model lies in the checkout, where nobody installs over it: there is nothing to lock.
    bundled = {spec.name: catalog.folder(spec) for spec in catalog.specs.values() if spec.bundled}
    bundled = {each: where for each, where in bundled.items() if (where / RECORD_NAME).is_file()}
    here = sorted({path.parent.name for path in weights.glob(f"[!.]*/{RECORD_NAME}")} | bundled.keys())
    if name is not None and name not in here:
        raise CommandError(f"{name} is not installed; `zsky-box models list` shows what is.")
    names = here if name is None else [name]
    with shown(as_json=False) as report:
        checked = []
        for each in names:
            where = bundled.get(each, weights / each)
            with nullcontext() if each in bundled else locked(weights, each):
                recorded = read_inventory(where)
                if recorded is None:
                    findings = [{"path": RECORD_NAME, "fault": "no record tells what the files should be"}]
                else:
                    report.phase(f"verifying {each}", sum(file.bytes for file in recorded.files))
                    findings = [msgspec.to_builtins(one) for one in compare(where, report.advance)]
            checked.append({"name": each, "state": "bad" if findings else "good", "findings": findings})
    show.told({"models": checked}, as_json, _say_verified)
    if any(model["state"] == "bad" for model in checked):
        sys.exit(1)


@models_group.command(name="bench")
@click.argument("name", metavar="NAME")
@click.option("--device", metavar="DEVICE", help="cpu or cuda:N (default: the first that the settings name).")
@click.option("--recipe", metavar="NAME", help="The recipe (default: the best whose weights are here).")
@click.option("--resolution", type=click.Choice(RESOLUTIONS), help="The size (default: the largest that it makes).")
@json_option
@click.pass_obj
def models_bench(
    folder: Path, name: str, device: str | None, recipe: str | None, resolution: Resolution | None, as_json: bool
) -> None:
    """Measure a model. It runs twice in a process of its own: loading, each phase and the card's memory are told.

    Example: zsky-box models bench flux2-klein-4b --resolution 720p
    """
    from zsky_box.cli.model_bench import measure, recipe_for

    configured, catalog = settings.load(folder), open_catalog(folder)
    spec = catalog.specs.get(name)
    if spec is None or catalog.installed(spec) is None or not spec.makes:
        raise CommandError(f"{name} is not installed, or makes nothing; `zsky-box models list` shows what is.")
    if Session(folder).is_running():
        raise CommandError("The box is running, and both would be measured: stop it first.")
    where = devices.chosen("cpu" if device == "cpu" else (device or configured.devices).removeprefix("cuda:"))[0]
    way = recipe_for(catalog, spec, where, recipe)
    size = resolution or max(spec.limits.resolutions, key=RESOLUTIONS.index)
    show.told(measure(catalog, spec, way, where, size, configured), as_json, _say_measured)


@models_group.command(name="remove")
@click.argument("name", metavar="NAME")
@json_option
@click.pass_obj
def models_remove(folder: Path, name: str, as_json: bool) -> None:
    """Take a model's files away. Jobs that it made, and their receipts, stay.

    Example: zsky-box models remove ltx-2.3-distilled
    """
    remove(open_catalog(folder), name, settings.load(folder).output_check, lambda: _open_jobs(folder, name))
    show.told({"event": "removed", "name": name}, as_json, lambda _: click.echo(f"{name} is removed."))


def _known(catalog: Catalog, name: str) -> ModelSpec:
    spec = catalog.specs.get(name)
    if spec is None:
        refused = [reason for reason in catalog.refused if reason.startswith(f"{name}.toml:")]
        if refused:
            raise CommandError(f"The manifest is refused: {refused[0]}")
        close = difflib.get_close_matches(name, catalog.specs, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(catalog.specs))}."
        raise CommandError(f"There is no model {name!r}; {hint}")
    if spec.bundled:
        raise CommandError(f"{name} is part of the box; there is nothing to install.")
    return spec


def _accept(spec: ModelSpec, *, accepted: bool, as_json: bool) -> None:
    """Raises CommandError unless the licence is accepted, by the option or by the person who reads it."""
    if accepted:
        return
    licence = spec.licence
    if as_json or not sys.stdin.isatty():
        raise CommandError(
            f"{spec.title} is under the {licence.name} ({licence.url}); read it, and accept it with --accept-licence."
        )
    click.echo(
        f"{spec.title}\nLicence: {licence.name}\n{licence.url}\n{licence.terms}\n{_USES[licence.commercial_use]}"
    )
    if not click.confirm("Do you accept this licence?", default=False):
        raise CommandError("The licence is not accepted; nothing is installed.")


def _hub_source(spec: ModelSpec, configured: Settings, revision: str) -> Source:
    hub = Hub(configured.hub_url, _token(configured, os.environ))
    return HubSource(hub, configured.hub_url, spec.repository, revision or spec.revision)


def _token(configured: Settings, environ: Mapping[str, str]) -> str:
    """The hub's token, or empty; it is never printed."""
    token, where = environ.get("HF_TOKEN", ""), "HF_TOKEN"
    if not token and configured.hub_token_file:
        path = Path(configured.hub_token_file).expanduser()
        where = f"{path} (hub_token_file)"
        try:
            with path.open("rb") as file:
                token = file.read(_TOKEN_BYTES_MAX).decode("ascii", "replace")
        except OSError as error:
            raise CommandError(f"{where} cannot be read: {error.strerror}.") from error
    token = token.strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise CommandError(f"{where} holds no token: one line of letters, digits and underscores.")
    return token


def _open_jobs(folder: Path, name: str) -> int:
    if not (folder / FILE_NAME).exists():
        return 0
    with open_reader(folder) as connection:
        return waiting.open_of_model(Rows(connection), name)


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "fresh": outcome.fresh,
        "revision": outcome.record.revision,
        "source": outcome.record.source,
        "bytes": outcome.bytes,
        "variants": list(outcome.record.variants),
        "recipes": {choice.device: None if choice.recipe is None else choice.recipe.name for choice in outcome.choices},
    }


def _say_installed(told: dict[str, Any]) -> None:
    revision = f" at {told['revision'][:12]}" if told["revision"] else ""
    state = "is installed" if told["fresh"] else "was installed already"
    click.echo(f"{told['name']} {state}{revision}: {', '.join(told['variants'])}, {in_gib(told['bytes'])}.")
    for device, recipe in told["recipes"].items():
        click.echo(f"{device}: {f'recipe {recipe}' if recipe else 'no recipe fits'}")


def _say_verified(told: dict[str, Any]) -> None:
    if not told["models"]:
        click.echo("No model is installed.")
    for model in told["models"]:
        click.echo(f"{model['name']}: {'as installed' if model['state'] == 'good' else 'not as installed'}")
        for finding in model["findings"]:
            click.echo(f"  {finding['path']} {finding['fault']}")


def _say_measured(told: dict[str, Any]) -> None:
    size = f"{told['width']}x{told['height']}" + (f", {told['frames']} frames" if told["frames"] else "")
    click.echo(f"{told['model']} by the recipe {told['recipe']} on {told['device_name']}, {size}")
    for number, run in enumerate(told["runs"], 1):
        phases = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in run["phases"].items())
        peak = f"; at most {in_gib(run['peak_bytes'])} of memory" if run["peak_bytes"] else ""
        click.echo(f"run {number}: {run['seconds']:.2f} s ({phases}){peak}")
