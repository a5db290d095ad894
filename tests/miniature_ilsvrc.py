"""Miniature ILSVRC tars, laid out as the real ones: a tar of tars, one for a class, and a tar of pictures."""

import functools
import io
import tarfile

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01537544", "n02105855", "n07583066")  # ImageNet's classes 0, 14, 230 and 929


def jpeg(seed, size=None, mode="RGB", quality=90):
    """A JPEG file of smooth blobs on a gradient, with some noise: the same bytes for the same seed."""
    random = np.random.default_rng(seed)
    width, height = size or (int(side) for side in random.integers(60, 200, 2))
    blobs = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8)).resize(
        (width, height), Image.BICUBIC
    )
    ramp = np.linspace(-40, 40, width)[None, :, None]
    noise = random.normal(0, 4, (height, width, 3))
    pixels = np.clip(np.asarray(blobs) + ramp + noise, 0, 255).astype(np.uint8)
    return encode(Image.fromarray(pixels).convert(mode), "JPEG", quality=quality)


def encode(image, kind, **keywords):
    file = io.BytesIO()
    image.save(file, kind, **keywords)
    return file.getvalue()


def write_train_tar(path, wnids=WNIDS, images_per_class=3, replaced=None):
    """Writes what ILSVRC2012_img_train.tar is: <wnid>.tar members, each with <wnid>_<number>.JPEG members.

    Args:
        path: of the tar.
        wnids: the classes, in the order of their tars.
        images_per_class: how many pictures each has.
        replaced: dict from a picture's name to the bytes that it has instead of its own.

    Returns:
        dict from the pictures' names, "n01440764_10.JPEG", to their bytes.
    """
    pictures = {}
    with tarfile.open(path, "w") as tar:
        for wnid in wnids:
            # Numbers with gaps, as the real ones have.
            own = {f"{wnid}_{10 + 7 * i}.JPEG": _of_class(wnid, i) for i in range(images_per_class)}
            own |= {name: data for name, data in (replaced or {}).items() if name in own}
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as inner_tar:
                for name, data in own.items():
                    add(inner_tar, name, data)
            add(tar, f"{wnid}.tar", inner.getvalue())
            pictures |= own
    return pictures


def write_val_tar(path, count=4, replaced=None):
    """Writes what ILSVRC2012_img_val.tar is: ILSVRC2012_val_<number>.JPEG, from 1 without a gap.

    Args:
        path: of the tar.
        count: of pictures, at most 50,000.
        replaced: dict from a picture's name to the bytes that it has instead of its own.

    Returns:
        dict from the pictures' names, "ILSVRC2012_val_00000001.JPEG", to their bytes.
    """
    pictures = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg((2, i)) for i in range(1, count + 1)} | (replaced or {})
    with tarfile.open(path, "w") as tar:
        for name in reversed(pictures):  # the real ones do not stand in order either
            add(tar, name, pictures[name])
    return pictures


def add(tar, name, data):
    """Adds a file of `data` to an open tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@functools.cache
def _of_class(wnid, number):
    return jpeg((1, int(wnid[1:]), number))
