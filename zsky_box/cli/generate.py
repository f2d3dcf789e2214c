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
from zsky_box.cli.session import CommandError, Session

POLL_SECONDS: Final = 0.2


@click.command()
@click.argument("prompt")
@click.option("--type", "job_type", type=click.Choice(["video", "image"]), default="video", show_default=True)
@click.option("--model", metavar="NAME", help="A model of `zsky-box models list`.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed gives the same result.")
@click.option("--duration", type=float, metavar="SECONDS", help="The length of a video.")
@click.option("--aspect-ratio", metavar="W:H", help="16:9, 9:16, 1:1, 4:3, 3:4 or 21:9.")
@click.option("--resolution", metavar="NAME", help="480p, 720p or 1080p.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to save it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_obj
def generate(folder: Path, prompt: str, job_type: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Make an image or a video, and save it.

    Example: zsky-box generate "a neon night market, ambient crowd sound" --type video --out market.mp4
    """
    if out is not None and not out.parent.is_dir():
        raise CommandError(f"There is no folder {out.parent}; make it first.")
    session = Session(folder)
    given = {name: value for name, value in options.items() if value is not None}
    job = session.request("POST", "/v1/generate", json={"type": job_type, "prompt": prompt, **given})
    try:
        ended = _follow(session, job["job_id"], quiet=as_json)
    except KeyboardInterrupt:
        session.request("POST", f"/v1/jobs/{job['job_id']}/cancel")
        raise CommandError(f"Stopped; job {job['job_id']} is cancelled.") from None
    if ended["status"] == "failed":
        raise CommandError(f"{ended['error']} ({ended['error_code']}, job {ended['job_id']})")
    target = out or Path(unquote(Path(urlsplit(ended["result_url"]).path).name))
    session.download(ended["result_url"], target)
    show.told({**ended, "path": str(target.resolve())}, as_json, show.saved)


def _follow(session: Session, job_id: str, *, quiet: bool) -> dict[str, Any]:
    """Poll until the job has ended; a bar on stderr where it is a terminal."""
    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("waiting", total=1.0, eta="")
        while True:
            job = session.request("GET", f"/v1/job_status/{job_id}")
            if job["status"] in ("completed", "failed"):
                return job
            eta = job["eta_seconds"]
            place = job["queue_position"]
            note = f"about {eta:.0f} s left" if eta is not None else f"place {place} in the queue" if place else ""
            bar.update(task, completed=job["progress"], description=job["phase"], eta=note)
            time.sleep(POLL_SECONDS)
