"""A body's bytes become a struct, or a refusal that names every field that is wrong at once."""

from __future__ import annotations

import difflib
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct

from zsky_box.errors import FieldError, InvalidFields, Refusal

ERRORS_MAX: Final = 64
_SHOWN_MAX: Final = 64

NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON."""

_EXACT: Final = msgspec.json.Decoder(float_hook=Decimal)
_WORDS: Final = {
    "str": "text",
    "str | null": "text",
    "int": "a whole number",
    "int | null": "a whole number",
    "float": "a number",
    "float | null": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "object | null": "an object",
    "null": "null",
}

S = TypeVar("S", bound=Struct)


def read_json(body: bytes, *, exact: bool = False) -> Any:
    """Decode JSON; raises 400 `malformed_json` for everything that is none (NaN and unpaired surrogates included).

    `exact`: a number with a fraction or an exponent becomes a Decimal of its own text, where it is money.
    """
    try:
        return _EXACT.decode(body) if exact else msgspec.json.decode(body)
    except (*NOT_JSON, InvalidOperation) as error:
        raise (not_json(error) if body else malformed("The body is empty; send a JSON object.")) from error


def not_json(error: Exception) -> Refusal:
    """400 for a body that the decoder raised this over, in words that say nothing of the decoder."""
    match error:
        case RecursionError():
            reason = "it is nested too deeply"
        case UnicodeDecodeError():
            reason = "its text is not UTF-8"
        case InvalidOperation():
            reason = "a number in it is out of range"
        case _:
            reason = str(error).partition(" - at `")[0].removeprefix("JSON is malformed: ")
            reason = f"{reason[:1].lower()}{reason[1:]}"
    return malformed(f"The body is not JSON: {reason}.")


def malformed(detail: str) -> Refusal:
    """400 for a body that cannot be read."""
    return Refusal(400, "malformed_json", detail)


def read_object(kind: type[S], value: Any) -> S:
    """Convert a decoded body into a struct; raises InvalidFields with all that is wrong, field by field.

    Of unknown fields only the first `ERRORS_MAX` are told: a body full of them must not cost seconds to refuse.
    """
    if not isinstance(value, dict):
        raise InvalidFields([FieldError("", "invalid_field", "The body must be a JSON object.")])
    fields = _fields(kind)
    errors: list[FieldError] = []
    read: dict[str, Any] = {}
    for name, given in value.items():
        if name not in fields:
            if len(errors) < ERRORS_MAX:
                errors.append(_unknown(name, list(fields)))
            continue
        try:
            read[fields[name].name] = msgspec.convert(given, fields[name].type)
        except msgspec.ValidationError as error:
            errors += _wrong(name, fields[name].type, given, str(error))
    errors += [
        FieldError(name, "invalid_field", f"{name} is required.")
        for name, field in fields.items()
        if field.required and name not in value
    ]
    if errors:
        raise InvalidFields(errors)
    return kind(**read)


@cache
def _fields(kind: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """A struct's fields by their names in JSON; kept, because msgspec evaluates the annotations anew at each call."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _unknown(name: str, known: list[str]) -> FieldError:
    shown = _shown(name)
    close = difflib.get_close_matches(shown, known, n=1)
    others = f"known fields are {', '.join(known)}." if known else "this call takes none."
    hint = f"did you mean {close[0]!r}?" if close else others
    return FieldError(shown, "unknown_field", f"There is no field {shown!r}; {hint}")


def _wrong(name: str, kind: Any, given: Any, message: str) -> list[FieldError]:
    """What is wrong with one field; inside an object, every entry is asked, since msgspec tells only of the first."""
    if " - at `" not in message or not isinstance(given, dict):
        return [_told(name, kind, given, message)]
    errors: list[FieldError] = []
    for key, value in given.items():
        try:
            msgspec.convert({key: value}, kind)
        except msgspec.ValidationError as error:
            errors.append(_told(f"{name}.{_shown(key)}", kind, value, str(error)))
        if len(errors) == ERRORS_MAX:
            break
    return errors


def _told(path: str, kind: Any, given: Any, message: str) -> FieldError:
    """msgspec's message in plain words."""
    text = message.partition(" - at `")[0]
    if "key` in `$" in message:
        text = f"its name: {text[0].lower()}{text[1:]}"
    if text.startswith("Invalid enum value"):
        allowed = _literals(kind)
        text = f"{_shown(str(given))!r} is not one of {', '.join(allowed)}"
    for code, word in _WORDS.items():
        text = text.replace(f"`{code}`", word)
    text = text.replace(" | null", "").replace("`", "")
    return FieldError(path, "invalid_field", f"{path}: {text[0].lower()}{text[1:]}.")


def _shown(text: str) -> str:
    """A client's own text as a message repeats it."""
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


def _literals(kind: Any) -> list[str]:
    """The words that a type names: as a literal, among alternatives, beneath what is annotated."""
    if get_origin(kind) is Literal:
        return [value for value in get_args(kind) if isinstance(value, str)]
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return [value for part in inner for value in _literals(part)]
