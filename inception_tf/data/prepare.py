"""Pictures to TFRecord shards in slim's layout of ImageNet, restartable and the same bytes every time."""

import collections
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import threading
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from inception_tf.data import folders, ilsvrc, records
from inception_tf.errors import UserError, listed
from inception_tf.files import lock, written_beside

SEED = 12345  # of the shuffle, slim's
SHARDS = {"train": 1024, "validation": 128}  # slim's, for the whole of ImageNet
PICTURES_PER_SHARD = {"train": 1000, "validation": 300}  # at least, where there are fewer pictures
JOURNAL = ".prepare.jsonl"


def prepare(
    source,
    destination,
    *,
    train_shards=None,
    validation_shards=None,
    workers=None,
    held_out=0.1,
    allow_corrupt=0,
    boxes=None,
):
    """Writes the pictures of the two ILSVRC tars, or of class folders, as TFRecord shards.

    The destination gets `train-00000-of-01024` and so on, `validation-00000-of-00128` and so on, `labels.txt`
    and in the end `dataset.json`: the shards with their examples, bytes and sha256, the names of the classes,
    and what was odd. The files are the same to the last byte for the same source and flags, whatever the
    number of workers, and however often the work was interrupted: the same call goes on with it. Shards that
    are there are kept if their sha256 is the one written down when they were made.

    ILSVRC's labels begin at 1, as slim's do, those of folders at 0. The pictures are shuffled with slim's
    seed. Every one is decoded. JPEG files keep their bytes, but for CMYK and PNG, which are encoded anew as
    RGB. In folders so are pictures that the camera says to turn or that are transparent, upright and on
    white, so that a reader needs a JPEG decoder only. In ILSVRC, as in slim, what the camera says is left
    alone.

    Args:
        source: a folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or one of them; or a folder
            of class folders; or one of `train` and `val` that hold class folders.
        destination: a new or empty folder, or one that this function has written to. A local one: tar files
            and shards are read and written in place.
        train_shards: by default 1024, fewer for less than a million pictures.
        validation_shards: by default 128, fewer for less than 38,400 pictures.
        workers: threads; by default one for each CPU core.
        held_out: share of each class of a folder without `val` that is for validation.
        allow_corrupt: how many pictures that cannot be decoded may be left out.
        boxes: a folder or a tar of ILSVRC's annotations of bounding boxes.

    Returns:
        the content of dataset.json.

    Raises:
        UserError: an argument is wrong, the source is damaged, the destination is another's or full.
    """
    destination = Path(destination)
    _check(destination, train_shards, validation_shards, workers, held_out, allow_corrupt)
    found, box_counts = _find(Path(source), destination, held_out, boxes)
    shards = _plan(found, {"train": train_shards, "validation": validation_shards})
    made_from = {
        "shards": dict(collections.Counter(shard.split("-")[0] for shard in shards)),
        "source": _fingerprint(found),
    }
    workers = workers or os.cpu_count()
    try:
        with _locked(destination):
            done = _finished(destination, made_from, shards, workers)
            _write(destination, shards, found, done, workers)
            dataset = _dataset(found, shards, done, box_counts)
            _check_left_out(source, dataset["odd"]["left_out"], allow_corrupt)
            _finish(destination, dataset)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", error)
        raise UserError(
            f"{destination} cannot be written ({reason}): see to its room and rights, then give the same "
            "command again, which goes on."
        ) from error
    _report(destination, dataset)
    return dataset


def _check(destination, train_shards, validation_shards, workers, held_out, allow_corrupt):
    for flag, value in (
        ("--train-shards", train_shards),
        ("--validation-shards", validation_shards),
        ("--workers", workers),
    ):
        if value is not None and not 1 <= value <= 99_999:
            raise UserError(f"{flag} {value} is out of range: give 1 to 99999.")
    if not 0 < held_out < 1:
        raise UserError(f"--held-out {held_out} must be a share between 0 and 1.")
    if allow_corrupt < 0:
        raise UserError(f"--allow-corrupt {allow_corrupt} is too small: give 0 or more.")
    if re.match(r"\w+:/", str(destination)):
        raise UserError(
            f"{destination} is not on this machine: give a local folder, and copy it there later."
        )
    if destination.is_dir():
        names = [path.name for path in destination.iterdir() if not _is_half(path.name)]
        if names and JOURNAL not in names:
            raise UserError(f"{destination} holds other files, such as {min(names)}: give a new folder.")
    elif destination.exists():
        raise UserError(f"{destination} is not a folder: give a new one.")


def _find(source, destination, held_out, boxes):
    """(`Source`, counts of boxes or None)."""
    if not source.is_dir():
        raise UserError(
            f"{source} is not a folder: give one with {' and '.join(ilsvrc.TARS.values())}, or of class "
            "folders."
        )
    if any(Path(source, name).is_file() for name in ilsvrc.TARS.values()):
        found = ilsvrc.find(source)
    elif destination.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{destination} lies in the folder of the pictures, {source}: give one beside it.")
    else:
        found = _find_folders(source, held_out)
    if boxes is None:
        return found, None
    if found.upright:
        raise UserError(
            f"--boxes {boxes} is for ILSVRC's tars: leave it out for the class folders of {source}."
        )
    found_boxes, counts = ilsvrc.find_boxes(boxes, found)
    return replace(found, boxes=found_boxes), counts


def _find_folders(root, held_out):
    try:
        found = folders.find(root)
    except UserError as error:
        raise UserError(str(error).removeprefix("--data ")) from error
    if "all" in found:
        print(f"{root} has no val: {held_out:.0%} of each class are for validation.")
        parts = {name: folders.hold_out(paths, held_out) for name, paths in found["all"].items()}
        found = {
            part: {name: parts[name][i] for name in parts} for i, part in enumerate(("train", "held_out"))
        }
    classes = found["train"]
    labels = {name: label for label, name in enumerate(classes)}
    parts = {"train": _pictures(root, classes, labels)}
    if validation := _pictures(root, found["held_out"], labels):
        parts["validation"] = validation
    words = dict(zip(ilsvrc.wnids(), ilsvrc.texts(), strict=True))
    texts = tuple(words.get(name, name) for name in classes)
    return records.Source(parts, tuple(classes), texts, first_label=0, upright=True)


def _pictures(root, classes, labels):
    try:
        return [
            records.Picture(path, labels[name], str(root / path), 0, os.path.getsize(root / path))
            for name, paths in classes.items()
            for path in paths
        ]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}; mend or remove it.") from error


def _plan(source, wanted):
    """Dict from each shard's name to its `Picture`s: shuffled, and spread evenly, to one more or less."""
    plan = {}
    for part, pictures in source.parts.items():
        pictures = sorted(pictures)
        random.Random(SEED).shuffle(pictures)
        count = wanted[part] or min(SHARDS[part], -(-len(pictures) // PICTURES_PER_SHARD[part]))
        if count > len(pictures):
            raise UserError(f"--{part}-shards {count} is too many for {len(pictures)} pictures: give fewer.")
        bounds = [i * len(pictures) // count for i in range(count + 1)]
        for i in range(count):
            plan[f"{part}-{i:05}-of-{count:05}"] = pictures[bounds[i] : bounds[i + 1]]
    return plan


def _fingerprint(source):
    """Changes with the names, labels, places and sizes of pictures, their times in folders, and the boxes."""
    digest = hashlib.sha256(repr((source.class_names, source.first_label)).encode("utf-8", "surrogateescape"))
    for part, pictures in source.parts.items():
        for name, label, file, offset, size in pictures:
            time = os.stat(file).st_mtime_ns if source.upright else None
            boxes = source.boxes.get(name) if source.boxes else None
            boxes = None if boxes is None else boxes.tolist()
            line = repr((part, name, label, offset, size, time, boxes))
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest() if source.boxes is None else f"{digest.hexdigest()} with boxes"


@contextlib.contextmanager
def _locked(destination):
    """Makes the destination, keeps other processes out, and removes what a killed one left half written."""
    destination.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(destination, os.O_RDONLY)
    try:
        if not lock(descriptor):
            raise UserError(f"{destination} is being written to by another process: wait for it.")
        for path in destination.iterdir():
            if _is_half(path.name):
                shutil.rmtree(path)
        yield
    finally:
        os.close(descriptor)


def _is_half(name):
    """Whether `written_beside` has made the folder of that name for one of our files."""
    return re.fullmatch(
        rf"\.((train|validation)-\d+-of-\d+|labels\.txt|dataset\.json|{re.escape(JOURNAL)})\.\w+", name
    )


def _finished(destination, made_from, shards, workers):
    """Dict from the shards that are there, whole, to what the journal says of them; begins the journal anew.

    The journal's first line says what the shards are made from; each other line is the record of one.
    """
    journal = destination / JOURNAL
    found = {}
    if journal.exists():
        first, *lines = journal.read_text().split("\n")
        if first != json.dumps(made_from):
            raise UserError(
                f"{destination} was made from another source, or with other --boxes or shards: give these "
                "again, or another folder."
            )
        for line in lines:
            with contextlib.suppress(ValueError):  # the last one may be cut off
                record = json.loads(line)
                found[record.pop("file")] = record

    def is_whole(shard):
        path = destination / shard
        is_there = path.is_file() and path.stat().st_size == found[shard]["bytes"]
        return is_there and records.checksum(path)["sha256"] == found[shard]["sha256"]

    with records.threads(workers) as pool:
        names = [shard for shard in shards if shard in found]
        checked = tqdm(pool.map(is_whole, names), "Verifying", len(names), unit=" shards", disable=not names)
        done = {shard: found[shard] for shard, whole in zip(names, checked, strict=True) if whole}
    with written_beside(journal) as beside:
        lines = [made_from, *({"file": shard, **record} for shard, record in done.items())]
        beside.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return done


def _write(destination, shards, source, done, workers):
    """Writes the shards that are not in `done`, and their records to it and to the journal."""
    stop = threading.Event()
    total = sum(map(len, shards.values()))
    begun = sum(len(shards[shard]) for shard in done)
    with (
        tqdm(desc="Writing", total=total, initial=begun, unit=" pictures") as bar,
        open(destination / JOURNAL, "a") as journal,
        records.threads(workers) as pool,
    ):

        def write(shard):
            def goes_on():
                bar.update()
                return not stop.is_set()

            with written_beside(destination / shard) as beside:
                return shard, records.write_shard(beside, shards[shard], source, goes_on)

        futures = [pool.submit(write, shard) for shard in shards if shard not in done]
        try:
            for future in as_completed(futures):
                shard, record = future.result()
                done[shard] = record
                journal.write(json.dumps({"file": shard, **record}) + "\n")
                journal.flush()
        except BaseException:  # Ctrl-C too
            stop.set()
            raise


def _dataset(source, shards, done, box_counts):
    """The content of dataset.json."""
    parts = {part: [] for part in source.parts}
    odd = {name: [] for name in ("cmyk", "png", *(("turned", "transparent") if source.upright else ()))}
    left_out = {}
    for shard in shards:
        record = done[shard]
        entry = {key: record[key] for key in ("examples", "bytes", "sha256")}
        parts[shard.split("-")[0]].append({"file": shard, **entry})
        for name, pictures in record["odd"].items():
            odd[name] += pictures
        left_out |= record["left_out"]
    odd = {name: sorted(pictures) for name, pictures in odd.items()}
    odd["left_out"] = dict(sorted(left_out.items()))
    if box_counts is not None:
        odd["boxes"] = box_counts
    return {
        "parts": parts,
        "examples": {part: sum(entry["examples"] for entry in entries) for part, entries in parts.items()},
        "class_names": list(source.class_names),
        "first_label": source.first_label,
        "odd": odd,
    }


def _check_left_out(source, left_out, allow_corrupt):
    named = [f"{name} ({reason})" for name, reason in left_out.items()]
    named = [name.encode("utf-8", "backslashreplace").decode() for name in named]
    if len(named) > allow_corrupt:
        raise UserError(
            f"{len(named)} pictures of {source} cannot be decoded: {listed(named)}; leave them out by the "
            f"same command with --allow-corrupt {len(named)}, or mend them and give another folder."
        )
    if named:
        print(f"{len(named)} pictures cannot be decoded and are left out: {listed(named)}.")


def _finish(destination, dataset):
    names = ["background"] * dataset["first_label"] + dataset["class_names"]
    with written_beside(destination / "labels.txt") as beside:
        text = "".join(f"{index}:{name}\n" for index, name in enumerate(names))
        beside.write_text(text, encoding="utf-8")
    with written_beside(destination / "dataset.json") as beside:
        beside.write_text(json.dumps(dataset, indent=1) + "\n")


def _report(destination, dataset):
    for part, entries in dataset["parts"].items():
        count = dataset["examples"][part]
        size = sum(entry["bytes"] for entry in entries)
        print(
            f"{destination}: {count:,} pictures for {part} in {len(entries)} files of {size:,} bytes in all."
        )
    anew = [
        f"{len(names)} {kind}" for kind, names in dataset["odd"].items() if isinstance(names, list) and names
    ]
    if anew:
        print(f"Encoded anew: {', '.join(anew)}; dataset.json names them.")
    if boxes := dataset["odd"].get("boxes"):
        print(f"Boxes: {', '.join(f'{count:,} {what}' for what, count in boxes.items())}.")
