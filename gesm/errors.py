"""What gesm raises for a mistake its user can mend."""

__all__ = ["DivergedError", "GesmError"]


class GesmError(ValueError):
    """Bad input; the message says what was passed, what is allowed and what to do.

    The command line prints the message alone and exits with code 2.
    """


class DivergedError(GesmError):
    """The loss of a training run is not finite."""
