"""Single images of a data set, by their place in order."""

import numpy as np
import tensorflow as tf

from inception_tf.data import decoding
from inception_tf.data.preprocessing import rgb


def look_up(images, places):
    """Names and pictures of some images; the records of all are read, and only these decoded.

    Args:
        images: `Images`.
        places: ints, their places in order.

    Returns:
        for each of `places` its name and uint8 [height, width, 3].
    """
    wanted = np.zeros(len(images), bool)
    wanted[places] = True
    is_wanted = tf.constant(wanted)

    def decoded(place, entry):
        return place, entry, rgb(decoding.read_part(images.example(entry), decoding.whole))

    found = {}
    entries = images.in_order().enumerate().filter(lambda place, _: is_wanted[place])
    # Within the graph of the data set: outside of one Pillow is given arrays instead of bytes.
    for place, entry, picture in entries.map(decoded):
        name = images.name(tf.nest.map_structure(lambda value: value.numpy(), entry))
        found[int(place)] = name, picture.numpy()
    return [found[int(place)] for place in places]
