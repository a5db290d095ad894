"""A user's mistake, said in one sentence."""

LISTED = 10  # names that a sentence lists


class UserError(ValueError):
    """Bad input: the sentence names the flag or file, its value, and what would be right.

    The command line prints it without a traceback and exits with status 2.
    """


def listed(names):
    """Names for a sentence, the first ten of them."""
    names = list(names)
    return ", ".join(map(str, names[:LISTED])) + (", ..." if len(names) > LISTED else "")
