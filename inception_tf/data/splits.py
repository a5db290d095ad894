"""How much is held out; and split.json, the record of what a run held out, when it is looked into again."""

import contextlib

from inception_tf.errors import UserError


def held_out_count(total, share):
    """How many of `total` are held out for a share: at least one of two or more, and never all."""
    return min(max(1, round(share * total)), total - 1) if total > 1 else 0


def ways_out(training, back):
    """What is left to do, for messages, where data are no longer what was recorded.

    Args:
        training: whether the run is to go on, or what it held out is to be evaluated.
        back: how a run can go on with the data that it knows.
    """
    return f"{back}, or {'start again in another --run-dir' if training else 'evaluate on other --data'}"


@contextlib.contextmanager
def damage_named(training):
    """Raises `UserError` where a record does not have what is looked up in it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        if training:
            where, way = "in --run-dir", "start again in another"
        else:
            where, way = "of the run", ways_out(training, "bring it back")
        raise UserError(f"split.json {where} is damaged ({error!r}): {way}.") from error
