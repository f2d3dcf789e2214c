"""A copy of the checkout to install from, with doubles for Python, pip, zsky-box and systemctl on its PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.running import free_port

ROOT = Path(__file__).parents[2]
COPIED = [
    "install.sh",
    "pyproject.toml",
    "requirements.lock",
    "scripts/box.sh",
    "scripts/environment.sh",
    "scripts/probe.py",
    "scripts/zsky-box.service",
]
RUN_TIMEOUT_SECONDS = 180
KEY = "zs_live_double"

# What `python3.12` and the others are here unless a test says otherwise: the machine's own must never be found.
ABSENT = "#!/bin/bash\nexit 127\n"
PYTHONS = ["python3.11", "python3.12", "python3.13", "python3"]
REAL_PYTHON = shlex.quote(sys.executable)

# Makes environments of itself, notes what pip is asked for, and is a real Python for everything else.
PYTHON_DOUBLE = f"""#!/bin/bash
case "$*" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip "*)
    printf '%s\\n' "${{*:3}}" >>"$DOUBLES/pip.log"
    if [ -n "$PIP_FAILS_ON" ] && [[ "$*" == *"$PIP_FAILS_ON"* ]]; then exit 1; fi
    if [[ "$*" == *--editable* ]]; then cp "$DOUBLES/zsky-box" "$(dirname "$0")/zsky-box"; fi ;;
*) exec {REAL_PYTHON} "$@" ;;
esac
"""

# The command line that the installer relies on: an owner is made once, /readyz answers, a clip is written.
# Its first two lines are shell that hands over to Python, which reads them as a string: `#!` takes no path with spaces.
BOX_DOUBLE = f"""#!/bin/sh
'''exec' {REAL_PYTHON} "$0" "$@" #'''
import http.server, json, os, pathlib, sys
data = pathlib.Path(os.environ["ZSKY_DATA"])
arguments = sys.argv[1:]
with (data / "calls.log").open("a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments[0] == "init":
    if (data / "ledger.db").exists():
        sys.exit("This box is already initialised.")
    (data / "ledger.db").touch()
    url = "http://127.0.0.1:" + os.environ["ZSKY_PORT"]
    print(json.dumps({{"account": "owner", "api_key": "{KEY}", "setup_url": url + "/setup"}}))
elif arguments[0] == "generate":
    if os.environ.get("GENERATE_FAILS"):
        sys.exit("The double makes no clip.")
    pathlib.Path(arguments[arguments.index("--out") + 1]).write_bytes(b"a clip")
elif arguments[0] == "models":
    known = {{"examples": [os.environ["EXAMPLE"]]}} if "EXAMPLE" in os.environ else None
    print(json.dumps({{"data": [{{"default_for": []}}, {{"default_for": ["video"], "vocabulary": known}}]}}))
elif arguments[0] == "serve":
    if os.environ.get("SERVE_FAILS"):
        sys.exit("The double cannot open its ledger.")
    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503 if os.environ.get("NEVER_READY") else 200)
            self.end_headers()
    port = int(arguments[arguments.index("--port") + 1])
    server = http.server.HTTPServer(("127.0.0.1", port), Ready)
    told = {{"url": f"http://127.0.0.1:{{port}}", "token": "double", "pid": os.getpid()}}
    (data / "control.json").write_text(json.dumps(told))
    server.serve_forever()
"""

# Runs the one unit's ExecStart as systemd would, as far as a start, a stop and their questions go.
SYSTEMCTL_DOUBLE = """#!/bin/bash
unit="$BOX_UNIT_FOLDER/zsky-box.service" pid=$(cat "$DOUBLES/service.pid" 2>/dev/null)
printf '%s\\n' "$*" >>"$DOUBLES/systemctl.log"
alive() { [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; }
end() { if alive; then kill "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done; fi; }
case $1 in
restart)
    end
    eval "export $(sed -n 's/^Environment=\\("ZSKY_DATA.*\\)/\\1/p' "$unit")"
    eval "setsid $(sed -n 's/^ExecStart=//p' "$unit") >/dev/null 2>&1 9<&- & echo \\$! >\\"\\$DOUBLES/service.pid\\"" ;;
stop | disable) end ;;
is-active) alive ;;
show) printf '%s\\n' "$pid" ;;
esac
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def lives(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Checkout:
    """A copied checkout in a folder whose name needs quoting, and the doubles on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a check-out, $5 & 100%"
        self.data = self.root / "data"
        self.doubles = folder / "doubles"
        self.port = free_port()
        for name in COPIED:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        for name in ["zsky_box/__init__.py", "data/README.md"]:
            (self.root / name).parent.mkdir(exist_ok=True)
            (self.root / name).touch()
        self.doubles.mkdir()
        for name in PYTHONS:
            write_program(self.doubles / name, ABSENT)
        write_program(self.doubles / "python3.11", PYTHON_DOUBLE)
        write_program(self.doubles / "zsky-box", BOX_DOUBLE)
        self.environment = {
            "PATH": f"{self.doubles}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "DOUBLES": str(self.doubles),
            "BOX_UNIT_FOLDER": str(folder / "units"),
            "BOX_SYSTEMD_RUNTIME": str(folder / "no systemd here"),
        }

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "install.sh", *options],
            cwd="/",
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, status: int = 0, **environment: str) -> str:
        """What install.sh printed, asserting how it ended."""
        process = self.start(*options, **environment)
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == status, output
        return output

    def install(self, *options: str, status: int = 0, **environment: str) -> str:
        return self.run("--port", str(self.port), *options, status=status, **environment)

    def lines(self, log: Path) -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    @property
    def pip_calls(self) -> list[str]:
        return self.lines(self.doubles / "pip.log")

    @property
    def pid(self) -> int:
        return int((self.data / "zsky-box.run").read_text().split()[0].removeprefix("pid="))

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=60) as answer:
                return answer.status == 200
        except urllib.error.URLError:
            return False

    def move_to(self, name: str) -> None:
        self.root = self.root.rename(self.root.with_name(name))
        self.data = self.root / "data"
