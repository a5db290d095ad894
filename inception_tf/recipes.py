"""Training recipes as data: the paper's, slim's, tensorflow/tpu's, the digits', and one for fine-tuning."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        batch: global batch size, in images.
        reference_batch: the batch that the learning rates are for; for another one they are scaled linearly.
        epochs: passes over the training images.
        learning_rate: the learning rate before it decays.
        learning_rate_decay: factor on it ...
        decay_epochs: ... at the end of every so many epochs.
        cold_epochs: first passes at a tenth of the learning rate.
        warm_up_epochs: passes after those in which it rises from that tenth.
        head_epochs: passes before all of these, at least one step of them, in which the last layer alone is
            trained.
        head_learning_rate: the learning rate of these passes; None: the first one of the whole network.
        optimizer: `rmsprop`, or `momentum`, which has no mean of squared gradients.
        rms_decay: decay of RMSProp's mean of squared gradients.
        momentum: of either optimizer.
        epsilon: added to the mean square, inside the root.
        initial_accumulator: where the mean square starts: 1.0 in TensorFlow 1, 0.0 in Keras.
        clip_norm: the largest norm of all gradients together; None: any.
        weight_decay: factor on half the sum of the squares of all kernels, which is added to the loss.
        label_smoothing: share of the label that is spread evenly over all classes.
        auxiliary_weight: factor on the loss of the auxiliary head; 0: there is none.
        batch_norm: in training it takes the statistics of the batch (`train`), or those it has and keeps them
            (`freeze`).
        batch_norm_momentum: decay of batch norm's moving statistics.
        average_decay: decay of the running average of the parameters, at most; (1 + n) / (10 + n) at step n;
            0: there is none.
        distortion: of training images, a key of `distortions.DISTORTIONS`.
        source: where the numbers come from.
    """

    batch: int
    reference_batch: int
    epochs: int
    learning_rate: float
    learning_rate_decay: float
    decay_epochs: int
    cold_epochs: float = 0
    warm_up_epochs: float = 0
    head_epochs: int = 0
    head_learning_rate: float | None = None
    optimizer: Literal["rmsprop", "momentum"] = "rmsprop"
    rms_decay: float = 0.9
    momentum: float = 0.9
    epsilon: float
    initial_accumulator: float = 1.0
    clip_norm: float | None = None
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.0
    batch_norm: Literal["train", "freeze"] = "train"
    batch_norm_momentum: float
    average_decay: float
    distortion: Literal["affine", "crop", "inception", "slim"]
    source: str


RECIPES = {
    "paper": Recipe(
        batch=640,
        reference_batch=640,
        epochs=200,
        learning_rate=0.045,
        learning_rate_decay=0.94,
        decay_epochs=2,
        epsilon=1.0,
        batch_norm_momentum=0.9997,
        average_decay=0.9999,
        distortion="inception",
        source="section 4; batch, epochs, momentum of RMSProp, average_decay and distortion are not in the "
        "paper: 20 replicas x 32, the figures' axes, and slim's and research/inception's values",
    ),
    "slim": Recipe(
        batch=32,
        reference_batch=32,
        epochs=200,
        learning_rate=0.01,
        learning_rate_decay=0.94,
        decay_epochs=2,
        epsilon=1.0,
        weight_decay=4e-5,
        auxiliary_weight=0.4,
        batch_norm_momentum=0.9997,
        average_decay=0.0,
        distortion="slim",
        source="the defaults of the flags of slim's train_image_classifier.py and of its networks; epochs, "
        "which it has none of, are the paper's figures' axes",
    ),
    "tpu": Recipe(
        batch=256,
        reference_batch=256,
        epochs=200,
        learning_rate=0.15,
        learning_rate_decay=0.94,
        decay_epochs=2,
        cold_epochs=1,
        warm_up_epochs=2,
        epsilon=1.0,
        weight_decay=4e-5,
        label_smoothing=0.1,
        auxiliary_weight=0.4,
        batch_norm_momentum=0.995,
        average_decay=0.995,
        distortion="inception",
        source="tensorflow/tpu, models/experimental/inception/inception_v4.py; its warm-up rises by epoch, "
        "from a rate of its own, and its rate is 3 % higher after it; epochs are the paper's figures' axes",
    ),
    "cpu-demo": Recipe(
        batch=32,
        reference_batch=32,
        epochs=5,
        learning_rate=0.001,
        learning_rate_decay=0.5,
        decay_epochs=1,
        epsilon=0.001,
        batch_norm_momentum=0.9,
        average_decay=0.99,
        distortion="affine",
        source="tuned here for 4,500 digits and five epochs; not the paper's, whose epsilon and average are "
        "for hundreds of thousands of steps",
    ),
    "study": Recipe(
        batch=32,
        reference_batch=32,
        epochs=10,
        learning_rate=0.045,
        learning_rate_decay=0.54,
        decay_epochs=1,
        epsilon=1.0,
        batch_norm_momentum=0.9,
        average_decay=0.99,
        distortion="affine",
        source="section 4, the learning rate falling in 10 epochs as far as there in the 200 of the figures' "
        "axes, 0.94 ** 100 = 0.54 ** 10; averages and batch norm follow within a hundred steps, so that a "
        "short training, or the start of one, is not judged by statistics of earlier weights",
    ),
    "fine-tune": Recipe(
        batch=32,
        reference_batch=32,
        epochs=10,
        learning_rate=0.001,
        learning_rate_decay=0.8,
        decay_epochs=1,
        head_epochs=1,
        head_learning_rate=0.001,
        epsilon=0.001,
        batch_norm="freeze",
        batch_norm_momentum=0.9,
        average_decay=0.99,
        distortion="crop",
        source="tuned here, on a thousand pictures of clothes and the weights of the digits' run",
    ),
}

# Of a recipe that has other numbers for some networks.
OF_NETWORK = {
    ("tpu", "inception_v3"): dataclasses.replace(
        RECIPES["tpu"],
        batch=1024,
        learning_rate=0.165,
        decay_epochs=3,
        cold_epochs=2,
        warm_up_epochs=7,
        batch_norm_momentum=0.996,
        source="tensorflow/tpu, models/experimental/inception/inception_v3.py; its warm-up rises by epoch; "
        "epochs are the paper's figures' axes",
    ),
}


def recipe_of(name, network):
    """The recipe of a name, a key of `RECIPES`, for a network, a key of `networks.NETWORKS`."""
    return OF_NETWORK.get((name, network), RECIPES[name])
