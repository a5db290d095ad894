"""Training recipes as data: the paper's as written, the embedded job's own, and one for fine-tuning."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        batch: global batch size, in images.
        epochs: passes over the training images.
        learning_rate: the first learning rate.
        learning_rate_decay: factor on the learning rate ...
        decay_epochs: ... every so many epochs, in steps.
        head_epochs: passes before those, at least one step of them, in which the last layer alone is trained.
        head_learning_rate: the learning rate of these passes; None: the first one of the whole network.
        rms_decay: decay of RMSProp's mean of squared gradients.
        momentum: RMSProp's momentum.
        epsilon: added to the mean square, inside the root.
        initial_accumulator: where the mean square starts: 1.0 in TensorFlow 1, 0.0 in Keras.
        batch_norm: in training it takes the statistics of the batch (`train`), or those it has and keeps them
            (`freeze`).
        batch_norm_momentum: decay of batch norm's moving statistics.
        average_decay: decay of the running average of the parameters, at most; (1 + n) / (10 + n) at step n.
        distortion: of training images, a key of `distortions.DISTORTIONS`.
        source: where the numbers come from.
    """

    batch: int
    epochs: int
    learning_rate: float
    learning_rate_decay: float
    decay_epochs: int
    head_epochs: int = 0
    head_learning_rate: float | None = None
    rms_decay: float
    momentum: float
    epsilon: float
    initial_accumulator: float
    batch_norm: Literal["train", "freeze"]
    batch_norm_momentum: float
    average_decay: float
    distortion: Literal["affine", "crop", "inception", "slim"]
    source: str


RECIPES = {
    "paper": Recipe(
        batch=640,
        epochs=200,
        learning_rate=0.045,
        learning_rate_decay=0.94,
        decay_epochs=2,
        rms_decay=0.9,
        momentum=0.9,
        epsilon=1.0,
        initial_accumulator=1.0,
        batch_norm="train",
        batch_norm_momentum=0.9997,
        average_decay=0.9999,
        distortion="inception",
        source="section 4; batch, epochs, momentum of RMSProp, average_decay and distortion are not in the "
        "paper: 20 replicas x 32, the figures' axes, and slim's and research/inception's values",
    ),
    "cpu-demo": Recipe(
        batch=32,
        epochs=5,
        learning_rate=0.001,
        learning_rate_decay=0.5,
        decay_epochs=1,
        rms_decay=0.9,
        momentum=0.9,
        epsilon=0.001,
        initial_accumulator=1.0,
        batch_norm="train",
        batch_norm_momentum=0.9,
        average_decay=0.99,
        distortion="affine",
        source="tuned here for 4,500 digits and five epochs; not the paper's, whose epsilon and average are "
        "for hundreds of thousands of steps",
    ),
    "fine-tune": Recipe(
        batch=32,
        epochs=10,
        learning_rate=0.001,
        learning_rate_decay=0.8,
        decay_epochs=1,
        head_epochs=1,
        head_learning_rate=0.001,
        rms_decay=0.9,
        momentum=0.9,
        epsilon=0.001,
        initial_accumulator=1.0,
        batch_norm="freeze",
        batch_norm_momentum=0.9,
        average_decay=0.99,
        distortion="crop",
        source="tuned here, on a thousand pictures of clothes and the weights of the digits' run",
    ),
}
