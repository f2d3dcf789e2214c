"""Sentences as pages show them."""

from __future__ import annotations

import pytest

from zsky_box.pages.marked import marked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Nothing special.", "Nothing special."),
        ("", ""),
        ("Run `zsky-box init` first.", "Run <code>zsky-box init</code> first."),
        ("`a` and `b`", "<code>a</code> and <code>b</code>"),
        ("one ` alone", "one ` alone"),
        ("`` and none", "`` and none"),
        ("<b>`<i>`</b>", "&lt;b&gt;<code>&lt;i&gt;</code>&lt;/b&gt;"),
        (
            "since 2026-11-01T00:00:00.5Z.",
            'since <time datetime="2026-11-01T00:00:00.5Z">2026-11-01T00:00:00.5Z</time>.',
        ),
        ("`2026-11-01T00:00:00Z`", "<code>2026-11-01T00:00:00Z</code>"),
    ],
)
def test_it_works(text: str, shown: str) -> None:
    assert str(marked(text)) == shown
