"""A stranger's picture is decoded in a short-lived child: a bomb or a fault in a decoder ends that and nothing else.

Knows the child (`zsky_box.media.reference`) only by its name and by what `zsky_box.picture` says. It begins within
about a tenth of a second; few run at once, and each is bounded by itself in memory and time, and here once more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.picture import LONG_SIDE_MAX, SIDE_MIN, Answer, Clean, Reason, Refused, Task, kind_of

ENTRY: Final = "zsky_box.media.reference"
AT_ONCE: Final = 2
TIMEOUT_SECONDS: Final = 65.0
"""A little longer than the child gives itself."""
_LAST_WORDS_CHARACTERS: Final = 500
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
"""Of the service's environment the child needs nothing else, least of all a token that may be in it."""
_TOO_COSTLY: Final = (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL)

log = logging.getLogger(__name__)


class Decoder:
    """Re-encodes pictures of at most `pixels_max` pixels, at most `AT_ONCE` at a time."""

    def __init__(self, pixels_max: int) -> None:
        self._pixels_max = pixels_max
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="decode")

    async def clean(self, content: bytes, path: Path, *, field: str) -> Clean:
        """Decode a picture and write it anew to `path`, which does not exist yet.

        Raises 422 `invalid_field` for `field` where it is no picture that can be taken, 415 `unsupported_media` where
        it is something else, 503 `storage_full` where it cannot be written; then nothing is left at `path`.
        """
        kind = kind_of(content)
        if kind is None:
            raise _no_picture(field)
        task = Task(kind=kind, pixels_max=self._pixels_max, path=str(path))
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, decoded, task, content)
        if isinstance(answer, Clean):
            return answer
        raise self._refusal(answer.reason, field)

    def close(self) -> None:
        """Take no more; those that run are bounded by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _refusal(self, reason: Reason, field: str) -> Refusal:
        if reason == "not_stored":
            detail = "The picture could not be stored: the box's disk is full, or cannot be written."
            return Refusal(503, "storage_full", detail, headers={"Retry-After": "300"})
        megapixels = f"{self._pixels_max / 1e6:g} million pixels"
        told = {
            "damaged": "the picture is damaged or cut short; save it anew and send it again",
            "animated": "the picture is animated; send one frame of it",
            "too_many_pixels": f"the picture has more than {megapixels}; send a smaller one",
            "too_small": f"the picture is too small or too narrow: it needs {SIDE_MIN} pixels in each direction"
            f" when its longer side is {LONG_SIDE_MAX} or less",
            "too_costly": "the picture takes too much time or memory to decode; save it anew as a plain PNG or JPEG",
        }[reason]
        return InvalidFields([FieldError(field, "invalid_field", f"{field}: {told}.")])


def decoded(task: Task, content: bytes) -> Answer:
    """Run the child; raises OSError or RuntimeError where it cannot do its work at all."""
    path = Path(task.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", ENTRY, msgspec.json.encode(task).decode()],
            input=content,
            capture_output=True,
            env=_environment(),
            start_new_session=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _ended(path, "it was killed after the time it has", "too_costly")
    told = done.stderr.decode("utf-8", "replace").strip()[-_LAST_WORDS_CHARACTERS:]
    if done.returncode == 0:
        if told:
            log.info("a picture was not decoded: %s", told.rpartition("\n")[2])
        return msgspec.json.decode(done.stdout, type=Answer)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return _ended(path, f"{name} {told}".strip(), "too_costly" if done.returncode in _TOO_COSTLY else "damaged")
    path.unlink(missing_ok=True)
    raise RuntimeError(f"the decoder cannot work (exit code {done.returncode}): {told}")


def _ended(path: Path, why: str, reason: Reason) -> Answer:
    log.warning("a picture ended its decoder: %s", why)
    path.unlink(missing_ok=True)
    return Refused(reason=reason)


def _environment() -> dict[str, str]:
    ours, inherited = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, "PYTHONPATH": f"{ours}{os.pathsep}{inherited}" if inherited else ours}


def _no_picture(field: str) -> Refusal:
    detail = f"{field}: send a PNG, JPEG or WebP picture; this is none, by its content."
    return Refusal(415, "unsupported_media", detail, field=field)
