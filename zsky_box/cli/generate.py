"""`zsky-box generate`: submit, show phase, progress and time, download, print the path."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from zsky_box.cli import show
from zsky_box.cli.command import INTERRUPTED, Command, CommandError, json_option
from zsky_box.cli.session import Session

POLL_SECONDS: Final = 0.2


@click.command(cls=Command)
@click.argument("prompt")
@click.option("--type", "job_type", type=click.Choice(["video", "image"]), default="video", show_default=True)
@click.option("--model", metavar="NAME", help="A model of `zsky-box models list`.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed gives the same result.")
@click.option("--duration", type=float, metavar="SECONDS", help="The length of a video.")
@click.option("--aspect-ratio", metavar="W:H", help="16:9, 9:16, 1:1, 4:3, 3:4 or 21:9.")
@click.option("--resolution", metavar="NAME", help="480p, 720p or 1080p; 144p where a model makes it.")
@click.option(
    "--image", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="A picture to begin with."
)
@click.option("--strength", type=click.FloatRange(0, 1), metavar="0…1", help="How far to go from it; 0 keeps it.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to save it.")
@json_option
@click.pass_obj
def generate(
    folder: Path, prompt: str, job_type: str, image: Path | None, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Make an image or a video, and save it. Ctrl-C cancels the job.

    Example: zsky-box generate "a neon night market, ambient crowd sound" --type video --out market.mp4
    """
    if out is not None and not out.parent.is_dir():
        raise CommandError(f"There is no folder {out.parent}; make it first. Nothing was asked for.")
    session = Session(folder)
    given = {name: value for name, value in options.items() if value is not None}
    if image is not None:
        given["image"] = _uploaded(session, image)
    job = session.request("POST", "/v1/generate", json={"type": job_type, "prompt": prompt, **given})
    ended = _ended(session, job["job_id"], quiet=as_json)
    if ended["status"] == "failed":
        if as_json:
            show.told(ended, as_json, show.job)
        raise CommandError(f"{ended['error']} ({ended['error_code']}, {ended['job_id']})")
    target = out or Path(unquote(Path(urlsplit(ended["result_url"]).path).name))
    session.download(ended["result_url"], ended["result"]["sha256"], target)
    show.told({**ended, "path": str(target.resolve())}, as_json, show.saved)


def _uploaded(session: Session, image: Path) -> str:
    """The id of the picture on the box."""
    try:
        content = image.read_bytes()
    except OSError as error:
        raise CommandError(f"{image} cannot be read ({error.strerror}). Nothing was asked for.") from error
    return str(session.request("POST", "/v1/uploads", files={"file": (image.name, content)})["id"])


def _ended(session: Session, job_id: str, *, quiet: bool) -> dict[str, Any]:
    """The job when it has ended. A job that nobody watches any more goes on, and the person is told how to find it."""
    try:
        return _follow(session, job_id, quiet=quiet)
    except KeyboardInterrupt:
        raise CommandError(_cancel(session, job_id), INTERRUPTED) from None
    except CommandError as error:
        raise CommandError(f"{error} The job is kept; `zsky-box status {job_id}` shows it.") from error


def _cancel(session: Session, job_id: str) -> str:
    try:
        job = session.request("POST", f"/v1/jobs/{job_id}/cancel")
    except CommandError as error:
        return f"Stopped watching {job_id}. {error}"
    if job["status"] == "failed":
        return f"Cancelled {job_id} before it began; it costs nothing."
    return f"Cancelled {job_id}; `zsky-box status {job_id}` shows whether it is charged."


def _follow(session: Session, job_id: str, *, quiet: bool) -> dict[str, Any]:
    """Poll until the job has ended; a bar on stderr where it is a terminal, else nothing."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("waiting", total=1.0, note="")
        while True:
            job = session.request("GET", f"/v1/job_status/{job_id}")
            if job["status"] in ("completed", "failed"):
                return job
            bar.update(task, completed=job["progress"], description=job["phase"], note=_note(job))
            time.sleep(POLL_SECONDS)


def _note(job: dict[str, Any]) -> str:
    if job["eta_seconds"] is not None:
        return f"about {job['eta_seconds']:.0f} s left"
    return f"place {job['queue_position']} in the queue" if job["queue_position"] else ""
