"""The exceptions that the command line turns into one line and an exit code."""


class ActionVitError(Exception):
    """A user's mistake or a bad input; the message is one line with the problem, its place and the remedy."""


class SettingError(ActionVitError):
    """A setting with a wrong value, such as a name that does not exist: wrong usage on the command line."""


def one_line(error: BaseException, max_length: int = 160) -> str:
    """Return the first line of an exception's text, or its type's name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:max_length] if lines else type(error).__name__
