"""A SavedModel under fire: fuzzed requests among good ones, from several threads.

    python benchmarks/serving_soak.py

Exports a small network, and has a bare process, with TensorFlow and NumPy alone, load it and answer from 8
threads 200,000 good requests of one to three pictures to all signatures, with 10,000 fuzzed ones among them:
files that are damaged, empty, none, or say that they are huge, NaN, wrong shapes; most of them with good
pictures beside the bad one.

What is wrong, so that this fails: the process dies. A good request gets an error, or an answer that is not
the one that a single thread got before (by more than 1e-5), which in turn is that of the Keras model for the
picture as `pictures.decode` reads it (within 1e-4). A fuzzed request gets neither finite probabilities nor an
`InvalidArgumentError`, or is answered where its header alone tells that it is no picture, or is refused
without the position of the bad picture, or is refused though only its EXIF is damaged. The memory (RSS) of
the last quarter of the time is in the mean 20 MB, or 5 %, above that of the second.

The last line is JSON. Takes six minutes on two cores.
"""

import argparse
import collections
import faulthandler
import itertools
import json
import pickle
import random
import re
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

SIZE = 75
CLASSES = 10
MAX_PIXELS = 1_000_000
AGAIN, KERAS = 1e-5, 1e-4  # how far an answer may be from what a single thread got; from Keras
GROWTH, SHARE = 20 * 2**20, 0.05  # of memory, whichever is more
SAMPLED = 0.1  # seconds between two looks at the memory
LISTED = 20
MATERIAL, IN_FLIGHT, STDERR = "material.pickle", "in_flight", "stderr"
ANSWERED = "answered"  # what must become of a fuzzed request; or else what the error must say; None: either
PNG = b"\x89PNG\r\n\x1a\n"

# The network


def network():
    """A small network, its weights drawn so that it tells the pictures apart, and its card."""
    import keras

    from inception_tf import weights

    layers = keras.layers
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(8, 5, strides=8, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(layers.Activation("relu")(x))
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x), name="small")
    generator = np.random.default_rng(1)
    for variable in model.variables:
        low, high = (0.5, 1.5) if "variance" in variable.path else (-0.5, 0.5)
        variable.assign(generator.uniform(low, high, variable.shape))
    names = tuple(f"class {number}" for number in range(CLASSES))
    how = weights.Preprocessing("inception", "bicubic", 0.9, "square")
    return model, weights.Card("small", SIZE, names, how)


# Good pictures


def sound_files():
    """JPEG and PNG files of many kinds and sizes: a list of bytes."""
    from fuzz_images import encoded, scene, turned
    from PIL import Image

    sides = [(40, 30), (75, 75), (100, 160), (240, 180), (64, 64), (200, 20), (9, 90), (131, 97)]
    files = []
    for number, (width, height) in enumerate(sides):
        pictures = (scene(12 * number + i, width, height) for i in range(12))
        files += [
            encoded(next(pictures), exif=turned(number + 1)),
            encoded(next(pictures), progressive=True),
            encoded(next(pictures).convert("L"), quality=95),
            encoded(next(pictures), restart_marker_rows=1, subsampling=0, icc_profile=bytes(500)),
            encoded(next(pictures), "PNG"),
            encoded(next(pictures), "PNG", exif=turned(number + 1)),
            encoded(next(pictures).convert("L"), "PNG"),
            encoded(next(pictures).quantize(30), "PNG", transparency=number),
            encoded(next(pictures).quantize(12), "PNG"),
            encoded(next(pictures).convert("1"), "PNG"),
        ]
        translucent, grey = next(pictures), np.asarray(next(pictures).convert("L"))
        translucent.putalpha(Image.fromarray(grey))
        files += [encoded(translucent, "PNG"), encoded(Image.fromarray(grey * np.uint16(257)), "PNG")]
    return files


def good_pictures(model, card):
    """What good requests are made of, and what the Keras model says of each picture.

    Returns:
        dict from a form, `encoded`, `pixels` or `tensors`, to groups of pictures that may be in one request,
        each a list of dicts of `image`, `probabilities` and `features`.
    """
    import keras
    from fuzz_images import scene

    from inception_tf.data import pictures
    from inception_tf.data.preprocessing import evaluation_image

    pool = next(layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    both = keras.Model(model.input, [model.output, pool.output])

    def picture(image, tensor):
        answer, features = (np.asarray(each)[0] for each in both(tensor[None], training=False))
        return {"image": image, "probabilities": answer, "features": features}

    def shown(pixels):
        return np.asarray(evaluation_image(pixels, card.size, card.preprocessing))

    files = [picture(file, shown(pictures.decode(file))) for file in sound_files()]
    sides = [(80, 60), (75, 75), (30, 120)]
    groups = [[np.asarray(scene(100 * i + j, *each)) for j in range(8)] for i, each in enumerate(sides)]
    tensors = [shown(pixels) for group in groups for pixels in group]
    return {
        "encoded": [files],
        "pixels": [[picture(pixels, shown(pixels)) for pixels in group] for group in groups],
        "tensors": [[picture(tensor, tensor) for tensor in tensors]],
    }


# Fuzzed requests


def chunked(content, generator):
    """A PNG file, one of whose chunks is changed, with the right checksum, or moved, doubled, or new."""
    from fuzz_images import chunk

    chunks, place = [], len(PNG)
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    i = generator.randrange(len(chunks))
    kind, body = chunks[i]
    what = generator.randrange(5)
    if what == 0 and body:
        body = bytearray(body)
        body[generator.randrange(min(len(body), 20))] = generator.randrange(256)
        chunks[i] = kind, bytes(body)
    elif what == 1:
        chunks[i] = kind, generator.randbytes(generator.choice((0, 1, len(body), len(body) + 1, 4000)))
    elif what == 2:
        chunks.insert(generator.randrange(len(chunks) + 1), chunks.pop(i))
    elif what == 3:
        chunks.insert(i, chunks[i])
    else:
        new = generator.choice((b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"sPLT", b"eXIf", b"acTL"))
        new = generator.choice((new, generator.randbytes(4)))
        more = generator.randbytes(generator.choice((0, 1, 4, 256, 768, 70_000)))
        chunks.insert(generator.randrange(1, len(chunks) + 1), (new, more))
    return PNG + b"".join(chunk(*each) for each in chunks)


def resized_png(content, generator):
    """A PNG file whose header says that it is huge, or nothing; and what the error must say."""
    from fuzz_images import chunk

    sides = (0, 1, 1_000_001, 2**31 - 1, 2**31, 2**32 - 1)
    width, height = generator.choice([(a, b) for a in sides for b in sides if not 4 <= a * b <= MAX_PIXELS])
    head = chunk(b"IHDR", struct.pack(">II", width, height) + content[24:29])
    return PNG + head + content[33:], f"[{width}] [x] [{height}] [pixels"


def resized_jpeg(content, generator):
    """A JPEG file whose header says that it is huge, of up to the 65,500 that libjpeg reads."""
    from fuzz_images import FRAME, segments

    width, height = generator.choice([(65_500, 65_500), (20_000, 60_000), (16, 65_500), (1001, 1000), (1, 1)])
    (start,) = (start for marker, start, _ in segments(content) if marker in FRAME)
    content = bytearray(content)
    struct.pack_into(">HH", content, start + 5, height, width)
    return bytes(content), f"[{width}] [x] [{height}] [pixels"


def with_exif(content, generator):
    """A JPEG file with EXIF that says where things are that are not there, or is garbage, or cut off."""
    from fuzz_images import turned

    exif = bytearray(turned(generator.randrange(1, 9)).tobytes())
    what = generator.randrange(4)
    if what == 0:
        del exif[generator.randrange(6, len(exif)) :]
    elif what == 1:
        exif[6:] = generator.randbytes(generator.choice((0, 1, 8, 400, 60_000)))
    elif what == 2:
        struct.pack_into(">I", exif, 10, generator.choice((0, 9, 2**15, 2**31, 2**32 - 1)))
    else:
        for _ in range(generator.choice((1, 4))):
            exif[generator.randrange(6, len(exif))] = generator.randrange(256)
    return content[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 2) + bytes(exif) + content[2:]


def not_a_picture(generator):
    from fuzz_images import encoded, scene

    kind = generator.choice(("GIF", "BMP", "WEBP", "TIFF", "text", "head"))
    if kind == "text":
        return b"<html>" + bytes(generator.randrange(100))
    if kind == "head":
        head = bytearray(encoded(scene(1), generator.choice(("PNG", "JPEG"))))
        head[generator.randrange(3)] ^= 1 << generator.randrange(8)
        return bytes(head)
    return encoded(scene(generator.randrange(9)), kind)


def fuzzed_file(files, generator):
    """A bad file: (kind, bytes, what must become of it); {} stands for its position."""
    from fuzz_images import MUTATIONS, mutate

    jpeg = generator.choice([file for file in files if not file.startswith(PNG)])
    png = generator.choice([file for file in files if file.startswith(PNG)])
    kinds = {"bytes of a JPEG": 4, "bytes of a PNG": 3, "a chunk": 3}
    kinds |= dict.fromkeys(("cut off", "size of a PNG", "size of a JPEG", "EXIF", "no picture"), 2)
    kinds |= dict.fromkeys(("empty", "random bytes", "first bytes alone"), 1)
    kind = generator.choices(list(kinds), kinds.values())[0]
    if kind == "bytes of a JPEG":
        return kind, mutate(jpeg, generator), None
    if kind == "bytes of a PNG":
        content = bytearray(png)
        generator.choice(MUTATIONS[:6])(content, generator)  # those of any file
        return kind, bytes(content), None
    if kind == "a chunk":
        return kind, chunked(png, generator), None
    if kind == "cut off":
        file = generator.choice((jpeg, png))
        return kind, file[: generator.randrange(24, len(file))], None
    if kind == "size of a PNG":
        content, wrong = resized_png(png, generator)
        return kind, content, f"images at] [{{}}] [are] {wrong}"
    if kind == "size of a JPEG":
        content, wrong = resized_jpeg(jpeg, generator)
        return kind, content, f"images at] [{{}}] [are] {wrong}"
    if kind == "EXIF":
        return kind, with_exif(jpeg, generator), ANSWERED
    if kind == "empty":
        return kind, b"", "images at] [{}] [are empty"
    if kind == "first bytes alone":
        return kind, generator.choice((PNG, jpeg[:3] + generator.randbytes(generator.randrange(99)))), None
    if kind == "random bytes":
        content = b"\0" + generator.randbytes(generator.randrange(2000))
        return kind, content, "images at] [{}] [are neither JPEG nor PNG"
    return kind, not_a_picture(generator), "images at] [{}] [are neither JPEG nor PNG"


def objects(files):
    """Strings as an array, which leaves the zeros at their ends."""
    array = np.empty(len(files), object)
    array[:] = files
    return array


def fuzzed_files(good, generator):
    """A request of files, some of which are bad."""
    files = [picture["image"] for picture in good["encoded"][0]]
    given = objects([generator.choice(files) for _ in range(generator.randint(1, 3))])
    bad = generator.sample(range(len(given)), generator.choice((1, 1, 1, len(given))))
    for position in bad:
        kind, given[position], must = fuzzed_file(files, generator)
    if len(bad) > 1:
        return "several files", given, None
    return kind, given, must and must.format(position)


def fuzzed_pixels(good, generator):
    """A request of pixels with another shape."""
    count, height, width = (generator.randint(1, 3) for _ in range(3))
    shapes = {
        "pixels: too few": ((count, 1, min(width, 3), 3), "too small"),
        "pixels: none": (generator.choice(((0, 9, 9, 3), (count, 0, 9, 3), (count, 9, 0, 3))), "none"),
        "pixels: channels": ((count, 9, 9, generator.choice((0, 1, 2, 4))), "shape|Shape"),
        "pixels: rank": (generator.choice(((), (9,), (9, 9, 3), (1, 1, 9, 9, 3))), "shape|Shape"),
    }
    kind = generator.choice(list(shapes))
    shape, must = shapes[kind]
    return kind, np.full(shape, 100, np.uint8), must


def fuzzed_tensors(good, generator):
    """A request of tensors with a value that is none of a picture's, or of another shape."""
    tensors = [picture["image"] for picture in good["tensors"][0]]
    given = np.stack([generator.choice(tensors) for _ in range(generator.randint(1, 3))])
    kind = generator.choice(("value", "value", "not scaled", "shape"))
    position = generator.randrange(len(given))
    if kind == "shape":
        shapes = ((), (9,), given.shape[1:], (1, SIZE, SIZE, 1), (1, SIZE + 1, SIZE, 3), (0, SIZE, SIZE, 3))
        return f"tensors: {kind}", np.zeros(generator.choice(shapes), np.float32), "shape|Shape|none"
    if kind == "not scaled":
        given[position] = (given[position] + 1) * 127.5
    else:
        place = tuple(generator.randrange(side) for side in given.shape[1:])
        given[position][place] = generator.choice((np.nan, np.inf, -np.inf, 1.01, -1.01, 1e38))
    return f"tensors: {kind}", given, f"images at] [{position}] [are NaN or not scaled"


def fuzzed_request(good, generator):
    """dict of `kind`, `signature`, `images` and `must`."""
    signature, make = generator.choices(
        (
            ("serving_default", fuzzed_files),
            ("features", fuzzed_files),
            ("pixels", fuzzed_pixels),
            ("tensors", fuzzed_tensors),
        ),
        (5, 3, 1, 1),
    )[0]
    kind, images, must = make(good, generator)
    if must not in (None, ANSWERED) and "|" not in must:
        must = re.escape(must)
    return {"kind": kind, "signature": signature, "images": images, "must": must}


# The bare process


class Soak:
    """The requests, and what becomes of them.

    Attributes:
        wrong: sentences, the first `LISTED`, of which one is enough to fail.
        wrong_count: how many there were.
        outcomes: how many fuzzed requests of a kind were answered or refused.
    """

    def __init__(self, folder, good, fuzzed, seed, in_flight):
        import tensorflow as tf

        self._tf = tf
        self._signatures = tf.saved_model.load(str(folder / "network")).signatures
        material = pickle.loads((folder / MATERIAL).read_bytes())
        self._good, self._fuzzed = material["good"], material["fuzzed"]
        self._total, self._seed = good + fuzzed, seed
        places = random.Random(seed).sample(range(self._total), fuzzed)
        self._places = {place: number for number, place in enumerate(places)}
        self._in_flight = in_flight
        self._next = itertools.count()
        self._lock = threading.Lock()
        self.wrong, self.wrong_count = [], 0
        self.outcomes = collections.Counter()

    def alone(self):
        """Asks for each good picture by itself: what is said of it is expected from then on.

        Returns:
            the largest difference from Keras.
        """
        largest = 0.0
        for form, groups in self._good.items():
            for number, picture in enumerate(itertools.chain(*groups)):
                signatures = ("serving_default", "features") if form == "encoded" else (form,)
                given = objects([picture["image"]]) if form == "encoded" else picture["image"][None]
                for signature in signatures:
                    output = "features" if signature == "features" else "probabilities"
                    answer = self._ask(signature, given)[output][0]
                    difference = _difference(answer, picture[output])
                    if not difference <= KERAS:
                        self.note(f"{form} {number}: {output} differ from Keras by {difference:.1e}")
                    largest = max(largest, difference)
                    picture[output] = answer
        return largest

    def work(self, thread):
        """Sends requests until there are none left."""
        while (number := next(self._next)) < self._total:
            self._in_flight[thread] = number
            try:
                if number in self._places:
                    self._send_fuzzed(number)
                else:
                    self._send_good(number)
            except Exception as error:
                self.note(f"request {number}: {type(error).__name__}: {str(error)[:300]}")
        self._in_flight[thread] = -1

    def note(self, what):
        with self._lock:
            self.wrong_count += 1
            if len(self.wrong) < LISTED:
                self.wrong.append(what)

    def _ask(self, signature, images):
        answer = self._signatures[signature](images=self._tf.constant(images))
        return {name: value.numpy() for name, value in answer.items()}

    def _send_good(self, number):
        generator = random.Random(f"{self._seed} {number}")
        signature = generator.choice(("serving_default", "pixels", "tensors", "features"))
        form = signature if signature in self._good else "encoded"
        pictures = generator.choices(generator.choice(self._good[form]), k=generator.randint(1, 3))
        images = [picture["image"] for picture in pictures]
        answer = self._ask(signature, objects(images) if form == "encoded" else np.stack(images))
        output = "features" if signature == "features" else "probabilities"
        difference = max(
            _difference(got, picture[output]) for got, picture in zip(answer[output], pictures, strict=True)
        )
        if not difference <= AGAIN:
            self.note(f"good request {number} to {signature}: the answer differs by {difference:.1e}")
        if signature != "features":
            self._check_top(number, answer)

    def _check_top(self, number, answer):
        """That the likeliest classes are those of the probabilities."""
        classes, values = answer["top_classes"], answer["top_probabilities"]
        if not (
            np.array_equal(np.take_along_axis(answer["probabilities"], classes, 1), values)
            and np.array_equal(values, -np.sort(-answer["probabilities"])[:, : values.shape[1]])
            and np.array_equal(answer["top_names"], objects([b"class %d" % i for i in range(10)])[classes])
        ):
            self.note(f"good request {number}: the likeliest classes are not those of the probabilities")

    def _send_fuzzed(self, number):
        request = self._fuzzed[self._places[number]]
        what = f"fuzzed request {number} ({request['kind']}) to {request['signature']}"
        must = request["must"]
        try:
            answer = self._ask(request["signature"], request["images"])
        except self._tf.errors.InvalidArgumentError as error:
            outcome = "refused"
            if must == ANSWERED or (must and not re.search(must, error.message)):
                self.note(f"{what} is refused, not {must}: {error.message[:300]}")
        else:
            outcome = "answered"
            values = answer.get("probabilities", answer.get("features"))
            sums = np.allclose(values.sum(-1), 1) or "features" in answer
            if not (len(values) == len(request["images"]) and np.isfinite(values).all() and sums):
                self.note(f"{what} is answered by {values.tolist()}")
            if must not in (None, ANSWERED):
                self.note(f"{what} is answered")
        with self._lock:
            self.outcomes[request["kind"], outcome] += 1


def _difference(answer, expected):
    return float(np.abs(answer - expected).max() / max(1, np.abs(expected).max()))


def resident():
    """Bytes of memory that the process takes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def serve(folder, good, fuzzed, threads, seed):
    """The bare process: prints the results as JSON."""
    faulthandler.enable()
    in_flight = np.memmap(folder / IN_FLIGHT, np.int64, "w+", shape=(threads,))
    soak = Soak(folder, good, fuzzed, seed, in_flight)
    from_keras = soak.alone()
    workers = [threading.Thread(target=soak.work, args=(thread,)) for thread in range(threads)]
    began, samples = time.monotonic(), []
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        time.sleep(SAMPLED)
        samples.append(resident())
    seconds = time.monotonic() - began
    outcomes = collections.defaultdict(dict)
    for (kind, outcome), count in sorted(soak.outcomes.items()):
        outcomes[kind][outcome] = count
    results = {
        "seconds": seconds,
        "requests_a_second": (good + fuzzed) / seconds,
        "from_keras": from_keras,
        "outcomes": outcomes,
        "wrong_count": soak.wrong_count,
        "wrong": soak.wrong,
        "memory": [float(np.mean(quarter)) for quarter in np.array_split(samples, 4)],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(results))


# The parent


def soak(folder, good, fuzzed, threads=8, seed=0):
    """Exports the network and has the bare process answer.

    Returns:
        its results, a dict; `wrong` has what is wrong, sentences, up to `LISTED`.
    """
    prepare(folder, fuzzed, seed)
    numbers = [str(number) for number in (good, fuzzed, threads, seed)]
    # -P keeps this folder's files away from the child.
    command = [sys.executable, "-P", Path(__file__), "--bare", folder, *numbers]
    with open(folder / STDERR, "w+") as stderr:  # where libjpeg, too, says what it thinks of a file
        process = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    if process.returncode:
        at = np.fromfile(folder / IN_FLIGHT, np.int64).tolist() if (folder / IN_FLIGHT).exists() else []
        said = (folder / STDERR).read_text(errors="replace")[-3000:]
        ended = f"the process ended with {process.returncode} in requests {at}:\n{said}"
        return {"wrong_count": 1, "wrong": [ended]}
    results = json.loads(process.stdout.splitlines()[-1])
    _, second, _, last = results["memory"]
    if last - second > max(GROWTH, SHARE * second):
        results["wrong_count"] += 1
        results["wrong"].append(f"the memory grew from {second / 2**20:.0f} to {last / 2**20:.0f} MB")
    return results


def prepare(folder, fuzzed, seed):
    """Writes the network and the material of the requests into a folder."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))  # for fuzz_images
    from inception_tf.export import export

    model, card = network()
    export(model, card, folder / "network", dtype="float32", max_pixels=MAX_PIXELS)
    good = good_pictures(model, card)
    requests = [fuzzed_request(good, random.Random(f"{seed} fuzzed {i}")) for i in range(fuzzed)]
    (folder / MATERIAL).write_bytes(pickle.dumps({"good": good, "fuzzed": requests}))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--good", type=int, default=200_000)
    parser.add_argument("--fuzzed", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="to keep the network and the requests in; must be new")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary, "soak")
        folder.mkdir()
        results = soak(folder, arguments.good, arguments.fuzzed, arguments.threads, arguments.seed)
    if "memory" in results:
        print(f"{arguments.good} good and {arguments.fuzzed} fuzzed requests, {arguments.threads} threads:")
        print("{seconds:.0f} s, {requests_a_second:.0f} requests a second".format(**results))
        print("from Keras {from_keras:.1e}".format(**results))
        quarters = ", ".join(f"{each / 2**20:.1f}" for each in results["memory"])
        print(f"MB in the four quarters: {quarters}; at most {results['peak'] / 2**20:.1f}")
        print(f"{'fuzzed':20}{'answered':>10}{'refused':>10}")
        for kind, counts in results["outcomes"].items():
            print(f"{kind:20}{counts.get('answered', 0):10}{counts.get('refused', 0):10}")
    print(f"wrong: {results['wrong_count']}")
    for what in results["wrong"]:
        print(f"  {what}")
    print(json.dumps(results))
    sys.exit(1 if results["wrong_count"] else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        sys.modules["keras"] = sys.modules["inception_tf"] = None  # importing either is an error from here on
        serve(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    else:
        main()
