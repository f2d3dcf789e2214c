"""`/settings`: a person's own keys, overage, password and sessions. Other people's are the owner's affair: `/admin`."""

from typing import Final

from litestar.types import ControllerRouterHandler

from zsky_box.pages.settings import api_keys, money, profile, view

HANDLERS: Final[tuple[ControllerRouterHandler, ...]] = (
    view.settings,
    view.after_a_refusal,
    api_keys.issue,
    api_keys.rotate,
    api_keys.revoke,
    api_keys.set_cap,
    money.toggle,
    money.set_cap,
    profile.change_password,
    profile.end_session,
    profile.end_others,
)
