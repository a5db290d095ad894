"""How many steps a run takes, in which stage, and where it pauses."""

import dataclasses
import itertools
import math

from inception_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a run.

    Attributes:
        an_epoch: steps, possibly broken, that show every image once.
        head: those of the head's stage, the first ones.
        last: all of them.
    """

    an_epoch: float
    head: int
    last: int

    @classmethod
    def of(cls, recipe, images, last=None):
        """Those of a recipe on so many `images`; with `last`, so many in place of its epochs.

        Raises:
            UserError: there is not one step for the whole network.
        """
        an_epoch = images / recipe.batch
        head = max(1, round(recipe.head_epochs * an_epoch)) if recipe.head_epochs else 0
        whole = round(recipe.epochs * an_epoch)
        if not (last or whole):
            raise UserError(
                f"--batch {recipe.batch} is too large for {recipe.epochs} epochs of {images} images, not one "
                "step: give a smaller one, or more --epochs."
            )
        last = last or head + whole
        return cls(an_epoch, min(head, last), last)

    def pauses(self, step, *every):
        """Whether an epoch, a stage or the run ends at `step`, or `step` is a multiple of an `every`."""
        is_multiple = any(number and step % number == 0 for number in every)
        return is_multiple or self.end_epoch(step) or step in (self.head, self.last)

    def end_epoch(self, step):
        """Whether an epoch ends at `step`."""
        return step == self._epoch_end_after(step - 1)

    def _epoch_end_after(self, step):
        """Batches may cross the end of an epoch, so it is rounded."""
        epoch = math.floor(step / self.an_epoch)
        return next(end for n in itertools.count(epoch) if (end := round(n * self.an_epoch)) > step)
