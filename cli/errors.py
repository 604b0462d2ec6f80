"""What the command line tells instead of a stack trace."""

from __future__ import annotations


class UsageFault(Exception):
    """The command cannot do what was asked: the message says why and how to mend it."""
