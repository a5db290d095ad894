"""Batches to train and to evaluate on, every image counted once, whatever reads them."""

import functools
import math

import tensorflow as tf

from inception_tf.data import distortions
from inception_tf.data.crops import views
from inception_tf.data.left_out import printable, report

# Images that one thread decodes, at most, where some may be left out. Measured on two cores: 32 at a time are
# about a tenth slower than images one by one that may not be left out, and one at a time half as fast.
CHUNK = 32
CUT_AT_ONCE = 4  # images of which many crops are in memory: 72 at 299 pixels take 77 MB


def training_batches(
    images,
    *,
    size,
    batch,
    seed,
    distortion,
    classes,
    first_step,
    last_step,
    worker=(0, 1),
    left_out=None,
):
    """The batches of steps `first_step` to `last_step` (exclusive), the same wherever a run is resumed.

    Every image comes once an epoch, in an order of that epoch; a batch may cross from one epoch into the
    next. Order and distortion depend on the seed, the epoch and the image alone.

    Args:
        images: `Images`.
        size: height and width, in pixels.
        batch: images a step, over all workers.
        seed: int from 0 to 2**32 - 1.
        distortion: a key of `distortions.DISTORTIONS`.
        classes: number of classes; labels are less.
        first_step: the first step.
        last_step: the step after the last one.
        worker: (which, of how many): each gets its part of every batch, worker w of W the images from w / W
            of it to (w + 1) / W, as the replicas of one process share it.
        left_out: a dict, to which the images that cannot be used are added, names and reasons; they stand in
            the batches as zeros. None: such an image is an error of TensorFlow's when its batch is asked for.

    Returns:
        `tf.data.Dataset` of dicts of [batch / workers, ...]: `pixels`, uint8 (float32 where the distortion is
        not all of bytes) [..., size, size, 1 or 3], and `draws`, float32 [..., k], which
        `distortions.finisher` makes images of; `label`, int32; `weight`, float32, 0 for an image left out.
        For one of several workers, batches of zeros follow without an end: take as many as there are steps.

    Raises:
        ValueError: the workers cannot share a batch evenly.
    """
    count = len(images)
    distort = distortions.DISTORTIONS[distortion].distort

    def example(position, record):
        example = images.example(record)
        key = distortions.key(seed, position // count, example["index"])
        pixels, draws = distort(example, size, key)
        return {"pixels": pixels, "draws": draws, "label": example["label"]}

    which, workers = _checked_worker(worker, batch)
    share = batch // workers
    records = _positioned(images, batch, seed, first_step)
    if workers > 1:
        records = records.filter(lambda position, _: position % batch // share == which)
    # What is read ahead ends there too: no image is left out that is not asked for.
    records = records.take((last_step - first_step) * share)
    batches = _decoded(images, classes, records, example, share, left_out, tf.data.AUTOTUNE)
    if workers > 1:
        # Before each batch of a dataset that may end, TensorFlow has the workers agree that all have one.
        batches = batches.concatenate(_empty(batches.element_spec))
    return batches.map(functools.partial(_filled, share)).prefetch(tf.data.AUTOTUNE)


def names_of_step(images, *, batch, seed, step):
    """The names of the images of a step, those of all workers, in the order of `training_batches`.

    The records of the step are read anew, but not decoded.

    Args:
        images, batch, seed: as in `training_batches`.
        step: which, from 0.

    Returns:
        list of `batch` strings, the names that images left out have: a file, a file and the place in it, or
        for images in memory "image 3", the index.
    """
    records = _positioned(images, batch, seed, step).take(batch)
    return [printable(images.name(record)) for _, record in records.as_numpy_iterator()]


def _positioned(images, batch, seed, first_step):
    """Pairs of the position and the record of what is trained on from a step on, without an end."""
    first = first_step * batch
    return images.shuffled(seed, first).enumerate(first)


def evaluation_batches(
    images,
    *,
    size,
    batch,
    preprocessing,
    classes,
    crops=1,
    chosen=None,
    worker=(0, 1),
    left_out=None,
):
    """All images once, in order, in batches of one size: the last is filled up with weight 0.

    Args:
        images, size, classes, left_out: as in `training_batches`.
        worker: (which, of how many): they take turns with the images, and all get as many batches.
        batch: views a batch, over all workers; the views of an image may lie in several.
        preprocessing: a `weights.Preprocessing`.
        crops: 1, 12 or 144; of the latter two half are the views, the others their mirror images, which are
            not made here.
        chosen: bool array [images], which of them, by their place in order; None: all.

    Returns:
        `tf.data.Dataset` of dicts of [batch / workers, ...]: `pixels`, float32 [..., size, size, 3] of the
        preprocessing's scale; `label`, int32; `weight`, float32, 1 for a view, 0 for filling; `place`, int64,
        the image's place in order.
    """

    def example(place, record):
        example = images.example(record)
        pixels = views(example, size, preprocessing, crops)
        return {"pixels": pixels, "label": example["label"], "place": place}

    def rows(batch):
        repeated = {name: tf.repeat(batch[name], count) for name in ("label", "weight", "place")}
        return {"pixels": tf.reshape(batch["pixels"], (-1, size, size, 3)), **repeated}

    which, workers = _checked_worker(worker, batch)
    share = batch // workers
    count = max(1, crops // 2)  # views of an image
    records = images.in_order().enumerate()
    total = len(images)
    if chosen is not None:
        is_chosen = tf.constant(chosen)
        records = records.filter(lambda place, _: is_chosen[place])
        total = int(chosen.sum())
    records = records.shard(workers, which)
    at_once = tf.data.AUTOTUNE if crops < 144 else CUT_AT_ONCE
    batches = _decoded(images, classes, records, example, max(1, share // count), left_out, at_once).map(rows)
    if count > 1:
        batches = batches.rebatch(share)
    filled = functools.partial(_filled, share)
    batches = batches.concatenate(_empty(batches.element_spec))
    batches = batches.take(math.ceil(math.ceil(total / workers) * count / share))
    return batches.map(filled).prefetch(tf.data.AUTOTUNE)


def _checked_worker(worker, batch):
    which, workers = worker
    if batch % workers or not 0 <= which < workers:
        raise ValueError(
            f"`batch` must be a multiple of the workers, and each be one of them. Received: batch={batch}, "
            f"worker={worker}"
        )
    return which, workers


def _labelled(classes, example):
    """An example, or a batch, whose labels are those of classes, with weights."""
    label = example["label"]
    known = tf.reduce_all((label >= 0) & (label < classes))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=known, data=[label])]):
        return {**example, "label": tf.cast(label, tf.int32), "weight": tf.ones(tf.shape(label))}


def _decoded(images, classes, records, example, batch, left_out, at_once):
    """Batches of the examples of records, the last of which may be smaller.

    `at_once` is how many threads decode, each an image, or a chunk of them where some may be left out.
    """
    labelled = functools.partial(_labelled, classes)
    if left_out is None:
        return records.map(example, num_parallel_calls=at_once).batch(batch).map(labelled)
    chunk = max(size for size in range(1, CHUNK + 1) if batch % size == 0)
    nothing = _zeros(records.map(example).map(labelled).element_spec)

    def decoded(*chunk_of):
        """The examples of a chunk, each in its place, zeros where there is none."""
        count = tf.shape(tf.nest.flatten(chunk_of)[0], tf.int64)[0]
        places = tf.data.Dataset.from_tensor_slices(chunk_of).enumerate()
        whole = places.map(lambda place, record: (place, labelled(example(*record)))).ignore_errors()
        nothing_last = tf.data.Dataset.from_tensors((tf.constant(chunk, tf.int64), nothing))
        places, examples = whole.concatenate(nothing_last).batch(chunk + 1).get_single_element()
        missing = tf.sets.difference([tf.range(count)], [places]).values
        reported = report(images, classes, example, left_out, chunk_of, missing)
        with tf.control_dependencies([reported]):
            row_of = tf.fill([chunk + 1], tf.size(places) - 1)
            row_of = tf.tensor_scatter_nd_update(row_of, places[:, None], tf.range(tf.size(places)))
            return {name: tf.gather(values, row_of[:chunk]) for name, values in examples.items()}

    chunks = records.batch(chunk).map(decoded, num_parallel_calls=at_once)
    return chunks.batch(batch // chunk).map(
        lambda batch: {name: tf.reshape(values, (-1, *values.shape[2:])) for name, values in batch.items()}
    )


def _filled(size, batch):
    """The batch, with zeros up to its size."""
    missing = size - tf.shape(batch["label"])[0]

    def filled(values):
        zeros = tf.zeros((missing, *values.shape[1:]), values.dtype)
        values = tf.cond(missing > 0, lambda: tf.concat([values, zeros], 0), lambda: values)
        return tf.ensure_shape(values, (size, *values.shape[1:]))

    return tf.nest.map_structure(filled, batch)


def _empty(spec):
    """Batches without images, and without an end, of the specification of batches whose size is not known."""
    return tf.data.Dataset.from_tensors(_zeros(spec)).repeat()


def _zeros(spec):
    """Zeros of a specification, none along an axis of unknown length."""
    return tf.nest.map_structure(lambda each: tf.zeros([side or 0 for side in each.shape], each.dtype), spec)
