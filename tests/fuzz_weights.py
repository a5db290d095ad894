"""Mutations of small files of weights, read in processes of their own: `python fuzz_weights.py NAME FIRST END
FOLDER` prints what came of each, and may die in the place of the tests' own process."""

import gzip
import os
import random
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from foreign_files import write_legacy_h5, write_pth, write_tar_gz, write_v1

from inception_tf import conversion, weights
from inception_tf.errors import UserError
from inception_tf.weights import keras_applications, keras_files, pytorch, tf1_checkpoints

NETWORK = "inception_resnet_v2_slim"
CARD = weights.Card(NETWORK, 75)
LONGEST = 4000  # characters of a sentence, less those of the path


def small(kind="keras"):
    """A model of the few layers by which every format knows its network; as small as can be."""
    x = inputs = keras.Input((8, 8, 3))
    for name in ("stem_1_3x3", "final_1_1x1"):
        size = 3 if name.startswith("stem") else 1
        x = keras.layers.Conv2D(4, size, use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(scale=kind != "keras_applications", name=f"{name}_bn")(x)
    x = keras.layers.Conv2D(4, 1, name="inception_resnet_a_1_linear")(x)
    x = keras.layers.Dense(5, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x, name=NETWORK)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


def state_dict(path, tensors):
    """PyTorch's tensors, with the axes as it has them."""
    beside = path.with_name("beside.safetensors")
    pytorch.write(beside, NETWORK, tensors, CARD)
    return pytest.importorskip("safetensors.torch").load_file(beside)


# By kind of file: its format, the ending of its name, and what writes it; None: the format itself.
KINDS = {
    "keras": (keras_files, ".keras", None),
    "weights_h5": (keras_files, ".weights.h5", None),
    "keras_applications": (keras_applications, ".h5", write_legacy_h5),
    "v1": (tf1_checkpoints, ".ckpt", write_v1),
    "v2": (tf1_checkpoints, "", None),
    "tar_gz": (tf1_checkpoints, ".tar.gz", write_tar_gz),
    "safetensors": (pytorch, ".safetensors", None),
    "pth": (pytorch, ".pth", lambda path, tensors: write_pth(path, state_dict(path, tensors))),
    "old_pth": (pytorch, ".pth", lambda path, tensors: write_pth(path, state_dict(path, tensors), old=True)),
}


def write(kind, folder, model=None):
    """Writes a model as a file of a kind; its path, as `weights.read` takes it."""
    format, ending, writer = KINDS[kind]
    path = Path(folder, f"sound{ending}")
    model = model or small(kind)
    if format is keras_files:
        keras_files.write(model, path, CARD)
        return path
    tensors, _ = conversion.tensors_for(format, model, CARD)
    if writer is None:
        format.write(path, NETWORK, tensors, CARD)
    else:
        writer(path, tensors)
    return path


# Mutations


def mutate(content, generator):
    """The bytes with one to three things done to them, or more if these change nothing."""
    result, count = bytearray(content), generator.choice((1, 1, 2, 3))
    while result and (count > 0 or result == content):
        generator.choice(MUTATIONS)(result, generator)
        count -= 1
    return bytes(result)


def _place(content, generator):
    """A place in the file: one in two is near an end, where headers and directories are."""
    near = min(len(content), 512)
    return generator.choice(
        (
            generator.randrange(len(content)),
            generator.randrange(len(content)),
            generator.randrange(near),
            len(content) - 1 - generator.randrange(near),
        )
    )


def _flip(content, generator):
    for _ in range(generator.choice((1, 1, 4, 32))):
        content[_place(content, generator)] ^= 1 << generator.randrange(8)


def _replace(content, generator):
    for _ in range(generator.choice((1, 1, 4, 32))):
        content[_place(content, generator)] = generator.randrange(256)


def _truncate(content, generator):
    del content[_place(content, generator) :]


def _zero(content, generator):
    start = _place(content, generator)
    end = min(len(content), start + generator.choice((1, 8, 64, 512, 4096)))
    content[start:end] = bytes(end - start)


def _swap(content, generator):
    size = generator.choice((1, 4, 8, 64, 512))
    one, other = sorted(_place(content, generator) for _ in range(2))
    if one + size <= other and other + size <= len(content):
        content[one : one + size], content[other : other + size] = (
            content[other : other + size],
            content[one : one + size],
        )


def _duplicate(content, generator):
    start = _place(content, generator)
    chunk = content[start : start + generator.choice((1, 8, 64, 512))]
    place = _place(content, generator)
    if generator.random() < 0.5:
        content[place:place] = chunk
    else:
        content[place : place + len(chunk)] = chunk


def _insert(content, generator):
    place = _place(content, generator)
    content[place:place] = generator.randbytes(generator.choice((1, 2, 8, 64)))


def _number(content, generator):
    """An integer made another: where a length or an address stands, that is changed."""
    code = generator.choice("BHIQ")
    size = struct.calcsize(code)
    place = _place(content, generator)
    if place + size > len(content):
        return
    (value,) = struct.unpack_from(f"<{code}", content, place)
    bits = 8 * size
    value = generator.choice(
        (0, 1, value + 1, value - 1, value * 2, value << 16, -1, 1 << (bits - 1), (1 << (bits - 1)) - 1)
    )
    struct.pack_into(f"<{code}", content, place, value % (1 << bits))


MUTATIONS = (_flip, _replace, _truncate, _zero, _swap, _duplicate, _insert, _number, _number)


# TensorFlow's checksums, made right again as a hostile hand would


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def _masked_crc32c(content, table=_crc_table()):  # noqa: B008
    crc = 0xFFFFFFFF
    for byte in content:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(content, place):
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _handle(content, place):
    offset, place = _varint(content, place)
    size, place = _varint(content, place)
    return (offset, size), place


def table_blocks(content):
    """(offset, size) of the blocks of a checkpoint's table: what the last of them, the index, lists."""
    metaindex, place = _handle(content, len(content) - 48)
    index, _ = _handle(content, place)
    place, blocks = index[0], [metaindex, index]
    end = index[0] + index[1]
    end -= 4 + 4 * struct.unpack_from("<I", content, end - 4)[0]  # restarts
    while place < end:
        _, place = _varint(content, place)  # the part of the key that is shared
        rest, place = _varint(content, place)
        _, place = _varint(content, place)
        handle, place = _handle(content, place + rest)
        blocks.append(handle)
    return blocks


def mend(content, blocks):
    """The table with the checksums of its blocks right."""
    content = bytearray(content)
    for offset, size in blocks:
        crc = _masked_crc32c(content[offset : offset + size + 1])
        struct.pack_into("<I", content, offset + size + 1, crc)
    return bytes(content)


# Fuzzing

FUZZED = {  # by name: the kind of file, and which of its files is mutated, if not the only one
    **{kind: (kind, "") for kind in KINDS if kind != "v2"},
    "v2_index": ("v2", ".index"),
    "v2_data": ("v2", ".data-00000-of-00001"),
    "v1_sums": ("v1", ""),  # with right checksums
    "v2_sums": ("v2", ".index"),
    "tar": ("tar_gz", ""),  # mutated before it is packed
}
SECONDS = 20  # for one file
ADDRESSES = 4 * 2**30  # bytes of address space, over what is taken when all is imported
MEMORY = 256 * 2**20  # bytes that reading one small file may take
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
BEFORE = 7.0  # of every variable, before weights are assigned


def mutated(name, sound, seed):
    """The mutation number `seed` of the bytes of a file."""
    generator = random.Random(f"{name} {seed}")
    if name == "tar":
        return gzip.compress(mutate(gzip.decompress(sound), generator), 1)
    if not name.endswith("_sums"):
        return mutate(sound, generator)
    while True:  # the footer and the sizes stay
        content = mutate(sound[:-48], generator) + sound[-48:]
        if len(content) == len(sound):
            return mend(content, table_blocks(sound))


def prepare(model):
    for variable in model.weights:
        variable.assign(np.full(variable.shape, BEFORE))
    return model


def judge(model, path):
    """What reading a file into a model, whose variables are `BEFORE`, comes to: one line."""
    try:
        read = weights.read(path, NETWORK)
        read.classes, read.embedding_size, read.has_auxiliary_head, read.has_gamma  # noqa: B018
        weights.assign(model, read)
    except UserError as error:
        if any(np.any(variable != BEFORE) for variable in model.get_weights()):
            return "WRONG: refused, but assigned"
        return wrong_with(error, path) or f"refused: {error}"
    if any(np.any(variable == BEFORE) for variable in model.get_weights()):
        return "WRONG: accepted, but not all assigned"
    return "accepted"


def wrong_with(error, path):
    """What is wrong with a refusal; None if nothing is."""
    text, cause = str(error), error.__cause__
    if str(path) not in text or not text.replace(str(path), "").isprintable():
        return f"WRONG: not a line that names the file: {text!r}"
    if len(text) - len(str(path)) > LONGEST:
        return f"WRONG: {len(text)} characters: {text[:LONGEST]}"
    if isinstance(cause, MemoryError):
        return f"WRONG: out of memory: {text!r}"
    return None


def fuzz(name, first, end, folder):
    """Reads mutations and prints a line for each. The process dies with a crash, or at the limit of time."""
    kind, part = FUZZED[name]
    path = write(kind, folder)
    target = Path(f"{path}{part}")
    sound = target.read_bytes()
    model = prepare(small(kind))
    assert judge(model, path) == "accepted"  # and what reads it is imported
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for seed in range(first, end):
        prepare(model)
        content = mutated(name, sound, seed)
        target.write_bytes(content)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.alarm(SECONDS)  # whose default is death, in whatever library
        try:
            result = judge(model, path)
        except Exception as error:
            result = f"WRONG: {error!r}"
        signal.alarm(0)
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 > MEMORY:
            result = f"WRONG: it took too much memory: {result}"
        print(f"{seed} {' '.join(result.split())}", flush=True)


def fuzz_in_processes(name, count, folder):
    """dict from seed to what came of it, up to a third death."""
    results, first, deaths = {}, 0, 0
    while first < count and deaths < 3:
        process = subprocess.run(
            [sys.executable, __file__, name, str(first), str(count), str(folder)],
            capture_output=True,
            env=QUIET,
            text=True,
        )
        lines = process.stdout.splitlines()
        results |= {int(line.split()[0]): line.partition(" ")[2] for line in lines}
        first = first + len(lines)
        if process.returncode:
            results[first] = f"WRONG: died with {process.returncode}: {process.stderr[-2000:]!r}"
            first, deaths = first + 1, deaths + 1
    return results


if __name__ == "__main__":
    fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
