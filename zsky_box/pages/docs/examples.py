"""An example for each operation, as a line for the terminal. Where it needs an id, a word in capitals stands for it.

`BASE` and `KEY` stand for the box's address and a key: the page puts them in.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any, Final

from zsky_box.pages.docs import wording

BASE: Final = "\ufdd0"
KEY: Final = "\ufdd1"
"""Two characters that are no text: nothing else in an example can be mistaken for them."""
_SAMPLES: Final[dict[str, Any]] = {
    "generate": {"type": "image", "prompt": "an espresso bar at golden hour"},
    "quote": {"type": "video", "prompt": "a neon night market in the rain", "duration": 5},
    "toggleOverage": {"enabled": True},
    "setCap": {"cap_usd": "25.00"},
}
_QUERIES: Final = {"listJobs": "?status=completed&limit=5", "listLedger": "?limit=5"}
_FILES: Final = {"getFile": "curl -o result.mp4 'RESULT_URL'", "headFile": "curl -I 'RESULT_URL'"}
"""Of a file, the whole address is given out, with its signature."""
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


def curl(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    """The call of an operation."""
    name = operation["operationId"]
    if name in _FILES:
        return _FILES[name]
    address = BASE + _PARAMETER.sub(lambda found: found[1].upper(), path) + _QUERIES.get(name, "")
    parts = [f"curl {address}" if "?" not in address else f"curl '{address}'"]
    if name.startswith("stream"):
        parts[0] = parts[0].replace("curl", "curl -N", 1)
    content: dict[str, Any] = operation.get("requestBody", {}).get("content", {})
    if method not in ("get", "post") or (method == "post" and not content):
        parts[0] = parts[0].replace("curl", f"curl -X {method.upper()}", 1)
    if operation.get("security") != []:
        parts.append(f"-H 'X-API-Key: {KEY}'")
    if "multipart/form-data" in content:
        parts.append("-F file=@picture.png")
    elif "application/json" in content:
        schema = wording.resolved(content["application/json"]["schema"], schemas)
        body = _SAMPLES.get(name) or _sample(schema, schemas)
        parts += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(body))}"]
    return " \\\n  ".join(parts)


def _sample(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A body with the fields that it must have."""
    required: list[str] = schema.get("required", [])
    return {name: _value(wording.resolved(schema["properties"][name], schemas), schemas) for name in required}


def _value(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    by_type: dict[str, Any] = {"string": "text", "integer": 1, "number": 1, "boolean": True, "array": []}
    if schema.get("type") == "object":
        return _sample(schema, schemas)
    return by_type.get(schema.get("type", ""))
