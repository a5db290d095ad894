"""From probabilities to errors: against definitions solved or counted another way."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from inception_tf.evaluation import results, tables


def softmax(random, images, classes):
    scores = np.exp(random.normal(size=(images, classes)))
    return (scores / scores.sum(axis=1, keepdims=True)).astype("float32")


def bisected(function, low, high):
    """Where an increasing function passes 0."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return low


@pytest.mark.parametrize(("errors", "count"), [(1, 10), (81, 263), (15, 148), (9950, 50000), (9599, 48238)])
def test_wilson_solves_the_score_equation(errors, count):
    """Its ends are the shares from which the observed one is 1.96 standard errors of theirs away."""
    share = errors / count

    def deviations(true):
        return (true - share) / math.sqrt(true * (1 - true) / count)

    low, high = results.wilson(errors, count)
    assert low == pytest.approx(bisected(lambda true: deviations(true) + 1.959963984540054, 1e-12, share))
    assert high == pytest.approx(
        bisected(lambda true: deviations(true) - 1.959963984540054, share, 1 - 1e-12)
    )


@pytest.mark.parametrize(
    ("errors", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_examples(errors, count, low, high):
    assert results.wilson(errors, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", [1, 7, 50, 48238, 50000])
def test_an_interval_lies_in_0_to_1_around_the_share(count):
    for errors in {0, 1, count // 2, count}:
        low, high = results.wilson(errors, count)
        assert 0 <= low <= errors / count + 1e-12 and errors / count - 1e-12 <= high <= 1
        other_low, other_high = results.wilson(count - errors, count)
        assert (low, high) == pytest.approx((1 - other_high, 1 - other_low), abs=1e-12)


@pytest.mark.parametrize(("errors", "count"), [(0, 0), (-1, 5), (6, 5)])
def test_no_interval_of_nothing(errors, count):
    with pytest.raises(ValueError, match=f"errors={errors}, count={count}"):
        results.wilson(errors, count)


@pytest.mark.parametrize("images", [1, 999, 1000, 1001, 2500])
def test_the_ensemble_is_the_weighted_mean_however_it_is_cut(images):
    random = np.random.default_rng(images)
    networks = [softmax(random, images, 11) for _ in range(3)]
    parts = list(results.combined(networks, [1, 2, 5]))
    assert max(map(len, parts)) <= 1000
    whole = np.concatenate(parts)
    assert whole.dtype == np.float32
    first, second, third = (each.astype("float64") for each in networks)
    np.testing.assert_array_equal(whole, ((first + 2 * second + 5 * third) / 8).astype("float32"))


def test_one_network_is_its_own_ensemble():
    network = softmax(np.random.default_rng(0), 1500, 10)
    np.testing.assert_array_equal(np.concatenate(list(results.combined([network], [0.3]))), network)
    other = softmax(np.random.default_rng(1), 1500, 10)
    both = np.concatenate(list(results.combined([network, other], [0.0, 2.0])))
    np.testing.assert_array_equal(both, other)


def test_memory_maps_are_read_in_parts(tmp_path):
    networks = [softmax(np.random.default_rng(seed), 2100, 5) for seed in range(2)]
    for i, network in enumerate(networks):
        np.save(tmp_path / f"{i}.npy", network)
    maps = [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(2)]
    parts = list(results.combined(maps, [1, 1]))
    assert [len(part) for part in parts] == [1000, 1000, 100]
    np.testing.assert_array_equal(
        np.concatenate(parts), np.mean(networks, axis=0, dtype="float64").astype("f4")
    )


@pytest.mark.parametrize("shape", [(4, 3), (5, 4)])
def test_networks_of_different_images_or_classes_make_no_ensemble(shape):
    with pytest.raises(ValueError, match=r"one shape.*\(5, 3\)"):
        list(results.combined([np.ones((5, 3), "f4"), np.ones(shape, "f4")], [1, 1]))


def test_every_network_has_its_weight():
    with pytest.raises(ValueError, match="zip"):
        list(results.combined([np.ones((5, 3), "f4")] * 2, [1]))


@pytest.fixture(scope="module")
def sample():
    """Probabilities in steps, so that there are ties; class 6 has no image."""
    random = np.random.default_rng(3)
    probabilities = random.integers(0, 5, (2300, 7)).astype("float32") / 8
    return probabilities, random.integers(0, 6, 2300).astype("int32")


@pytest.fixture(scope="module")
def measured(sample):
    return results.measure(*sample)


def by_sorting(probabilities, labels):
    """True class, predicted class, its probability and the true one's place, one image after the other."""
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))
        yield label, order[0], row[order[0]], order.index(label)


def test_what_is_kept_of_each_image(sample, measured):
    labels, predicted, confidence, places = map(list, zip(*by_sorting(*sample), strict=True))
    assert measured.labels.tolist() == labels
    assert measured.predicted.tolist() == predicted
    assert measured.confidence.tolist() == confidence
    assert measured.places.tolist() == places
    for array, dtype in ((measured.places, "i4"), (measured.predicted, "i4"), (measured.confidence, "f4")):
        assert array.dtype == dtype


@pytest.mark.parametrize("rows", [1, 7, 1000, 5000])
def test_parts_are_measured_as_the_whole(sample, measured, rows):
    probabilities, labels = sample
    few = 50 if rows == 1 else len(labels)
    cut = (probabilities[start : min(start + rows, few)] for start in range(0, few, rows))
    parts = results.measure(cut, labels[:few])
    for field in ("places", "predicted", "confidence", "labels"):
        np.testing.assert_array_equal(getattr(parts, field), getattr(measured, field)[:few])


@pytest.mark.parametrize("labels", [2299, 2301, 999])
def test_each_image_has_a_label(sample, labels):
    with pytest.raises(ValueError, match=f"{labels} labels"):
        results.measure(sample[0], np.zeros(labels, "int32"))


def test_errors_are_counted(sample, measured):
    places = [place for *_, place in by_sorting(*sample)]
    top1, top5 = (sum(place >= k for place in places) for k in (1, 5))
    assert 0 < top5 < top1 < 2300
    assert results.errors(measured) == {
        "images": 2300,
        "top1_error": top1 / 2300,
        "top5_error": top5 / 2300,
        "top1_interval": list(results.wilson(top1, 2300)),
        "top5_interval": list(results.wilson(top5, 2300)),
    }


@pytest.mark.parametrize("changed", [0, 37, 123, 1000])
def test_a_perfect_network_has_exactly_the_error_of_its_wrong_labels(changed):
    """Of 1,000 images, `changed` get a label one class, or as often six classes, further."""
    random = np.random.default_rng(changed)
    true = random.integers(0, 10, 1000)
    steps = np.arange(10)
    further = (steps - true[:, None]) % 10  # place of each class, the true one first
    probabilities = (0.5 ** (1 + further)).astype("float32")
    labels = true.copy()
    which = random.permutation(1000)[:changed]
    labels[which] = (labels[which] + np.where(np.arange(changed) % 2, 1, 6)) % 10
    found = results.errors(results.measure(probabilities, labels))
    assert found["top1_error"] == changed / 1000
    assert found["top5_error"] == math.ceil(changed / 2) / 1000
    assert found["images"] == 1000


def test_a_network_that_says_nothing_is_right_by_chance():
    found = results.errors(results.measure(np.full((100, 10), 0.1, "f4"), np.arange(100) % 10))
    assert (found["top1_error"], found["top5_error"]) == (0.9, 0.5)


def test_an_image_with_nan_is_wrong():
    probabilities = np.full((3, 4), np.nan, "f4")
    assert results.errors(results.measure(probabilities, np.array([1, 2, 3])))["top1_error"] == 1


CLASSES = (("n01440764", "tench"), *((f"class {i}", f"class {i}") for i in range(1, 7)))


def test_each_class_by_itself(sample, measured):
    rows = results.per_class(measured, CLASSES)
    assert len(rows) == 7
    for i, row in enumerate(rows[:6]):
        places = [place for label, _, _, place in by_sorting(*sample) if label == i]
        assert row == {
            "class": CLASSES[i][0],
            "name": CLASSES[i][1],
            "images": len(places),
            "top1_error": sum(place >= 1 for place in places) / len(places),
            "top5_error": sum(place >= 5 for place in places) / len(places),
        }
    assert rows[6] == {
        "class": "class 6",
        "name": "class 6",
        "images": 0,
        "top1_error": None,
        "top5_error": None,
    }


def test_confusion_has_a_row_for_the_true_class(sample, measured):
    expected = [[0] * 7 for _ in range(7)]
    for label, predicted, _, _ in by_sorting(*sample):
        expected[label][predicted] += 1
    matrix = results.confusion(measured, 7)
    assert matrix.tolist() == expected
    assert matrix.sum() - np.trace(matrix) == round(results.errors(measured)["top1_error"] * 2300)


@pytest.mark.parametrize("limit", [0, 1, 24, 5000])
def test_mistakes_come_by_confidence_then_by_position(sample, measured, limit):
    wrong = [
        (-confidence, position)
        for position, (_, _, confidence, place) in enumerate(by_sorting(*sample))
        if place >= 1
    ]
    assert results.mistakes(measured, limit) == [position for _, position in sorted(wrong)][:limit]


def shown(table):
    console = Console(width=110, markup=False, emoji=False, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def cells_of(text):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]


def network(name, weight, top1, top5, source="runs/a"):
    return {
        "source": source,
        "network": name,
        "weight": weight,
        "top1_error": top1,
        "top1_interval": [top1 - 0.01, top1 + 0.01],
        "top5_error": top5,
        "top5_interval": [top5 - 0.001, top5 + 0.001],
    }


def evaluated(*networks, **others):
    """What an evaluation of digits writes."""
    result = network("", 1, 0.12, 0.02)
    data = {"name": "digits", "imagenet": False, "classes": 10}
    counts = {"images": 12500, "crops": 12, "excluded": 0, "left_out": []}
    return {**result, **counts, "networks": networks, "data": data, **others}


def test_the_table_shows_each_network_and_the_ensemble():
    long = "/experiments/" + "a_long_folder_name/" * 4 + "[bold]run"
    text = shown(
        tables.results_table(
            evaluated(
                network("inception_v4", 0.25, 0.2, 0.05),
                network("inception_resnet_v2_slim", 0.75, 0.19876, 0.04, source=long),
            )
        )
    )
    assert max(map(len, text.splitlines())) <= 110
    assert "…" not in text
    (row,) = (cells for cells in cells_of(text) if cells[0] == "inception_v4")
    assert row[1:] == ["0.25", "12", "12,500", "20.00 %", "5.00 %"]
    assert "19.00 to 21.00" in text and "4.90 to 5.10" in text
    assert "19.88 %" in text
    assert "ensemble of these 2" in text and "12.00 %" in text and "11.00 to 13.00" in text
    assert "".join(cells[0] for cells in cells_of(text)).count(long) == 1


def test_one_network_has_one_row_and_what_is_not_counted_is_said():
    one = network("inception_v4", 1, 0.2, 0.05)
    text = shown(tables.results_table(evaluated(one)))
    assert "ensemble" not in text and "blacklisted" not in text and "left out" not in text
    text = " ".join(shown(tables.results_table(evaluated(one, excluded=1762, left_out=["a (b)"]))).split())
    assert "1,762 blacklisted images are not counted. 1 that cannot be used: left out." in text


def test_the_worst_classes_come_first():
    def row(name, images, top1, top5, wnid=None):
        return {"class": wnid or name, "name": name, "images": images, "top1_error": top1, "top5_error": top5}

    classes = [
        row("good", 50, 0.0, 0.0),
        row("empty", 0, None, None),
        row("bad", 50, 0.5, 0.1),
        row("worse", 50, 0.5, 0.2, wnid="n01"),
        row("worst", 1050, 0.75, 0.1),
    ]
    assert cells_of(shown(tables.worst_classes({"per_class": classes}, 3))) == [
        ["-", "worst", "1,050", "75.00 %", "10.00 %"],
        ["n01", "worse", "50", "50.00 %", "20.00 %"],
        ["-", "bad", "50", "50.00 %", "10.00 %"],
    ]
    assert "empty" not in shown(tables.worst_classes({"per_class": classes}, 9))
