"""A user's mistake, said in one sentence."""

import re

TRY_AGAIN = 75  # exit status, EX_TEMPFAIL of sysexits.h
LISTED = 10  # names that a sentence lists


class UserError(ValueError):
    """Bad input: the sentence names the flag or file, its value, and what would be right.

    The command line prints it without a traceback and exits with its status, 2.
    """

    status = 2


class TryAgainError(UserError):
    """Another worker has ended, or a disk is full: the status, 75, says that another start may go better."""

    status = TRY_AGAIN


class NotFiniteError(UserError):
    """A run's loss, or a gradient, is infinite or no number, and it may not go on without that batch.

    Attributes:
        step: int, which step, counted from 1.
    """

    def __init__(self, sentence, step):
        super().__init__(sentence)
        self.step = step


def without_operations(message):
    """A message of TensorFlow's, without the names of its operations."""
    return re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", message, flags=re.DOTALL)


def listed(names):
    """Names for a sentence, the first ten of them."""
    names = list(names)
    return ", ".join(map(str, names[:LISTED])) + (", ..." if len(names) > LISTED else "")
