"""Single images of a data set, by their place in order."""

import numpy as np
import tensorflow as tf

from inception_tf.data import decoding
from inception_tf.data.preprocessing import rgb

LONGEST = 600  # pixels of a side that a picture is thinned to, as many large ones would take much memory
BLANK = np.full((LONGEST, LONGEST, 3), 255, np.uint8)


def look_up(images, places):
    """Names and pictures of some images; the records of all are read, twice, and only these decoded.

    Args:
        images: `Images`.
        places: ints, their places in order.

    Returns:
        for each of `places` its name and uint8 [height, width, 3], each side of 600 pixels or less; a white
        one where the whole of it cannot be decoded, though a network may have seen its middle.
    """

    def thinned(place, entry):
        picture = rgb(decoding.read_part(images.example(entry), decoding.whole))
        step = tf.reduce_max(tf.shape(picture)[:2] + LONGEST - 1) // LONGEST
        return place, picture[::step, ::step]

    if not len(places):
        return []
    wanted = np.zeros(len(images), bool)
    wanted[places] = True
    is_wanted = tf.constant(wanted)
    entries = images.in_order().enumerate().filter(lambda place, _: is_wanted[place])
    names = {place: images.name(entry) for place, entry in entries.as_numpy_iterator()}
    # Within a data set: outside of one Pillow is given arrays instead of bytes.
    pictures = dict(entries.map(thinned).ignore_errors().as_numpy_iterator())
    return [(names[place], pictures.get(place, BLANK)) for place in places]
