"""HDF5 files that may be damaged or hostile: what is read is in the file, and of a size that fits in it."""

import io
import mmap
import re
import struct

import h5py
import numpy as np

EXPANSION = 4  # times that weights may be compressed


def open_file(source):
    """An HDF5 file at a path or in memory, unless it is damaged so that HDF5 would read for ever."""
    if isinstance(source, io.BytesIO):
        _check_strings(source.getbuffer())
    else:
        with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_strings(content)
    file = h5py.File(source, "r")
    if file.id.get_create_plist().get_sizes() != (8, 8):  # as h5py writes, and `_check_strings` reads
        raise ValueError("its addresses are not of 8 bytes")
    return file


def _check_strings(content):
    """Refuses collections of strings ("global heaps") in which HDF5 (seen in 1.14.6) would go no further.

    A collection is 4 letters, a version, 3 bytes, its size; then items: number and count of references, 2
    bytes each, 4 bytes, size and content. An item of number 0 is the free space, and its size includes these.
    """
    for found in re.finditer(rb"GCOL\x01", content):
        size = int.from_bytes(content[found.start() + 8 : found.start() + 16], "little")
        place, end = found.start() + 16, min(found.start() + size, len(content))
        while place + 16 <= end:
            number, size = struct.unpack_from("<H6xQ", content, place)
            step = (16 + (size + 7) // 8 * 8) % 2**64 if number else size
            if not step:
                raise ValueError("its strings are damaged")
            place += step


def has(group, key):
    """Whether an HDF5 group has a member, without the opening of a file that it may be a link to."""
    return group.id.links.exists(key.encode())


def own(group, key):
    """The member `key` of an HDF5 group, which must be in this file: links to others are refused."""
    if group.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{group.name}/{key} is a link")
    return group[key]


def arrays(file, datasets):
    """The floating-point numbers of datasets of an HDF5 file: a dict from the same names to arrays."""
    for name, dataset in datasets.items():
        if dataset.dtype.kind != "f" or dataset.is_virtual or dataset.external:
            raise ValueError(f"{name} is not an array of floating-point numbers in this file")
    check_size(sum(dataset.nbytes for dataset in datasets.values()), file.id.get_filesize())
    return {name: np.asarray(dataset) for name, dataset in datasets.items()}


def check_size(unpacked, packed):
    """Refuses to unpack many times the bytes that it is packed in: weights are hardly compressible."""
    if unpacked > EXPANSION * packed:
        raise ValueError(f"{packed} bytes of it claim to hold {unpacked} bytes of weights")
