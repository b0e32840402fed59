"""The one exception gesm raises for a mistake its user can mend."""

__all__ = ["GesmError"]


class GesmError(ValueError):
    """Bad input; the message says what was passed, what is allowed and what to do.

    The command line prints the message alone and exits with code 2.
    """
