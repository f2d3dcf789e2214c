"""TLS with the owner's certificate: checked before the service starts, and trusted by the commands as it stands."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from zsky_box.errors import SettingsError
from zsky_box.settings import Settings

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python's ssl does not name


def files(settings: Settings) -> tuple[Path, Path] | None:
    """The certificate's and the key's file, or None without TLS; raises SettingsError unless they can be served with.

    The certificate's file may go on with those that lead to its authority.
    """
    if not settings.tls_cert:
        return None
    cert, key = Path(settings.tls_cert).expanduser(), Path(settings.tls_key).expanduser()
    for name, path in (("tls_cert", cert), ("tls_key", key)):
        if not path.is_file():
            raise SettingsError(f"{name} = {str(path)!r}: there is no such file")
    try:
        # An encrypted key would have the service wait for somebody to type its password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"tls_cert = {str(cert)!r}, tls_key = {str(key)!r}: not a certificate and its key in PEM, the key not"
            f" encrypted ({error})"
        ) from error
    return cert, key


def certificate(settings: Settings) -> str:
    """The certificate that is served, in PEM, without those that follow it in its file; empty without TLS."""
    found = files(settings)
    first = None if found is None else _CERTIFICATE.search(found[0].read_text("utf-8", "replace"))
    return "" if first is None else first[0]


def trusting(certificate: str) -> ssl.SSLContext:
    """For a client on this machine: exactly this certificate is trusted, whatever name and dates stand in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context
