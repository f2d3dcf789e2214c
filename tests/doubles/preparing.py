"""A child that prepares weights without the libraries: it copies them, or does what the recipe's name says.

`dies`, `refuses`, `hangs` (until its lifeline ends), `makes-nothing`, `makes-a-pickle`; any other name prepares well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from zsky_box.worker_process import hold_lifeline


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    source, target = Path(order["source"]), Path(order["target"])
    print("a library says hello")
    parts = sorted(path.parent for path in source.rglob("*.safetensors"))
    shutil.copytree(source, target)
    for part in parts:
        print(json.dumps({"component": part.name, "done": 1, "of": 2}), flush=True)
        print(json.dumps({"component": part.name, "done": 2, "of": 2}), flush=True)
    (target / "order.json").write_text(json.dumps({"device": order["device"], "recipe": order["recipe"]}))
    match order["recipe"]:
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "refuses":
            print(json.dumps({"error": "The text encoder cannot be quantised."}))
            sys.exit(1)
        case "hangs":
            hold_lifeline(sys.stdin.fileno())
            print(json.dumps({"component": f"process {os.getpid()}", "done": 0, "of": 1}), flush=True)
            signal.pause()
        case "makes-nothing":
            shutil.rmtree(target)
        case "makes-a-pickle":
            (target / "transformer" / "weights.bin").write_bytes(b"\x80\x04.")
        case _:
            return


if __name__ == "__main__":
    main()
