"""zsky-box: one prompt, one job, one URL, on the card in the room."""

__version__ = "0.1.0"
