"""What each of several workers is given to train on, and which images a step had."""

import numpy as np
import pytest
import tensorflow as tf
from fuzz_images import Encoded, encoded, scene

from inception_tf.data import batches, shards
from inception_tf.data.folders import Pictures
from inception_tf.data.images import InMemory
from inception_tf.data.shards import Shard, Shards

COUNT = 17


def _in_memory(_):
    pixels = np.stack([np.asarray(scene(i)) for i in range(COUNT)])
    return InMemory(pixels, np.arange(COUNT, dtype=np.int32)), {f"image {i}": i for i in range(COUNT)}


def _in_a_folder(folder):
    paths = tuple(folder / f"{i:02}.png" for i in range(COUNT - 1)) + (folder / "odd\n.png",)
    for i, path in enumerate(paths):
        path.write_bytes(encoded(scene(i), "PNG"))
    labels = {str(path).replace("\n", "\\n"): i for i, path in enumerate(paths)}
    return Pictures(paths, np.arange(COUNT, dtype=np.int32), np.ones(COUNT, bool)), labels


def _in_shards(folder):
    """Five files, of which the first record is left out."""

    def parse(serialized):
        label = tf.strings.to_number(serialized, tf.int64)
        return {"image": tf.fill([12, 12, 1], tf.cast(label, tf.uint8)), "label": label}

    labels, files = {}, []
    for number, own in enumerate(np.array_split(np.arange(COUNT), 5)):
        path = str(folder / str(number))
        with tf.io.TFRecordWriter(path) as writer:
            for label in (99, *own):
                writer.write(str(label).encode())
        labels |= {f"{path}, record {i}": int(label) for i, label in enumerate(own, 1)}
        files.append(Shard(path, 1, len(own)))
    return Shards(tuple(files), parse), labels


def _batches(images, first, last, workers=1, which=0, batch=6, **keywords):
    keywords = {"size": 75, "distortion": "crop", "classes": COUNT, "seed": 3, **keywords}
    return batches.training_batches(
        images, batch=batch, first_step=first, last_step=last, worker=(which, workers), **keywords
    )


@pytest.mark.parametrize("kind", [_in_memory, _in_a_folder, _in_shards])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_names_of_a_step_are_those_of_the_workers_one_after_the_other(
    kind, workers, tmp_path, monkeypatch
):
    monkeypatch.setattr(shards, "WINDOW", 5)
    images, labels = kind(tmp_path)
    assert len(labels) == len(images) == COUNT
    shares = [_batches(images, 0, 8, workers, which).take(8) for which in range(workers)]
    for step, parts in enumerate(zip(*(share.as_numpy_iterator() for share in shares), strict=True)):
        names = batches.names_of_step(images, batch=6, seed=3, step=step)
        seen = np.concatenate([part["label"] for part in parts])
        assert [labels[name] for name in names] == seen.tolist()
    assert step == 7


@pytest.mark.parametrize("left_out", [None, {}])
def test_the_batches_of_one_of_several_workers_have_no_end(left_out):
    """So TensorFlow need not ask before each whether all workers have one."""
    images, _ = _in_memory(None)
    alone = _batches(images, 2, 5, left_out=left_out)
    assert [batch["weight"].tolist() for batch in alone.take(6).as_numpy_iterator()] == [[1] * 6] * 3
    share = _batches(images, 2, 5, 2, 1, left_out=left_out)
    assert share.cardinality() == tf.data.INFINITE_CARDINALITY
    weights = [batch["weight"].tolist() for batch in share.take(6).as_numpy_iterator()]
    assert weights == [[1] * 3] * 3 + [[0] * 3] * 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_reads_no_image_that_is_not_its_own(which):
    order = [int(i) for i in Encoded([], [0] * 64).shuffled(3, 0).take(64)]
    contents = [encoded(scene(0))] * 64
    bad = (1, 2, 3, 13, 14, 16, 17, 18, 19, 20, 21, 30)  # by position, of three steps of six
    for position in bad:
        contents[order[position]] = b""
    left_out = {}
    list(_batches(Encoded(contents, [0] * 64), 0, 3, 2, which, left_out=left_out).take(20))
    own = [position for position in bad if position < 18 and position % 6 // 3 == which]
    assert left_out.keys() == {f"image {order[position]}" for position in own}
    assert len(own) == (4, 3)[which]
