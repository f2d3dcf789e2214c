"""`zsky-box`: the owner's hand."""

from zsky_box.cli.main import main

__all__ = ["main"]
