"""The one exception that the command line turns into one line and exit code 1."""


class ActionVitError(Exception):
    """A user's mistake or a bad input: the message is one line that says what, where and the remedy."""
