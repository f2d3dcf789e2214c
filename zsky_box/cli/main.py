"""The commands, each with help, an example and `--json`; one clear sentence and a non-zero exit when one fails."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from zsky_box import __version__, accounts, control, invitations, keys, secretfile, settings, timeline
from zsky_box.cli import show
from zsky_box.cli.accounts import accounts_group
from zsky_box.cli.command import CommandError, Group, json_option
from zsky_box.cli.devices import pause, resume, unload
from zsky_box.cli.generate import generate
from zsky_box.cli.keys import keys_group
from zsky_box.cli.ledger import ledger_group
from zsky_box.cli.models import models_group
from zsky_box.cli.session import Session, open_store
from zsky_box.clock import rfc3339, system_clock
from zsky_box.db import FILE_NAME
from zsky_box.errors import ZskyError

ACTOR = "terminal"
NOISY_LOGGERS = ("huey", "httpx", "uvicorn", "zsky_box.access")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="zsky-box")
@click.pass_context
def cli(context: click.Context) -> None:
    """One prompt, one job, one URL: images and video with sound, on the card in the room.

    Example: zsky-box generate "a red fox in the snow" --type image
    """
    context.obj = context.obj or settings.data_dir(None)


@cli.command()
@click.option("--owner", "name", default="owner", show_default=True, metavar="NAME", help="The owner's name.")
@json_option
@click.pass_obj
def init(folder: Path, name: str, as_json: bool) -> None:
    """Create the box: its folder, owner and key. The key is shown once.

    Example: zsky-box init --owner "Studio North"
    """
    if not name.strip() or len(name) > 100:
        raise CommandError("An owner's name has 1 to 100 characters.")
    configured = settings.load(folder)
    if Session(folder).is_running():
        raise CommandError(f"The box in {folder} is set up and running; `zsky-box keys rotate` issues a new key.")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now, secrets = system_clock(), secretfile.load(folder)
    if not timeline.is_possible(now):
        raise CommandError(f"The machine's clock says {rfc3339(now)}, which cannot be; set it first.")
    with open_store(folder, create=True) as store:

        def work(tx: Any) -> tuple[accounts.Account, str, str]:
            owner = accounts.create_owner(tx, name.strip(), now)
            _, secret = keys.issue(tx, secrets.pepper, owner.id, now=now, actor=ACTOR, name="first key")
            token = invitations.invite(tx, owner.id, now=now, actor=ACTOR, hours=None)
            return owner, secret, token

        owner, secret, token = store.write(work)
    base = configured.public_url or configured.local_url()
    told = {
        "account": owner.id,
        "owner": owner.name,
        "api_key": secret,
        "setup_url": f"{base}/setup?token={token}",
        "url": base,
        "data": str(folder),
    }
    if as_json:
        click.echo(json.dumps(told))
        return
    click.echo(f"The box in {folder} belongs to {owner.name}.\n\nAPI key (shown once): {secret}")
    click.echo(f"Start it: zsky-box serve\nFirst run in the browser: {told['setup_url']}")
    click.echo("(With another --port, change it in this address.)")


@cli.command()
@click.option("--host", metavar="ADDRESS", help="Where to listen (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(1, 65_535), metavar="PORT", help="The port (default 8420).")
@click.option("--devices", metavar="LIST", help="auto, cpu, card numbers such as 0,1, or cpu,cpu.")
@json_option
@click.pass_obj
def serve(folder: Path, host: str | None, port: int | None, devices: str | None, as_json: bool) -> None:
    """Run the service. On SIGTERM or Ctrl-C running jobs end first; a second one stops it at once.

    Example: zsky-box serve --port 8420 --devices 0,1
    """
    from zsky_box import app

    configured = settings.load(folder, host=host, port=port, devices=devices)
    if not (folder / FILE_NAME).exists():
        raise CommandError(f"There is no box in {folder} yet; run `zsky-box init` first.")
    logging.basicConfig(
        level=configured.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in NOISY_LOGGERS:
        logging.getLogger(noisy).setLevel("DEBUG" if configured.log_level == "debug" else "WARNING")
    url = configured.url_at(configured.host)

    def tell() -> None:
        if as_json:
            click.echo(json.dumps({"url": url, "pid": os.getpid(), "data": str(folder)}))
        else:
            click.echo(f"The box listens on {url}", err=True)

    sys.exit(app.serve(folder, configured, on_started=tell))


cli.add_command(generate)


@cli.command()
@click.option("--status", type=click.Choice(["queued", "running", "completed", "failed"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many.")
@json_option
@click.pass_obj
def jobs(folder: Path, status: str | None, limit: int, as_json: bool) -> None:
    """List your jobs, newest first.

    Example: zsky-box jobs --status failed
    """
    query = {"limit": str(limit)} | ({"status": status} if status else {})
    page = Session(folder).request("GET", "/v1/jobs", params=query)
    show.told(page, as_json, show.jobs)


@cli.command()
@click.argument("job_id", metavar="ID")
@click.option("--why", is_flag=True, help="Where and why each attempt ran, and why a queued job waits.")
@json_option
@click.pass_obj
def status(folder: Path, job_id: str, why: bool, as_json: bool) -> None:
    """Show one job.

    Example: zsky-box status job_3q9zkx… --why
    """
    session = Session(folder)
    view = session.request("GET", f"/v1/jobs/{_plain(job_id)}")
    if why:
        view["decisions"] = session.request("GET", f"/v1/jobs/{_plain(job_id)}/decisions")
    show.told(view, as_json, show.job)


@cli.command()
@click.argument("job_id", metavar="ID")
@json_option
@click.pass_obj
def cancel(folder: Path, job_id: str, as_json: bool) -> None:
    """Stop a job. It is free while it waits, and charged once its first denoising step is stored.

    Example: zsky-box cancel job_3q9zkx…
    """
    show.told(Session(folder).request("POST", f"/v1/jobs/{_plain(job_id)}/cancel"), as_json, show.job)


cli.add_command(pause)
cli.add_command(resume)
cli.add_command(unload)
cli.add_command(keys_group)
cli.add_command(accounts_group)
cli.add_command(ledger_group)
cli.add_command(models_group)


@cli.command()
@click.option("--accept-clock", is_flag=True, help="The clock is right as it stands, though it is behind the ledger.")
@click.option(
    "--bundle",
    "bundled",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it all into a new JSON file, to show to somebody who helps; it holds no secret and no prompt.",
)
@json_option
@click.pass_obj
def doctor(folder: Path, accept_clock: bool, bundled: Path | None, as_json: bool) -> None:
    """Check the machine and the box. Exits with 1 when something must be mended.

    Example: zsky-box doctor --bundle report.json
    """
    from zsky_box.cli import bundle
    from zsky_box.cli.doctor import examine

    if accept_clock:
        show.told(Session(folder).control(control.AcceptClock()), as_json, show.clock)
        return
    findings = examine(folder)
    written: dict[str, str] = {}
    if bundled is not None:
        bundle.write(bundled, bundle.gather(folder, findings))
        written["bundle"] = str(bundled)
    show.told({"checks": findings, **written}, as_json, show.checks)
    if any(finding["state"] == "bad" for finding in findings):
        sys.exit(1)


def main() -> None:
    """Entry point: every expected failure is one sentence on stderr and exit status 1."""
    colourless = {"color": False} if os.environ.get("NO_COLOR") else {}
    try:
        cli(prog_name="zsky-box", **colourless)
    except CommandError as error:
        _fail(str(error), error.exit_status)
    except ZskyError as error:
        _fail(getattr(error, "detail", None) or str(error))
    except sqlite3.Error as error:
        _fail(f"the ledger cannot be used ({error}); `zsky-box doctor` looks closer")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(sentence: str, exit_status: int = 1) -> NoReturn:
    click.echo(f"zsky-box: {sentence}", err=True)
    sys.exit(exit_status)


def _plain(job_id: str) -> str:
    if not (job_id.isascii() and job_id.replace("_", "").isalnum()):
        raise CommandError(f"{job_id!r} is not a job's id; `zsky-box jobs` lists them.")
    return job_id
