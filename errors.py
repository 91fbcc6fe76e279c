"""The one exception that the command line turns into one line and exit code 1."""


class ActionVitError(Exception):
    """A user's mistake or a bad input; the message is one line with the problem, its place and the remedy."""


def one_line(error: BaseException, max_length: int = 160) -> str:
    """Return the first line of an exception's text, or its type's name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:max_length] if lines else type(error).__name__
