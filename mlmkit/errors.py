"""The one exception that means: the reader can put this right."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave: one line that says what was wrong, what was found and what to do.

    The command line prints it without a traceback and exits with status 2.

    >>> raise UserError("a.txt is empty: give a file with at least three documents")
    Traceback (most recent call last):
    mlmkit.errors.UserError: a.txt is empty: give a file with at least three documents
    """
