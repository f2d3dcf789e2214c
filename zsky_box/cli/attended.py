"""A command of `zsky-box` as a child of the service, which ends with it: `python -m zsky_box.cli.attended FD COMMAND…`.

FD is the reading end of a pipe in which nothing is ever written. When the service is gone, however that came, the
kernel ends this process and its group.
"""

from __future__ import annotations

import sys

from zsky_box.cli.main import main
from zsky_box.worker_process import hold_lifeline

if __name__ == "__main__":
    hold_lifeline(int(sys.argv.pop(1)))
    main()
