from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.cli.conftest import Run
from tests.people import PASSWORD, add_people
from tests.running import RunningBox, make_owner
from zsky_box import control, tls
from zsky_box.errors import SettingsError
from zsky_box.settings import Settings

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="no openssl to make a certificate with")


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate of this name and its key."""
    assert OPENSSL is not None
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    ask = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
    subprocess.run([OPENSSL, *ask, "-keyout", key, "-out", cert, "-days", "30"], check=True, capture_output=True)
    return cert, key


def expire(cert: Path, key: Path) -> None:
    """Have the certificate end yesterday."""
    assert OPENSSL is not None
    subprocess.run(
        [OPENSSL, "x509", "-in", cert, "-signkey", key, "-days", "-1", "-out", cert], check=True, capture_output=True
    )


def settings_of(cert: Path, key: Path) -> Settings:
    return Settings(tls_cert=str(cert), tls_key=str(key))


def test_without_a_certificate_there_is_none() -> None:
    assert tls.files(Settings()) is None
    assert tls.certificate(Settings()) == ""


def test_the_first_certificate_of_the_file_is_the_one_that_is_shown(tmp_path: Path) -> None:
    (cert, key), (other, _) = certify(tmp_path, "box"), certify(tmp_path, "authority")
    own = cert.read_text()
    cert.write_text("Subject: box\n" + own + other.read_text())
    assert tls.files(settings_of(cert, key)) == (cert, key)
    assert ssl.PEM_cert_to_DER_cert(tls.certificate(settings_of(cert, key))) == ssl.PEM_cert_to_DER_cert(own)


def test_what_cannot_be_served_with_stops_the_start(tmp_path: Path) -> None:
    (cert, key), (other, _) = certify(tmp_path, "box"), certify(tmp_path, "other")
    locked = tmp_path / "locked.key"
    assert OPENSSL is not None
    subprocess.run(
        [OPENSSL, "ec", "-aes256", "-passout", "pass:secret", "-in", key, "-out", locked],
        check=True,
        capture_output=True,
    )
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("not a certificate")
    for pair, sentence in {
        (tmp_path / "absent.crt", key): "tls_cert = .*no such file",
        (cert, tmp_path / "absent.key"): "tls_key = .*no such file",
        (tmp_path, key): "no such file",
        (nothing, key): "not a certificate",
        (cert, nothing): "not a certificate",
        (other, key): "not a certificate",
        (cert, locked): "not encrypted",
    }.items():
        with pytest.raises(SettingsError, match=sentence):
            tls.files(settings_of(*pair))


def test_serve_says_what_is_wrong_before_anything_starts(run: Run, tmp_path: Path) -> None:
    make_owner(tmp_path / "data")
    (tmp_path / "data" / "zsky.toml").write_text('tls_cert = "absent.crt"\ntls_key = "absent.key"\n')
    told = run("serve", "--port", "1", data=tmp_path / "data")
    assert "tls_cert = 'absent.crt': there is no such file" in told.sentence


class Secured(RunningBox):
    """A box that answers over HTTPS, with a certificate for a name by which nobody calls it."""

    def __init__(self, folder: Path, cert: Path, key: Path) -> None:
        super().__init__(folder, tls_cert=cert, tls_key=key)
        self.url = f"https://127.0.0.1:{self.port}"
        self.trust = tls.trusting(cert.read_text())


def test_the_commands_trust_exactly_the_certificate_of_the_box(run: Run, tmp_path: Path) -> None:
    cert, key = certify(tmp_path, "elsewhere.example")
    expire(cert, key)
    data = tmp_path / "data"
    box = Secured(data, cert, key)
    box.start(ready=False)
    try:
        note = box.folder / control.FILE_NAME
        address = msgspec.json.decode(note.read_bytes(), type=control.Address)
        assert address.url == box.url
        assert run("keys", "list", data=data).status == 0
        assert run("jobs", data=data).status == 0
        assert f"answers on {box.url}" in run("doctor", data=data).out
        assert run("accounts", "invite", "owner", data=data).out.splitlines()[1].startswith(box.url)

        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{box.url}/healthz", trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{box.port}/healthz", trust_env=False)

        strange, _ = certify(tmp_path, "stranger")
        note.write_bytes(msgspec.json.encode(msgspec.structs.replace(address, certificate=strange.read_text())))
        assert "not running" in run("jobs", data=data).err
    finally:
        assert box.stop() == 0


def test_a_person_signs_in_over_https_alone(tmp_path: Path) -> None:
    """By the machine's name as over a network: the cookie is Secure, and a page of plain HTTP is another origin."""
    cert, key = certify(tmp_path, socket.gethostname())
    box = Secured(tmp_path / "data", cert, key)
    add_people(box.folder)
    box.start(ready=False)
    try:
        host = f"{socket.gethostname()}:{box.port}"
        fields = {"name": "owner", "password": PASSWORD}
        with httpx.Client(base_url=box.url, verify=box.trust, trust_env=False, headers={"Host": host}) as browser:
            for origin in (f"http://{host}", f"https://{host}.evil.test", "null"):
                assert browser.post("/sign-in", data=fields, headers={"Origin": origin}).status_code == 403
            answer = browser.post("/sign-in", data=fields, headers={"Origin": f"https://{host}"})
            assert answer.status_code == 303
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-zsky=")
            assert "secure" in cookie.lower()
            page = browser.get("/settings", headers={"Cookie": cookie.partition(";")[0]})
            assert page.status_code == 200
            assert "not encrypted" not in page.text
    finally:
        assert box.stop() == 0
