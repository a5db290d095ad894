"""What TensorBoard shows of a run: its scalars, its network, and some of its images."""

import collections
import functools

import numpy as np
import tensorflow as tf
from PIL import ImageOps

from inception_tf import diagrams
from inception_tf.report import predictions

SIDE = 160  # pixels of a picture


class Events:
    """The files that TensorBoard reads, in one folder.

    Args:
        folder: made with the first that is added.
    """

    def __init__(self, folder):
        self._folder = folder
        self._is_new = not folder.exists()

    @functools.cached_property
    def _writer(self):
        return tf.summary.create_file_writer(str(self._folder))

    def add_scalars(self, step, row):
        """Adds the numbers of a row of metrics, by their names."""
        with self._writer.as_default(step):
            for name, value in row.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def add_start(self, model, images):
        """Adds the graph of a network and images that it is trained on, where the folder is new.

        Args:
            model: a `keras.Model`.
            images: float [n, height, width, 3] in [0, 1].
        """
        if not self._is_new:
            return
        with self._writer.as_default(0):
            tf.summary.graph(graph_of(model))
            tf.summary.image("training_images", images, max_outputs=len(images))
        self._writer.flush()

    def add_pictures(self, step, name, entries):
        """Adds held-out images and, in the text beside them, what they were taken for.

        Args:
            step: after which.
            name: of them together.
            entries: of `predictions.summarize`.
        """
        if not entries:
            return
        lines = [
            f"{i}. {entry['true']}: " + ", ".join(f"{name} {share:.1%}" for name, share in entry["top"])
            for i, entry in enumerate(entries, start=1)
        ]
        with self._writer.as_default(step):
            pictures = np.stack([_square(entry["picture"]) for entry in entries])
            tf.summary.image(name, pictures, max_outputs=len(entries), description="\n".join(lines))
        self._writer.flush()


def graph_of(model):
    """A network as the figures draw it, a node for each box, in a scope for each block.

    The graph that TensorFlow runs has thousands of nodes, takes seconds to trace, and shows no blocks.

    Args:
        model: a `keras.Model`.

    Returns:
        a GraphDef, which is only to be looked at.
    """
    graph, names = tf.compat.v1.GraphDef(), {}
    nodes = diagrams.nodes(model)
    in_block = collections.Counter(node.block for node in nodes)
    for node in nodes:
        names[node] = node.layers[0].name
        if in_block[node.block] > 1:
            names[node] = f"{node.block}/{names[node].removeprefix(node.block).strip('_') or 'output'}"
        drawn = graph.node.add(name=names[node], op=node.label, input=[names[each] for each in node.inputs])
        shape = drawn.attr["_output_shapes"].list.shape.add()
        for size in node.layers[-1].output.shape:
            shape.dim.add(size=-1 if size is None else size)
    return graph


def _square(picture):
    """uint8 [160, 160, 3], of a data URI."""
    with predictions.decoded(picture) as image:
        return np.asarray(ImageOps.pad(image.convert("RGB"), (SIDE, SIDE), color="white"))
