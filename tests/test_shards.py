"""The order of records in shards: exact, entered anywhere, from the seed alone."""

import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.data import shards
from inception_tf.data.shards import Shard, Shards

# (records skipped, taken and left over) of each shard
LAYOUTS = {
    "one": [(0, 23, 0)],
    "fewer than a group": [(0, 5, 0), (0, 1, 0), (0, 17, 0)],
    "empty ones": [(0, 0, 0), (0, 4, 0), (0, 0, 0), (3, 0, 2), (0, 6, 0)] * 4,
    "uneven": [(0, 1 + 7 * i % 13, 0) for i in range(37)],
    "a part of each": [(i % 3, 2 + i % 5, i % 4) for i in range(18)],
    "an empty group": [(0, 0, 0)] * 40 + [(0, 9, 0)],
}


def _write(folder, layout):
    """`Shards` of files whose records say "shard,number"."""
    written = []
    for i, (skip, take, rest) in enumerate(layout):
        path = f"{folder}/{i:05}"
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(skip + take + rest):
                writer.write(f"{i},{number}".encode())
        written.append(Shard(path, skip, take))
    return Shards(tuple(written), lambda serialized: {"image": serialized})


@pytest.fixture(params=LAYOUTS)
def images(request, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WINDOW", 8)
    return _write(tmp_path, LAYOUTS[request.param])


def _texts(dataset, count=None):
    return [
        r["serialized"].decode() for r in dataset.take(-1 if count is None else count).as_numpy_iterator()
    ]


def _all(images):
    return [f"{i},{s.skip + n}" for i, s in enumerate(images.shards) for n in range(s.take)]


def test_every_epoch_has_each_record_once_in_another_order(images):
    count = len(images)
    assert count == len(_all(images))
    texts = _texts(images.shuffled(seed=5, first=0), 3 * count)
    epochs = [texts[e * count : (e + 1) * count] for e in range(3)]
    for epoch, other in itertools.pairwise([_all(images), *epochs]):
        assert sorted(epoch) == sorted(other)
        assert epoch != other
    assert _texts(images.shuffled(seed=6, first=0), count) != epochs[0]


def test_the_order_can_be_entered_anywhere(images):
    count = len(images)
    texts = _texts(images.shuffled(seed=5, first=0), 2 * count + 30)
    for first in {1, 8, 9, count - 1, count, count + 1, count * 3 // 2}:
        assert _texts(images.shuffled(seed=5, first=first), 30) == texts[first : first + 30]


def test_in_order_has_each_record_once_always_the_same(images):
    texts = _texts(images.in_order())
    assert sorted(texts) == sorted(_all(images))
    assert _texts(images.in_order()) == texts


def test_index_and_name_of_a_record(images):
    expected = _all(images)
    for record in images.in_order().as_numpy_iterator():
        text = record["serialized"].decode()
        example = images.example({name: tf.constant(value) for name, value in record.items()})
        assert example["index"].dtype == tf.int64
        assert expected[example["index"]] == text
        assert example["image"].numpy().decode() == text
        shard, number = text.split(",")
        assert images.name(record) == f"{images.shards[int(shard)].path}, record {number}"


def test_examples_are_made_in_a_graph(tmp_path):
    images = _write(tmp_path, LAYOUTS["a part of each"])
    indices = [int(e["index"]) for e in images.in_order().map(images.example)]
    assert sorted(indices) == list(range(len(images)))


def test_the_order_is_the_seed_s_alone(tmp_path):
    images = _write(tmp_path, LAYOUTS["uneven"])
    orders = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        np.random.seed(seed)
        orders.append(_texts(images.shuffled(seed=0, first=0), 300))
    assert orders[0] == orders[1]


def test_the_order_is_that_of_earlier_versions(tmp_path):
    """A run is resumed in the order that it was begun in."""
    images = _write(tmp_path, [(0, 3, 0)] * 20)
    texts = _texts(images.shuffled(seed=2**32 - 1, first=len(images)), 5)
    assert texts == ["17,2", "0,1", "13,0", "4,0", "9,1"]


def test_a_far_epoch_costs_no_more(tmp_path):
    images = _write(tmp_path, LAYOUTS["uneven"])
    near, far = images.shuffled(0, 0), images.shuffled(0, 200_000_000 * len(images) + 3)
    assert len(_texts(far, 9)) == 9
    assert abs(_graph_size(far) - _graph_size(near)) < 100


def _graph_size(dataset):
    return len(dataset._as_serialized_graph().numpy())


def test_a_group_is_of_few_files_and_a_window_of_few_records(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WINDOW", 64)
    images = _write(tmp_path, [(0, 20, 0)] * 40)
    texts = _texts(images.shuffled(0, 0), len(images))
    groups = [texts[:320], texts[320:640], texts[640:]]
    files = [{text.split(",")[0] for text in group} for group in groups]
    assert [len(group) for group in files] == [16, 16, 8]
    assert len(set.union(*files)) == 40
    # Files are read 16 records at a time: the first window has 16 of each of four.
    counts = np.unique([text.split(",")[0] for text in texts[:64]], return_counts=True)[1]
    assert counts.tolist() == [16] * 4
    assert len({text.split(",")[0] for text in texts[:8]}) > 1


def test_files_that_come_earlier_are_not_opened(tmp_path):
    images = _write(tmp_path, [(0, 4, 0)] * 48)
    texts = _texts(images.shuffled(0, 0), 192)
    for text in texts[:128]:
        path = tmp_path / f"{int(text.split(',')[0]):05}"
        path.write_bytes(b"no records at all")
    assert _texts(images.shuffled(0, 128), 64) == texts[128:]
    assert _texts(images.shuffled(0, 130), 62) == texts[130:]
    with pytest.raises(tf.errors.OpError):
        _texts(images.shuffled(0, 127), 1)


def test_records_that_come_earlier_are_not_parsed(tmp_path):
    images = _write(tmp_path, [(0, 30, 0)])
    parsed = []
    images = Shards(
        images.shards, lambda s: {"image": tf.numpy_function(lambda t: parsed.append(t) or t, [s], s.dtype)}
    )
    assert len(list(images.shuffled(0, 17).take(5).map(images.example))) == 5
    assert len(parsed) <= 5


@pytest.mark.parametrize("cut", ["between records", "in a record"])
def test_a_shard_that_is_cut_off_ends_the_stream_with_an_error(cut, tmp_path):
    images = _write(tmp_path, [(0, 5, 0)] * 3)
    path = tmp_path / "00001"
    os.truncate(path, path.stat().st_size * 3 // 5 - (cut == "in a record"))
    with pytest.raises(tf.errors.OpError):
        _texts(images.in_order())


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize(
    "harm, says",
    [
        (lambda data: data[:70] + b"?" + data[71:], "corrupted record at 69"),
        (lambda data: data[:-1], "truncated record at 76"),
        (lambda data: data[: 3 * 19], "it has fewer records than was said, {} in place of {}"),
        (lambda data: None, "No such file or directory"),
    ],
)
def test_a_damaged_shard_is_named(harm, says, skip, tmp_path):
    images = _write(tmp_path, [(0, 5, 0), (skip, 5 - skip, 0), (0, 5, 0)])  # of records of 19 bytes
    assert images.damaged() is None
    path = tmp_path / "00001"
    data = harm(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    assert images.damaged() == f"{path}: {says.format(3 - skip, 5 - skip)}"


def test_what_is_not_of_the_part_may_be_damaged(tmp_path):
    images = _write(tmp_path, [(0, 3, 2)])
    os.truncate(tmp_path / "00000", 90)
    assert images.damaged() is None


def test_a_file_system_that_is_not_the_machine_s():
    folder = "ram://test_shards"
    tf.io.gfile.makedirs(folder)
    images = _write(folder, [(0, 30, 0), (2, 10, 3)])
    texts = _texts(images.shuffled(0, 0), 80)
    assert sorted(texts[:40]) == sorted(texts[40:]) == sorted(_all(images))
    assert _texts(images.shuffled(0, 50), 30) == texts[50:]
