"""Mutations of small JPEG files, read through the pipelines of training and evaluation in processes of their
own: `python fuzz_images.py FIRST END` prints what came of them, and may die in the place of the tests' own
process."""

import dataclasses
import io
import json
import os
import random
import re
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from inception_tf.data import batches
from inception_tf.data.images import Indexed
from inception_tf.weights import Preprocessing

CLASSES = 3
SIZE = 75
PIPELINES = ("inception", "slim", "evaluation")


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded(Indexed):
    """Pictures as the bytes of files, in memory.

    Attributes:
        contents: bytes of each.
        labels: int of each.
        as_stored: bool of each; without, nothing is said, as of records.
    """

    contents: list
    labels: list
    as_stored: list | None = None

    def __len__(self):
        return len(self.labels)

    def example(self, record):
        with tf.init_scope():
            columns = {"image": tf.constant(self.contents), "label": tf.constant(self.labels, tf.int32)}
            if self.as_stored is not None:
                columns["as_stored"] = tf.constant(self.as_stored)
        return {"index": record, **{name: values[record] for name, values in columns.items()}}

    def name(self, record):
        return f"image {record}"


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(number, width=45, height=38, mode="RGB"):
    """A picture like no other number's, smooth enough to be one of JPEG's."""
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(number).uniform(0, 6, (3, 1, 1))
    waves = 128 + 120 * np.sin(phase + x / (3 + phase) + y / (9 - phase))
    return Image.fromarray(waves.transpose(1, 2, 0).astype(np.uint8)).convert(mode)


def turned(orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def one_colour_jpeg(side):
    """A whole grey JPEG file, `side` a multiple of 16: every block is the six bits 001010."""
    small = encoded(Image.new("L", (8, 8), 128))
    scan = small.index(b"\xff\xda") + 10
    small = small[:scan].replace(struct.pack(">HH", 8, 8), struct.pack(">HH", side, side))
    return small + b"\x28\xa2\x8a" * ((side // 8) ** 2 // 4) + b"\xff\xd9"


def chunk(kind, content):
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def one_colour_png(width, height, *more, rows=None):
    """A black PNG file of one bit a pixel, whole unless it has only some `rows`; with `more` chunks."""
    rows = zlib.compress(bytes(((width + 7) // 8 + 1) * (height if rows is None else rows)), 1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sound():
    """JPEG files of every kind that is common."""
    return [
        encoded(scene(0)),
        encoded(scene(1), progressive=True),
        encoded(scene(2), subsampling=0, quality=95),
        encoded(scene(3, mode="L")),
        encoded(scene(4, mode="CMYK")),
        encoded(scene(5), restart_marker_rows=1, optimize=True),
        encoded(scene(6), exif=turned(), icc_profile=bytes(500), comment=b"a comment"),
        encoded(scene(7, 160, 120), progressive=True, restart_marker_blocks=3),
    ]


def peak(function):
    """Bytes that the process has come to take while a function ran, or a little less."""

    def status(key):
        return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    function()
    return status("VmHWM") - before


# Mutations


def mutate(content, generator):
    """The bytes of a JPEG file with one to three things done to them, or more if these change nothing."""
    result, count = bytearray(content), generator.choice((1, 1, 1, 2, 3))
    while count > 0 or result == content:
        generator.choice(MUTATIONS)(result, generator)
        count -= 1
    return bytes(result)


def _place(content, generator):
    """A place in the file: one in two is in the first bytes, where the tables are."""
    return generator.randrange(max(1, generator.choice((len(content), min(len(content), 700)))))


def _flip(content, generator):
    for _ in range(generator.choice((1, 1, 4, 32))):
        if content:
            content[_place(content, generator)] ^= 1 << generator.randrange(8)


def _truncate(content, generator):
    del content[_place(content, generator) :]


def _delete(content, generator):
    start = _place(content, generator)
    del content[start : start + generator.choice((1, 2, 8, 64, 512))]


def _insert(content, generator):
    place, size = _place(content, generator), generator.choice((1, 2, 8, 64, 512, 70_000))
    what = generator.choice((generator.randbytes, bytes, lambda n: bytes([255]) * n))
    content[place:place] = what(size)


def _duplicate(content, generator):
    start, place = (_place(content, generator) for _ in range(2))
    content[place:place] = content[start : start + generator.choice((1, 8, 64, 512))]


def _number(content, generator):
    """An integer of two bytes made another: a length, perhaps, or a side."""
    place = _place(content, generator)
    if place + 2 <= len(content):
        (value,) = struct.unpack_from(">H", content, place)
        value = generator.choice((0, 1, 2, value + 1, value - 1, value * 2, 0x7FFF, 0x8000, 0xFFFF))
        struct.pack_into(">H", content, place, value % 2**16)


def segments(content):
    """(marker, start, end) of the segments before the first scan, as far as they can be followed."""
    found, place = [], 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        length = struct.unpack_from(">H", content, place + 2)[0]
        found.append((content[place + 1], place, min(place + 2 + length, len(content))))
        if content[place + 1] == 0xDA:
            break
        place += 2 + length
    return found


FRAME, TABLES = (0xC0, 0xC1, 0xC2), (0xC4, 0xDB, 0xDD, 0xDA)
MARKERS = (*range(0xC0, 0xD0), *range(0xD8, 0xE2), 0xEE, 0xFE, 0x01)


def _segment(content, generator, markers=range(256)):
    return generator.choice([each for each in segments(content) if each[0] in markers] or [None])


def _frame(content, generator):
    """The precision, the sides, the number of components, their sampling or their tables."""
    if (found := _segment(content, generator, FRAME)) and found[2] - found[1] >= 11:
        _, start, end = found
        if generator.random() < 0.5:
            sides = (0, 1, 2, 3, 44, 46, 1000, 9999, 20_000, 0xFFFF, generator.randrange(2**16))
            struct.pack_into(">H", content, start + generator.choice((5, 7)), generator.choice(sides))
        else:
            values = (0, 1, 2, 3, 4, 5, 8, 12, 0x11, 0x12, 0x14, 0x21, 0x22, 0x31, 0x41, 0x44, 0x55, 0xFF)
            content[generator.choice((start + 4, *range(start + 9, end)))] = generator.choice(values)


def _tables(content, generator):
    """Bytes of a Huffman or quantisation table, of the restart interval or of a scan's head."""
    if found := _segment(content, generator, TABLES):
        _, start, end = found
        for _ in range(generator.choice((1, 1, 3, 20))):
            if start + 2 < end:
                value = generator.choice((0, 1, 0x10, 0x3F, 0x7F, 0xFF, generator.randrange(256)))
                content[generator.randrange(start + 2, end)] = value


def _marker(content, generator):
    """A segment called another, moved, doubled or taken away."""
    if found := _segment(content, generator):
        _, start, end = found
        segment = bytes(content[start:end])
        what = generator.randrange(4)
        if what == 0:
            content[start + 1] = generator.choice(MARKERS)
        elif what == 1:
            content[start:start] = segment * generator.choice((1, 1, 30))
        else:
            del content[start:end]
            if what == 2:
                place = generator.choice([start for _, start, _ in segments(content)] or [0])
                content[place:place] = segment


def _in_scan(content, generator):
    """A marker among the coded data: of a restart, of the end, or of anything."""
    start = segments(content)[-1][2] if segments(content) else 0
    marker = generator.choice((*range(0xD0, 0xD8), 0xD9, generator.choice(MARKERS)))
    place = generator.randrange(start, len(content) + 1)
    content[place : place + generator.choice((0, 2))] = bytes((0xFF, marker))


def _metadata(content, generator):
    """A segment more behind the first marker: garbage that is called EXIF, ICC, Adobe's or a comment."""
    head = generator.choice(
        (
            b"Exif\0\0",
            b"Exif\0\0MM\0*",
            b"Exif\0\0II*\0\x08\0\0\0",
            b"ICC_PROFILE\0\1\2",
            b"Adobe\0d",
            b"JFIF\0",
        )
        + (b"http://ns.adobe.com/xap/1.0/\0", b"MPF\0MM\0*\0\0\0\x08")
    )
    segment = head + generator.randbytes(generator.choice((0, 4, 30, 500, 60_000)))
    if generator.random() < 0.2:
        segment = turned(generator.randrange(12)).tobytes()
    marker = generator.choice((0xE0, 0xE1, 0xE1, 0xE2, 0xEE, 0xFE))
    content[2:2] = struct.pack(">BBH", 0xFF, marker, len(segment) + 2) + segment


def _other_file(content, generator):
    """Another file inside, behind or in front; or only its first bytes."""
    other = generator.choice(
        (*sound(), encoded(scene(9), "PNG"), b"GIF89a\1\0\1\0\0\0\0;", b"BM" + bytes(60))
    )
    what = generator.randrange(4)
    if what == 0:
        content[: min(8, len(content))] = other[:8]
    else:
        place = (0, len(content), _place(content, generator))[what - 1]
        content[place:place] = other[: generator.choice((8, 100, len(other)))]


MUTATIONS = (_flip, _truncate, _delete, _insert, _duplicate, _number)
MUTATIONS += (_frame, _frame, _tables, _tables, _marker, _in_scan, _metadata, _other_file)


def mutated(seed):
    """(the JPEG file that mutation number `seed` is of, its bytes)."""
    files = sound()
    return files[seed % len(files)], mutate(files[seed % len(files)], random.Random(seed))


# Fuzzing

BATCH = 32
NEIGHBOURS = 3  # of each so many pictures, one is sound
SECONDS = 60  # for a process, and
SECONDS_EACH = 0.1  # for a mutation
ADDRESSES = 8 * 2**30  # bytes of address space, over what is taken when all is imported
MEMORY = 4 * 2**30  # bytes that a process may take: a picture may have 100 million pixels, in two threads
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def through(images, pipeline, left_out=None, batch=BATCH):
    """What a pipeline makes of `images`, one pass: dict of arrays, in the order of the images' numbers."""
    keywords = {"size": SIZE, "batch": batch, "classes": CLASSES, "left_out": left_out}
    if pipeline == "evaluation":
        preprocessing = Preprocessing(central_fraction=0.875)
        each = batches.evaluation_batches(images, preprocessing=preprocessing, **keywords)
        order = np.arange(len(images))
    else:
        steps = -(-len(images) // batch)
        each = batches.training_batches(
            images, seed=0, distortion=pipeline, first_step=0, last_step=steps, **keywords
        )
        order = np.array([int(index) for index in images.shuffled(0, 0).take(len(images))])
    each = list(each.as_numpy_iterator())
    joined = {name: np.concatenate([part[name] for part in each])[: len(images)] for name in each[0]}
    return {name: values[np.argsort(order)] for name, values in joined.items()}


def fuzz(first, end):
    """Reads mutations; prints JSON of how many were decoded, why the others were not, and what is wrong."""
    files = [mutated(seed) for seed in range(first, end)]
    contents, replaced, seeds = [], [], []
    for seed, (file, content) in enumerate(files, first):
        if seed % NEIGHBOURS == 0:
            contents, replaced, seeds = [*contents, file], [*replaced, file], [*seeds, None]
        contents, replaced, seeds = [*contents, content], [*replaced, file], [*seeds, seed]
    while len(contents) % BATCH:  # in another epoch other parts are shown, which may be sound or not
        contents, replaced, seeds = [*contents, file], [*replaced, file], [*seeds, None]
    as_stored = [number % 4 > 0 for number in range(len(contents))]
    labels = [number % CLASSES for number in range(len(contents))]
    result = {"decoded": {}, "left out": {}, "wrong": []}
    for pipeline in PIPELINES:
        left_out = {}
        images = Encoded(contents, labels, as_stored)
        got = through(images, pipeline, left_out)
        named = {int(name.split()[1]) for name in left_out}
        out = {number for number, weight in enumerate(got["weight"]) if not weight}
        # The strict pipeline takes all the others, as they are beside sound ones, and makes the same of them.
        mended = [replaced[i] if i in out else content for i, content in enumerate(contents)]
        same = through(Encoded(mended, labels, as_stored), pipeline)
        wrong = [] if named == out else [f"{sorted(named ^ out)} are named or left out alone"]
        for i, seed in enumerate(seeds):
            what = f"{pipeline}: {'a sound file' if seed is None else f'seed {seed}'}"
            if i in out and (seed is None or any(values[i].any() for values in got.values())):
                wrong.append(f"{what} is left out, or not as zeros")
            if i not in out and any(
                values[i].tobytes() != same[name][i].tobytes() for name, values in got.items()
            ):
                wrong.append(f"{what} is another than the strict pipeline makes")
            if not np.isfinite(got["pixels"][i]).all():
                wrong.append(f"{what} is not finite")
        result["wrong"] += wrong
        result["left out"][pipeline] = list(left_out.values())
        result["decoded"][pipeline] = sum(seed is not None and i not in out for i, seed in enumerate(seeds))
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if result["peak"] > MEMORY:
        result["wrong"].append(f"{result['peak']} bytes are taken")
    print(json.dumps(result))


def fuzz_in_processes(first, end):
    """What `fuzz` finds of seeds; a range whose process dies or hangs is halved until the seed is known."""
    limit = SECONDS + SECONDS_EACH * (end - first)
    command = [sys.executable, __file__, str(first), str(end)]
    try:
        process = subprocess.run(command, capture_output=True, env=QUIET, timeout=limit)
        if process.returncode == 0:
            return json.loads(process.stdout)
        crashed, death = process.returncode < 0, f"{process.returncode}: {process.stderr[-2000:]!r}"
    except subprocess.TimeoutExpired:
        crashed, death = True, f"no end after {limit:.0f} s"
    if end - first == 1 or not crashed:  # an exception says more than a seed would
        wrong = [f"seeds from {first}, before {end}, end in {death}"]
        return {"decoded": {}, "left out": {}, "peak": 0, "wrong": wrong}
    middle = (first + end) // 2
    halves = [fuzz_in_processes(first, middle), fuzz_in_processes(middle, end)]
    if not any(half["wrong"] for half in halves):
        halves[0]["wrong"].append(f"seeds {first} to {end} end in {death}, and not in two halves")
    return merged(halves)


def merged(results):
    """One result of several."""
    return {
        "decoded": {name: sum(each["decoded"].get(name, 0) for each in results) for name in PIPELINES},
        "left out": {
            name: [reason for each in results for reason in each["left out"].get(name, ())]
            for name in PIPELINES
        },
        "peak": max(each["peak"] for each in results),
        "wrong": [what for each in results for what in each["wrong"]],
    }


if __name__ == "__main__":
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    fuzz(int(sys.argv[1]), int(sys.argv[2]))
