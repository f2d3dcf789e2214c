"""What a run has to tell: the warnings of its own rooms, the newest first, so many of them."""

from __future__ import annotations

import logging

from zsky_box import record
from zsky_box.record import Record


def test_warnings_of_the_boxs_rooms_are_kept() -> None:
    of_run = Record(0)
    of_run.listen()
    try:
        logging.getLogger("zsky_box.db").warning("%d writes\nwere undone", 3)
        logging.getLogger("zsky_box.db").info("nothing much")
        logging.getLogger("elsewhere").error("not ours")
        logging.getLogger("zsky_box.app").error("worse " * 500)
        worse, undone = of_run.warned()
        assert (undone.level, undone.room, undone.text) == ("warning", "db", "3 writes were undone")
        assert (worse.level, len(worse.text)) == ("error", record.TEXT_MAX)
        for _ in range(record.KEPT_MAX):
            logging.getLogger("zsky_box.db").warning("again")
        assert {line.text for line in of_run.warned()} == {"again"}
    finally:
        of_run.close()
    logging.getLogger("zsky_box.db").warning("after the end")
    assert "after the end" not in {line.text for line in of_run.warned()}
