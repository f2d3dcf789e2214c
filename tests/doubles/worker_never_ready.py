"""A worker child that starts and never says a word."""

import signal

signal.pause()
