"""The index of a TensorFlow checkpoint, looked through before TensorFlow, which trusts it, reads it."""

import math
import struct
from pathlib import Path


def check(path):
    """Refuses shapes at which TensorFlow would end the process: it trusts an index whose checksums are right.

    The index is a table of LevelDB's. Each block is entries, then the offsets of some of them ("restarts")
    and the count of these; an entry is three varints (bytes of the key that the one before has too, bytes of
    the rest, bytes of the value), the rest of the key and the value. The last block lists the others.
    """
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

    content = Path(path).read_bytes()
    _, footer = _handle(content, len(content) - 48)
    index, _ = _handle(content, footer)
    blocks = [_handle(handle, 0)[0] for handle in _entries(content, *index)]
    _, *entries = [entry for block in blocks for entry in _entries(content, *block)]  # without the header
    for entry in entries:
        shape = BundleEntryProto.FromString(entry).shape
        sizes = [dimension.size for dimension in shape.dim]
        if shape.unknown_rank or min(sizes, default=0) < 0 or math.prod(sizes) >= 2**40:
            raise ValueError(f"it holds a tensor of the shape {sizes}")


def _entries(content, offset, size):
    """The values in a block."""
    end = offset + size
    count = int.from_bytes(content[end - 4 : end], "little")
    restarts = end - 4 - 4 * count
    if content[end : end + 1] != b"\0" or not offset <= restarts < end:
        raise ValueError("a block of it is damaged")
    starts, entries, place = set(), [], offset
    while place < restarts:
        starts.add(place - offset)
        _, place = _varint(content, place)
        rest, place = _varint(content, place)
        length, place = _varint(content, place)
        place += rest + length
        entries.append(content[place - length : place])
    # TensorFlow begins to read at any of them.
    if place != restarts or not starts.issuperset(struct.unpack_from(f"<{count}I", content, restarts)):
        raise ValueError("a block of it is damaged")
    return entries


def _handle(content, place):
    """Where a block is, (offset, size), and where the next handle is."""
    offset, place = _varint(content, place)
    size, place = _varint(content, place)
    return (offset, size), place


def _varint(content, place):
    value = shift = 0
    while True:
        value |= (content[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if content[place - 1] < 0x80:
            return value, place
