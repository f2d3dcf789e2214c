from __future__ import annotations

import re

from zsky_box import ids


def test_an_id_says_what_it_names_and_is_safe_in_urls_and_file_names() -> None:
    assert re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", ids.new("job"))


def test_ids_do_not_repeat() -> None:
    assert len({ids.new("file") for _ in range(10_000)}) == 10_000
