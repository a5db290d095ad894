"""The steps of a run by hand."""

import dataclasses

import pytest

from inception_tf.errors import UserError
from inception_tf.recipes import RECIPES
from inception_tf.steps import Steps


def _steps(images, last=None, **keywords):
    recipe = dataclasses.replace(RECIPES["fine-tune"], **{"batch": 32, "epochs": 10, **keywords})
    return Steps.of(recipe, images, last)


@pytest.mark.parametrize(
    ("images", "last", "head_epochs", "head", "all_steps"),
    [
        (320, None, 1, 10, 110),
        (320, None, 0, 0, 100),
        (10, None, 1, 1, 4),  # a third of a step an epoch
        (10, None, 0, 0, 3),
        (320, 25, 1, 10, 25),
        (320, 10, 1, 10, 10),
        (320, 4, 1, 4, 4),
        (1, 2, 1, 1, 2),
    ],
)
def test_the_head_stage_has_a_step_at_least_and_no_more_than_there_are(
    images, last, head_epochs, head, all_steps
):
    steps = _steps(images, last, head_epochs=head_epochs)
    assert (steps.head, steps.last) == (head, all_steps)


def test_not_one_step_of_the_whole_network_is_refused():
    with pytest.raises(UserError, match="--batch 32 is too large for 2 epochs of 5 images"):
        _steps(5, epochs=2, head_epochs=10)


def test_stops_are_the_ends_of_epochs_and_stages_and_multiples():
    steps = Steps(an_epoch=2.5, head=3, last=8)
    assert [step for step in range(1, 9) if steps.pauses(step, 6, None)] == [2, 3, 5, 6, 8]
    assert [step for step in range(1, 9) if steps.end_epoch(step)] == [2, 5, 8]
