"""Errors that the user can mend. The command line shows these in one line, and everything else with its traceback."""


class DeflareError(ValueError):
    """Input, a setting or a file that cannot be used: the message says what was wrong, what was received and where.

    It also says what to do. A wrong call of a function is no such error: it is a `ValueError` or `TypeError`.
    """
