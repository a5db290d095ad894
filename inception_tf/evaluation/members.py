"""The networks of an evaluation: from whatever holds one to a function of images."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from inception_tf import conversion, labels, saved_models
from inception_tf.errors import UserError
from inception_tf.networks import NETWORKS
from inception_tf.weights import Card


@dataclasses.dataclass(frozen=True)
class Member:
    """A network that is evaluated, alone or in an ensemble.

    Attributes:
        source: what it was loaded from.
        card: its `weights.Card`.
        count: how many classes it tells apart.
        answer: function from images, float32 [n, size, size, 3], to probabilities, float32 [n, classes].
        fingerprint: sha256 of its weights, or of the files of a SavedModel.
    """

    source: str
    card: Card
    count: int
    answer: Callable
    fingerprint: str

    @property
    def class_names(self):
        """The wnid or name of each column, or None where nobody knows."""
        if self.card.labels is None:
            return None
        return tuple(wnid for wnid, _ in labels.classes(self.card.labels))


def split_source(source):
    """The path, or the name of a release, and the name of the network before it, or None."""
    network, colon, path = source.partition(":")
    return (path, network) if colon and network in NETWORKS else (source, None)


def load(source, average=True):
    """A network, from all that `conversion.load` takes, or an exported SavedModel.

    Call it in the strategy's scope, and under the dtype policy that the network is to have.

    Args:
        source: path; where the file does not say its network, and for a release, with its name before:
            inception_v4:imagenet.
        average: whether its parameters are the averages of those that were trained, where it has both.

    Raises:
        UserError: there is no such network, or it has no classes.
    """
    path, network = split_source(source)
    if saved_models.is_saved_model(path):
        if not average:
            raise UserError(f"{source} holds one set of weights: leave out --no-average.")
        answer, card = saved_models.load(path)
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        contents = (file.read_bytes() for file in files)
        shape = tf.TensorSpec((1, card.size, card.size, 3), tf.float32)
        count = tf.function(answer).get_concrete_function(shape).structured_outputs.shape[-1]
    else:
        model, card = conversion.load(path, network, auxiliary_head=False, average=average)
        if not any(layer.name == "logits" for layer in model.layers):
            raise UserError(f"{source} has no classifier to evaluate: save a network with include_top=True.")
        contents = (variable.numpy().tobytes() for variable in model.weights)
        count = model.output_shape[-1]

        def answer(images):
            return tf.cast(model(images, training=False), tf.float32)

    if card.labels is not None and (known := len(labels.classes(card.labels))) != count:
        raise UserError(f"{source} has {count} classes, and its card names {known}.")
    fingerprint = hashlib.sha256()
    for content in contents:
        fingerprint.update(content)
    return Member(source, card, count, answer, fingerprint.hexdigest())


def common_classes(members, data_names, data):
    """The order of the classes in which all networks' probabilities are kept: the data's, then the others.

    Args:
        members: `Member`s.
        data_names: the names of the data's classes, in the order of their labels.
        data: the value of --data.

    Returns:
        the names, and for each network its columns in that order.

    Raises:
        UserError: a network does not know all of the data's classes, or the networks know different ones.
    """
    known = [_names(member, data_names, data) for member in members]
    for member, names in zip(members, known, strict=True):
        if len(names) != len(known[0]):
            raise UserError(
                f"{member.source} tells {len(names)} classes apart and {members[0].source} {len(known[0])}: "
                "the networks of an ensemble must have the same."
            )
        if other := sorted(set(names) - set(known[0])):
            raise UserError(
                f"{member.source} knows the class {other[0]} and {members[0].source} does not: the networks "
                "of an ensemble must have the same."
            )
    own = set(data_names)
    common = (*data_names, *(name for name in known[0] if name not in own))
    if more := len(common) - len(data_names):
        print(f"The networks know {more} classes that --data {data} has not: to answer one of them is wrong.")
    return common, [_columns(names, common) for names in known]


def _columns(names, common):
    """Where the columns of `common` are among `names`; names may repeat where both are the same."""
    if names == common:
        return list(range(len(names)))
    column = {name: i for i, name in enumerate(names)}
    return [column[name] for name in common]


def _names(member, data_names, data):
    """The names of a network's classes, among which are all of the data's."""
    names, data_names = member.class_names, tuple(data_names)
    if names is None:
        if member.count != len(data_names):
            raise UserError(
                f"{member.source} has {member.count} classes without names, and --data {data} has "
                f"{len(data_names)}: give a network with as many, or with names."
            )
        print(f"{member.source} does not name its classes: they are taken in the order of --data {data}.")
        return data_names
    if names == data_names:
        return names
    for whose, theirs in ((member.source, names), (f"--data {data}", data_names)):
        if len(set(theirs)) < len(theirs):
            repeated = next(name for name in theirs if theirs.count(name) > 1)
            raise UserError(f"{whose} names the class {repeated} twice: no order can be told.")
    if missing := [name for name in data_names if name not in names]:
        raise UserError(
            f"{member.source} does not know {len(missing)} of the {len(data_names)} classes of --data "
            f"{data}, first {missing[0]}; its own begin with {names[0]}: give what has the same classes."
        )
    return names
