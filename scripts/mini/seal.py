"""Write the record of mini's weights: `python -m scripts.mini.seal models/mini`, whenever its files have changed.

`zsky-box models verify mini` compares them with it, and receipts name its hash.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Final

from zsky_box.catalog import RECORD_NAME, Installed
from zsky_box.install.listing import same_weights
from zsky_box.install.stock import FILES_NAME, FileRecord, Inventory, take_stock, write_inventory

READ: Final = (".json", ".safetensors")
"""What the model is made of; cards and pictures lie beside it."""


def seal(folder: Path) -> str:
    """Record every file below `folder`; returns the hash over those that the model is made of."""
    own = {RECORD_NAME, FILES_NAME}
    files = [file for file in take_stock(folder, "") if file.path not in own]
    digest = weights_sha256(files)
    record = Installed(weights_sha256=digest, licence="Apache-2.0", source="scripts.mini.train")
    write_inventory(folder, Inventory(record, files))
    return digest


def weights_sha256(files: list[FileRecord]) -> str:
    """One hash of all that the model is made of, the same wherever the folder lies."""
    parts = [(file.path, file.sha256) for file in files if file.path.endswith(READ)]
    return hashlib.sha256(same_weights(parts)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the files of mini's weights.")
    parser.add_argument("folder", type=Path)
    print(seal(parser.parse_args().folder))


if __name__ == "__main__":
    main()
