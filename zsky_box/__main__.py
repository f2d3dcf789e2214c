"""`python -m zsky_box` is `zsky-box`."""

from zsky_box.cli import main

main()
