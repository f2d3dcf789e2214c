"""install.sh's options and the Pythons it finds: what is wrong is named, and nothing is done."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.install.checkout import ABSENT, REAL_PYTHON, ROOT, Checkout, write_program


def test_help_tells_every_option() -> None:
    text = (ROOT / "install.sh").read_text()
    known = set(re.findall(r"--[a-z-]+", text[text.index("parse_options()") : text.index("same_box()")]))
    shown = subprocess.run([ROOT / "install.sh", "--help"], capture_output=True, text=True, check=True).stdout
    assert {"--port", "--service", "--uninstall", "--torch-index"} <= known
    assert known <= set(re.findall(r"--[a-z-]+", shown))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--prot", "1"], "--prot"),
        (["extra"], "extra"),
        (["--port"], "--port needs a value"),
        (["--port="], "--port needs a value"),
        (["--port", "http"], "'http'"),
        (["--port", "0"], "from 1 to 65535"),
        (["--port", "65536"], "from 1 to 65535"),
        (["--data", ""], "--data needs a value"),
        (["--data", "a\nb"], "line break"),
        (["--torch-index"], "--torch-index needs a value"),
        (["--purge"], "--purge belongs to --uninstall"),
        (["--stop", "--uninstall"], "exclude each other"),
    ],
)
def test_a_bad_option_is_named_and_nothing_is_done(checkout: Checkout, options: list[str], told: str) -> None:
    assert told in checkout.run(*options, status=2)
    assert not (checkout.root / ".venv").exists()


def test_a_python_without_venv_names_the_package_to_install(checkout: Checkout) -> None:
    no_venv = f'#!/bin/bash\n[[ "$*" == *ensurepip* ]] && exit 1\nexec {REAL_PYTHON} "$@"\n'
    write_program(checkout.doubles / "python3.11", no_venv)
    version = "{}.{}".format(*sys.version_info[:2])
    assert f"apt install python{version}-venv" in checkout.install(status=1)


def test_a_python_that_does_not_start_is_passed_over(checkout: Checkout) -> None:
    (checkout.doubles / "python3.11").rename(checkout.doubles / "python3.13")
    write_program(checkout.doubles / "python3.11", "#!/bin/bash\necho 'this version is not installed' >&2\nexit 127\n")
    checkout.install("--no-start")
    assert (checkout.data / "ledger.db").exists()


def test_no_python_is_told(checkout: Checkout) -> None:
    write_program(checkout.doubles / "python3.11", ABSENT)
    assert "Python 3.11, 3.12 or 3.13 is needed" in checkout.install(status=1)
