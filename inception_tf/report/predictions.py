"""What a run keeps, in predictions.json, of what its network says of single images that it held out."""

import base64
import collections
import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from inception_tf import labels
from inception_tf.data.left_out import printable
from inception_tf.evaluation import pictures, results
from inception_tf.evaluation.evaluator import Answers
from inception_tf.evaluation.look_up import look_up

EXAMPLES = 12  # pictures that stand for all
WORST = 10  # classes of the largest errors
LONGEST = 160  # pixels of a side of a picture that is kept
LOSSLESS = 64  # pixels of a side up to which it is a PNG


def summarize(images, class_names, answers):
    """What is kept of the answers to all held-out images, fit for JSON.

    Args:
        images: the `Images` that were evaluated.
        class_names: of the network's columns.
        answers: the `Answers` to all of them, in any order.

    Returns:
        dict of `confusion`, int [k][k], a row for a true class, or None for more classes than can be read;
        `worst_classes`, rows of `results.per_class`; `mistakes`, the most confident ones, and `examples`,
        taken at equal distances: of each the `file`, the name of the `true` class, the likeliest ones, `top`,
        as pairs of a name and a probability, and the `picture` as a data URI of at most 160 pixels a side.
    """
    order = np.argsort(answers.places)
    answers = Answers(*(each[order] for each in answers))
    measured = results.Measured(
        answers.ranks, answers.classes[:, 0], answers.probabilities[:, 0], answers.labels
    )
    names = displayed(class_names)
    classes = [(wnid, name) for (wnid, _), name in zip(labels.classes(class_names), names, strict=True)]
    known = [each for each in results.per_class(measured, classes) if each["top1_error"]]
    known.sort(key=lambda each: (-each["top1_error"], -each["top5_error"]))
    worst = results.mistakes(measured, pictures.SHEET)
    count = len(order)
    evenly = np.unique(np.linspace(0, count - 1, min(EXAMPLES, count)).round().astype(int)).tolist()
    found = look_up(images, answers.places[[*worst, *evenly]].tolist())
    entries = [
        {
            "file": printable(name),
            "true": names[answers.labels[i]],
            "top": [
                [names[column], float(probability)]
                for column, probability in zip(answers.classes[i], answers.probabilities[i], strict=True)
            ],
            "picture": _encoded(picture),
        }
        for i, (name, picture) in zip((*worst, *evenly), found, strict=True)
    ]
    is_readable = len(names) <= pictures.READABLE
    return {
        "confusion": results.confusion(measured, len(names)).tolist() if is_readable else None,
        "worst_classes": known[:WORST],
        "mistakes": entries[: len(worst)],
        "examples": entries[len(worst) :],
    }


def displayed(class_names):
    """What to call each class: its name, with the wnid where two have the same name."""
    classes = labels.classes(class_names)
    counts = collections.Counter(name for _, name in classes)
    return [name if counts[name] == 1 else f"{name} ({wnid})" for wnid, name in classes]


def decoded(picture):
    """A picture of `summarize`, as `PIL.Image`.

    Raises:
        ValueError: it is none.
    """
    kind, _, content = picture.partition(",")
    if kind not in ("data:image/png;base64", "data:image/jpeg;base64"):
        raise ValueError("a picture is no data URI")
    try:
        return Image.open(io.BytesIO(base64.b64decode(content)))
    except UnidentifiedImageError as error:
        raise ValueError("a picture cannot be read") from error


def _encoded(pixels):
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST, LONGEST))
    kind = "png" if max(picture.size) <= LOSSLESS else "jpeg"
    file = io.BytesIO()
    picture.save(file, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
