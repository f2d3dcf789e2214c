"""The composition root: the one place that knows all rooms. Nobody imports it but the commands.

`rooms` makes them in the order in which they need each other, `box` starts and closes them, `web` is the application
over them, and `serving` carries it.
"""

from zsky_box.app.box import Box
from zsky_box.app.serving import serve
from zsky_box.app.web import create_app

__all__ = ["Box", "create_app", "serve"]
