"""What an evaluation leaves behind: results.json, a contact sheet of mistakes, a confusion matrix."""

from inception_tf import labels, record
from inception_tf.data.left_out import printable
from inception_tf.evaluation import pictures, results
from inception_tf.evaluation.look_up import look_up


def write(folder, images, places, true, probabilities, weights, names, networks, circumstances):
    """Writes results.json and the pictures.

    Args:
        folder: to write to.
        images: the `Images` that were evaluated.
        places: int [k], those that count, by their place in order.
        true: int32 [k], their classes.
        probabilities: for each network float32 [images, classes].
        weights: for each network a positive number.
        names: of the classes.
        networks: for each network a dict of what it is.
        circumstances: dict of what else is to stand in the results.

    Returns:
        the content of results.json.
    """
    classes = labels.classes(names)
    measured = results.measure(results.combined(probabilities, weights, places), true)
    singles = [results.errors(measured)]
    if len(networks) > 1:
        alone = (results.combined([each], [1], places) for each in probabilities)
        singles = [results.errors(results.measure(each, true)) for each in alone]
    worst = results.mistakes(measured, pictures.SHEET)
    found = look_up(images, places[worst])
    mistakes = [
        {
            "file": printable(name),
            **dict(zip(("true_class", "true"), classes[measured.labels[i]], strict=True)),
            **dict(zip(("predicted_class", "predicted"), classes[measured.predicted[i]], strict=True)),
            "confidence": float(measured.confidence[i]),
        }
        for i, (name, _) in zip(worst, found, strict=True)
    ]
    content = {
        **results.errors(measured),
        **circumstances,
        "networks": [
            {**network, "weight": weight / sum(weights), **errors}
            for network, weight, errors in zip(networks, weights, singles, strict=True)
        ],
        "per_class": results.per_class(measured, classes),
        "mistakes": mistakes,
    }
    record.write_json(folder / "results.json", content)
    if mistakes:
        entries = [
            {**mistake, "image": picture} for mistake, (_, picture) in zip(mistakes, found, strict=True)
        ]
        pictures.draw_mistakes(entries, folder / "mistakes.png")
    if len(names) <= pictures.READABLE:
        matrix = results.confusion(measured, len(names))
        pictures.draw_confusion(matrix, [name for _, name in classes], folder / "confusion.png")
    return content
