"""A user's mistake, said in one sentence."""


class UserError(ValueError):
    """Bad input: the sentence names the flag or file, its value, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """
