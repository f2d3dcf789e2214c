"""The whole service with the acting worker: `python -m tests.doubles.serve DATA PORT [NAME=VALUE ...]`.

Everything is real but the model: prompts `double:NAME` act out a fault, all others make small files at once.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from zsky_box import app, settings

ENTRY = "tests.doubles.worker_acting_out"


def main(folder: str, port: str, *options: str) -> int:
    """Serve until told to stop."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s: %(message)s")
    chosen: dict[str, Any] = dict(option.split("=", 1) for option in options)
    configured = settings.load(Path(folder), port=port, **chosen)
    return app.serve(Path(folder), configured, worker_entry=ENTRY)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
