"""What each code of a refusal means, and each end of a job without a result: when it comes, and what to do then."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from zsky_box.errors import ErrorCode


class Code(Struct, frozen=True):
    """A code, the status that it comes with, and when that is; what a program reads stands in backticks."""

    name: str
    status: str
    text: str


REFUSALS: Final = (
    Code("malformed_json", "400", "The body is no JSON, or the `Host` cannot be read. Send what the call describes."),
    Code("missing_key", "401", "There is no key. Send one as `X-API-Key`, or as `Authorization: Bearer`."),
    Code("invalid_key", "401", "The key is none of this box's: mistyped, cut short, or of another box."),
    Code("revoked_key", "401", "The key was revoked, or has ended. Use its successor, or issue another."),
    Code("session_ended", "401", "To a browser only: it is signed out. Sign in again."),
    Code("wallet_empty", "402", "The wallet does not cover the price. Ask the owner of the box to top it up."),
    Code("plan_without_api", "403", "The plan is free and the wallet empty, so there is no API. Use the browser."),
    Code("insufficient_scope", "403", "The key lacks the scope that the call needs. Issue one that has it."),
    Code("test_key", "403", "A test key changes no money settings and deletes nothing. Use a live one."),
    Code("cross_site", "403", "To a browser only: the request is not from a page of this box."),
    Code("invalid_signature", "403", "The address of a file was changed. Ask for the job again: it names a whole one."),
    Code("expired_signature", "403", "The address of a file has run out. Ask for the job again: it names a fresh one."),
    Code("not_found", "404", "There is no such thing, or it is another account's, which looks the same."),
    Code("method_not_allowed", "405", "The address takes other methods; `Allow` names them."),
    Code("idempotency_conflict", "409", "The `Idempotency-Key` was used with another body. Use a fresh one."),
    Code("job_finished", "409", "The job has ended, so that it can be neither cancelled nor moved."),
    Code("job_open", "409", "The job has not ended. Wait for it or cancel it before you delete it or run it again."),
    Code("too_many_keys", "409", "The account has as many keys as it may. Revoke one first."),
    Code("too_many_accounts", "409", "The box has as many accounts as it may."),
    Code("model_busy", "409", "The model is being installed, verified or used. Try again once that has ended."),
    Code("result_removed", "410", "The result was deleted. The job and its charge stay readable; it can be run again."),
    Code("too_large", "413", "The body or the picture has more bytes than the box takes."),
    Code("unsupported_media", "415", "The body is of another type than the call takes, or the picture is no picture."),
    Code("wrong_host", "421", "To a browser only: the box is not called by this name (setting `allowed_hosts`)."),
    Code("invalid_field", "422", "Fields have values that they may not have: `errors` names all of them, with why."),
    Code("unknown_field", "422", "The body has a field that the call has not; the message names the nearest."),
    Code("unsupported_for_model", "422", "The model cannot do this. The message says what it can."),
    Code("model_not_installed", "422", "The model is not installed on this box. `GET /v1/models` says which are."),
    Code("prompt_blocked", "422", "The prompt asks for what this box does not make. Nothing was charged."),
    Code("allowance_exhausted", "429", "The month's included units are used, and overage is off. Turn it on, or wait."),
    Code("cap_reached", "429", "The price is more than the spend cap leaves this month. Raise the cap, or wait."),
    Code("rate_limited", "429", "Too many requests, or open streams. Wait for as long as `Retry-After` says."),
    Code("queue_full", "429", "Too many jobs are open, or too many uploads wait for a job. Let some end."),
    Code("internal_error", "500", "The box failed. Its log has the reason under `request_id`; try again."),
    Code("no_model", "503", "No real model is installed for this, and the box may not stand one in."),
    Code("draining", "503", "The box is about to stop. Try again in a moment."),
    Code("storage_full", "503", "The disk is nearly full, so no job is taken. Nothing was charged."),
    Code("storage_error", "503", "The outcome is not known: try again with the same `Idempotency-Key`."),
    Code("clock_behind", "503", "The box's clock is behind its own ledger. The owner has to set it right."),
)
ENDS: Final[dict[ErrorCode, str]] = {
    "internal_error": "The box failed at it, as often as it tried. Nothing was charged.",
    "gpu_timeout": "It took longer than a job may, or the card stopped answering. Nothing was charged.",
    "out_of_memory": "The card has too little memory for it. Nothing was charged; ask for less, or another model.",
    "encode_failed": "The result could not be written as a file. Nothing was charged.",
    "storage_full": "The disk was full. Nothing was charged.",
    "safety_blocked": "The result was looked at and is not given out. It is charged: the card has done the work.",
    "cancelled": "It was cancelled. It is charged only where its first step had been made.",
    "deadline_exceeded": "It could not begin, or end, by the time you gave. Nothing was charged.",
}
"""What `error_code` says of a job with the status `failed`."""
