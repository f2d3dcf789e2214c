"""What install.sh asks about a port, a starting box, a setting and a line of JSON. The standard library is enough.

probe.py port PORT                 ends 0 if a service may listen there, else says why not
probe.py ready DATA PID SECONDS    ends 0 once that folder's box, of that process, is ready; else says what it saw
probe.py setting NAME DATA         prints one setting of the folder's zsky.toml, nothing where it is absent
probe.py field NAME <JSON          prints one field of an object, nothing where it is absent
probe.py example <JSON             prints what the default for video of a list of models gives as its first example
"""

from __future__ import annotations

import http
import http.client
import json
import socket
import sys
import time
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
ANSWER_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.1


def why_not_free(port: int) -> str | None:
    """The reason why nothing can listen on this port of the loopback interface, or None."""
    with socket.socket() as listener:
        # A port whose last connections are still winding down is free; one with a listener is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except PermissionError:
            return f"Port {port} needs root's rights: choose one above 1023 with --port."
        except OSError as error:
            return f"Port {port} is taken by another program ({error.strerror}): choose another with --port."
    return None


def readiness(data: Path, pid: int) -> tuple[int, str]:
    """Status and start of the body of one GET /readyz; status 0 where nothing answers. Never goes through a proxy.

    A running box says in control.json where it listens; one of another pid is left from an earlier start.
    """
    try:
        control = json.loads((data / "control.json").read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return 0, "it does not listen yet"
    if control["pid"] != pid:
        return 0, "it does not listen yet"
    address = urlsplit(control["url"])
    connection = http.client.HTTPConnection(address.hostname or LOOPBACK, address.port, timeout=ANSWER_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"no answer: {error}"
    finally:
        connection.close()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits for its parent to notice does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def why_not_ready(data: Path, pid: int, timeout_seconds: float) -> str | None:
    """Waits for the box; None once it is ready, else why the waiting ended: its process did, or the time is up."""
    give_up_at = time.monotonic() + timeout_seconds
    seen = "it was not asked"
    while time.monotonic() < give_up_at:
        if not is_alive(pid):
            return "The box ended while it was starting."
        status, seen = readiness(data, pid)
        if status == http.HTTPStatus.OK:
            return None
        time.sleep(POLL_SECONDS)
    return f"The box was not ready within {timeout_seconds:.0f} seconds (/readyz: {seen})."


def setting(name: str, data: Path) -> str:
    """A setting as the folder's zsky.toml has it; a file that cannot be read is the box's to complain of."""
    try:
        return str(tomllib.loads((data / "zsky.toml").read_text("utf-8")).get(name, ""))
    except (FileNotFoundError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""


def example(models: list[dict[str, Any]]) -> str:
    """A prompt that the model which answers for video is made for; empty where it reads any words."""
    vocabularies = [model.get("vocabulary") for model in models if "video" in model["default_for"]]
    return next((str(known["examples"][0]) for known in vocabularies if known), "")


def main(arguments: list[str]) -> int:
    """Answers one question; 0 is yes, 1 comes with a sentence on standard error."""
    problem: str | None = None
    match arguments:
        case ["port", port]:
            problem = why_not_free(int(port))
        case ["ready", data, pid, seconds]:
            problem = why_not_ready(Path(data), int(pid), float(seconds))
        case ["setting", name, data]:
            print(setting(name, Path(data)))
        case ["field", name]:
            print(json.load(sys.stdin).get(name) or "")
        case ["example"]:
            print(example(json.load(sys.stdin)["data"]))
        case _:
            problem = f"probe.py: unknown question {arguments}"
    if problem is not None:
        print(problem, file=sys.stderr)
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
