"""What all dataclasses of flags have in common: how a flag is written, and what its values may be."""

import typing
from typing import Literal

from inception_tf.errors import UserError


def check_choices(config):
    """Raises `UserError` for a string that is none of the values of its field's Literal."""
    for field, hint in typing.get_type_hints(type(config)).items():
        value, choices = getattr(config, field), _choices(hint)
        if isinstance(value, str) and choices and value not in choices:
            raise UserError(f"{flag(field)} {value} is unknown: choose from {', '.join(choices)}.")


def check_least(config, **least):
    """Raises `UserError` for a field that is less than its number; None is not looked at."""
    for field, number in least.items():
        value = getattr(config, field)
        if value is not None and value < number:
            raise UserError(f"{flag(field)} {value} is too small: give {number} or more.")


def _choices(hint):
    """The values of the Literals in a type hint."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return tuple(choice for part in typing.get_args(hint) for choice in _choices(part))


def flag(field):
    """A field's name as the command line writes it."""
    return "--" + field.replace("_", "-")
