"""The statement of an account and a month: what is owed, line by line, each line naming its job.

A statement is made of transfers, which are only ever appended: those up to one number are the same for every reader,
however long the reading takes. Once its month is over and nothing of it is pending, it is closed and never changes.
"""

from zsky_box.statements.closing import MONTHS_PER_CALL, close_due, is_due, reopen_after
from zsky_box.statements.reading import Statement, credit_pages, line_pages, lines_after, months, statement
from zsky_box.statements.rendering import csv_pieces, json_pieces
from zsky_box.statements.views import StatementList, StatementView

__all__ = [
    "MONTHS_PER_CALL",
    "Statement",
    "StatementList",
    "StatementView",
    "close_due",
    "credit_pages",
    "csv_pieces",
    "is_due",
    "json_pieces",
    "line_pages",
    "lines_after",
    "months",
    "reopen_after",
    "statement",
]
