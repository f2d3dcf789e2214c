"""The owner's commands over loopback: one route, behind this start's token."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post

from zsky_box import control
from zsky_box.api.access import control_only
from zsky_box.api.bodies import read_bytes
from zsky_box.api.deps import services
from zsky_box.errors import Refusal


@post("/control", status_code=200, guards=[control_only], include_in_schema=False, opt={"scope": "billing"})
async def run_command(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Carry out one command of the terminal."""
    box = services(request)
    try:
        command = control.decode(await read_bytes(request))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(422, "invalid_field", f"Not a command: {error}.") from error
    devices = tuple(dict.fromkeys(slot.device for slot in box.scheduler.slots() if not slot.test))
    means = control.Means(box.store, box.secrets, box.terms, box.clock, devices, box.scheduler.wake)
    return await box.store.read(lambda: control.run(command, means))
