"""Taking a model's files away."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from zsky_box.catalog import Catalog
from zsky_box.errors import InstallError
from zsky_box.install.staging import locked
from zsky_box.manifest import NAME_PATTERN


def remove(catalog: Catalog, name: str, output_check: str, open_jobs: Callable[[], int]) -> None:
    """Remove a model, and what is unfinished of it. Raises InstallError where it is not here, or is needed.

    `open_jobs` counts those that want it; it is asked under the model's lock.
    """
    weights = catalog.weights
    if (spec := catalog.specs.get(name)) is not None and spec.bundled:
        raise InstallError(f"{name} is part of the box and stays.")
    is_name = re.fullmatch(NAME_PATTERN, name) is not None
    if not is_name or not any(os.path.lexists(weights / each) for each in (name, f".{name}.installing")):
        raise InstallError(f"{name} is not installed; `zsky-box models list` shows what is.")
    if name == output_check:
        raise InstallError(f"{name} is the output check, and without it no job runs: empty output_check first.")
    with locked(weights, name) as staging:
        if jobs := open_jobs():
            raise InstallError(f"{jobs} open jobs want {name}; let them end, or cancel them, and remove it then.")
        staging.remove()
