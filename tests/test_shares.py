from __future__ import annotations

from zsky_box.shares import Shares


def test_who_has_had_least_is_behind() -> None:
    shares = Shares()
    shares.meet({"ann", "bob"})
    shares.serve("ann", 30)
    assert shares.tag("bob") < shares.tag("ann")


def test_time_without_wishes_is_not_saved_up() -> None:
    shares = Shares()
    shares.meet({"ann", "bob"})
    for _ in range(10):
        shares.serve("ann", 30)
    shares.meet({"ann"})
    for _ in range(10):
        shares.serve("ann", 30)
    shares.meet({"ann", "bob"})
    assert shares.tag("bob") == shares.now == 570


def test_what_was_charged_too_much_is_given_back() -> None:
    shares = Shares()
    shares.meet({"ann"})
    shares.serve("ann", 30)
    shares.correct("ann", -20)
    assert shares.tag("ann") == 10
