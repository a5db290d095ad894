"""What a run that really trains shows of itself: predictions.json, TensorBoard, report.html in a browser."""

import json
import os
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf

from inception_tf import networks, outcome, training
from inception_tf.config import TrainConfig
from inception_tf.data import digits as embedded
from inception_tf.data.images import Data, InMemory
from inception_tf.data.preprocessing import evaluation_image
from inception_tf.events import Events
from inception_tf.report import predictions
from inception_tf.report.comparison import compare

NAMES = ("cat", "a class of a name that is longer than it needs to be, by far", "<script>alert(1)</script>")
FLAGS = {"size": 75, "batch": 8, "epochs": 2, "learning_rate": 0.01, "log_every": 2}


def _network(input_shape, classes, **_):
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(4, 5, strides=5, activation="relu", name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D(name="average_pool")(x)
    x = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(image, keras.layers.Activation("softmax", name="predictions")(x), name="small")


def _part(count, seed):
    """Noise, brighter for one class than for the one before; hard to tell apart."""
    labels = (np.arange(count) % len(NAMES)).astype(np.int32)
    noise = np.random.default_rng(seed).integers(0, 200, (count, 28, 28, 1))
    return InMemory((noise + 20 * labels[:, None, None, None]).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def data():
    return Data(_part(32, 0), _part(25, 1), NAMES)


@pytest.fixture(scope="module")
def small(data):
    with pytest.MonkeyPatch.context() as patch:
        for name in networks.NETWORKS:
            patch.setitem(networks.NETWORKS, name, networks.Entry(_network, "none"))
        patch.setattr(embedded, "load", lambda: data)
        # Else one more process with TensorFlow.
        patch.setattr(outcome, "export", lambda *_, **__: {"differences": {"probabilities": 0.0}})
        yield


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    training.train(TrainConfig(run_dir=folder, **FLAGS))
    return folder


def _probabilities(run, data):
    """What the network that the run left says of the held-out images."""
    model = keras.models.load_model(run / "model.keras")
    return model.predict(np.stack([evaluation_image(each, 75) for each in data.validation.images]), verbose=0)


def test_what_is_kept_is_what_the_network_says(run, data):
    content = json.loads((run / "predictions.json").read_text())
    probabilities, labels = _probabilities(run, data), data.validation.labels
    predicted = probabilities.argmax(axis=1)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (labels, predicted), 1)
    assert content["confusion"] == matrix.tolist() and 0 < matrix.trace() < 25
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:24]
    assert [entry["file"] for entry in content["mistakes"]] == [f"image {i}" for i in wrong]
    assert len(content["examples"]) == 12
    for entry in (*content["mistakes"], *content["examples"]):
        i = int(entry["file"].removeprefix("image "))
        assert entry["true"] == NAMES[labels[i]]
        order = np.argsort(-probabilities[i])
        assert [name for name, _ in entry["top"]] == [NAMES[column] for column in order]
        np.testing.assert_allclose([p for _, p in entry["top"]], probabilities[i][order], atol=1e-5)
        shown = np.asarray(predictions.decoded(entry["picture"]))
        np.testing.assert_array_equal(shown, np.repeat(data.validation.images[i], 3, axis=2))


@pytest.mark.slow
def test_two_replicas_keep_the_same(run, small, tmp_path):
    again = training.train(TrainConfig(run_dir=tmp_path / "run", strategy="mirrored", **FLAGS))
    assert again["images"] == 25
    kept = [json.loads((each / "predictions.json").read_text()) for each in (run, tmp_path / "run")]
    one, two = ([(e["file"], e["true"], e["picture"]) for e in each["examples"]] for each in kept)
    assert one == two  # pictures beside their own labels
    assert [sum(row) for row in kept[0]["confusion"]] == [sum(row) for row in kept[1]["confusion"]]
    assert sum(map(sum, kept[1]["confusion"])) == 25


def _events(run):
    """Pairs of a step and a value of TensorBoard's events, and the graphs among them."""
    values, graphs = [], []
    for file in sorted((run / "tensorboard").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            values += [(event.step, value) for value in event.summary.value]
            graphs += [tf.compat.v1.GraphDef.FromString(event.graph_def)] if event.graph_def else []
    return values, graphs


def test_tensorboard_has_scalars_the_graph_and_images(run):
    values, graphs = _events(run)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = sum(len(row) for row in logged)
    assert sum(value.tensor.dtype == tf.float32.as_datatype_enum for _, value in values) == expected
    images = {
        value.tag: (step, list(value.tensor.string_val)) for step, value in values if value.tensor.string_val
    }
    steps = {tag: step for tag, (step, _) in images.items()}
    assert steps == {"training_images": 0, "mistakes": 8, "examples": 8}
    width, height, *shown = images["training_images"][1]
    assert (width, height, len(shown)) == (b"75", b"75", 8)
    levels = [tf.io.decode_png(each).numpy().mean() for each in shown]
    assert 60 < np.mean(levels) < 140 and np.ptp(levels) > 10  # three classes, distorted
    (graph,) = graphs
    assert [node.name for node in graph.node][:2] == ["image", "conv"]
    inputs = {node.name: list(node.input) for node in graph.node}
    assert inputs["average_pool"] == ["conv"] and inputs["predictions"] == ["logits"]


def test_the_start_is_shown_once(tmp_path):
    model = _network((75, 75, 3), 3)
    for _ in range(2):  # an attempt, and that which goes on
        Events(tmp_path / "tensorboard").add_start(model, np.zeros((2, 9, 9, 3), np.float32))
    values, graphs = _events(tmp_path)
    assert len(graphs) == 1
    assert [value.tag for _, value in values] == ["training_images"]


@pytest.mark.slow
def test_a_resumed_run_shows_its_start_once(small, tmp_path, monkeypatch):
    from inception_tf.trainer import Trainer

    original = Trainer.step

    def killed(self, number, batch, signals):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(TrainConfig(run_dir=tmp_path / "run", **FLAGS))
    monkeypatch.setattr(Trainer, "step", original)
    training.train(TrainConfig(run_dir=tmp_path / "run", resume=True, **FLAGS))
    values, graphs = _events(tmp_path / "run")
    assert len(graphs) == 1
    assert sum(value.tag == "training_images" for _, value in values) == 1


@pytest.mark.parametrize("place", [(predictions, "summarize"), (outcome.page, "write")])
def test_a_run_killed_before_its_report_is_not_finished(small, tmp_path, monkeypatch, place):
    def killed(*_):
        raise KeyboardInterrupt

    flags = {**FLAGS, "epochs": 1, "run_dir": tmp_path / "run"}
    with monkeypatch.context() as patch:
        patch.setattr(*place, killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(TrainConfig(**flags))
    results = training.train(TrainConfig(**flags, resume=True))
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert sum(map(sum, json.loads((tmp_path / "run" / "predictions.json").read_text())["confusion"])) == 25
    assert "finished: 4 steps" in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture(scope="module")
def browser():
    found = list(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    works = [
        path for path in found if subprocess.run([path, "--version"], capture_output=True).returncode == 0
    ]
    if not works:
        # Where all is checked, a Chromium that is there must work.
        give_up = pytest.fail if found and "CI" in os.environ else pytest.skip
        give_up("there is no Chromium here that works: apt-get install chromium")
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=works[0], args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function that opens a page; in the end nothing may have gone wrong on it."""
    wrong, asked, allowed, tabs = [], set(), set(), []

    def open_(path, width, **context):
        tab = browser.new_page(viewport={"width": width, "height": 900}, **context)
        tabs.append(tab)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: asked.add(request.url))
        allowed.add(path.as_uri())
        tab.goto(path.as_uri(), wait_until="load")
        return tab

    yield open_
    for tab in tabs:
        tab.close()
    assert not wrong
    assert {url for url in asked if not url.startswith("data:")} == allowed


def _check_drawn(tab, width):
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for box in tab.evaluate(
        "[...document.querySelectorAll('figure > svg')].map(svg => [svg.clientWidth, svg.clientHeight, "
        "...[...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect()).flatMap(r => "
        "[r.width * r.height])])"
    ):
        assert min(box) > 0 and box[0] > 250 and len(box) > 6
    lines = tab.evaluate(
        "[...document.querySelectorAll('figure > svg')].map(svg => Math.max(...[...svg.querySelectorAll("
        "'path[style*=\"--c\"]')].map(path => path.getBoundingClientRect().width)))"
    )
    assert lines and all(line > 100 for line in lines)
    outside = tab.evaluate(
        """[...document.querySelectorAll('figure > svg')].flatMap(svg => {
          const s = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('text')].filter(text => {
            const t = text.getBoundingClientRect();
            return t.left < s.left - 1 || t.right > s.right + 1
              || t.top < s.top - 1 || t.bottom > s.bottom + 1;
          }).map(text => text.textContent);
        })"""
    )
    assert outside == []
    images = tab.evaluate("[...document.images].map(i => [i.naturalWidth, i.clientWidth, i.clientHeight])")
    assert all(min(image) > 0 for image in images)
    return len(lines), len(images)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1600, "dark")])
def test_a_browser_shows_the_report(run, opened, width, scheme):
    tab = opened(run / "report.html", width, color_scheme=scheme)
    kept = json.loads((run / "predictions.json").read_text())
    assert _check_drawn(tab, width) == (8, len(kept["mistakes"]) + len(kept["examples"]))
    for section in ("errors", "curves", "confusion", "mistakes", "examples", "configuration"):
        box = tab.locator(f"#{section}").bounding_box()
        assert box["width"] > 300 and box["height"] > 60
    results = json.loads((run / "results.json").read_text())
    shown = tab.locator("#errors").inner_text()
    for expected in (
        f"{100 * results['top1_error']:.2f} %",
        f"{results['loss']:.4f}",
        str(results["images"]),
    ):
        assert expected in shown
    assert "<script>alert(1)</script>" in tab.locator("#confusion").inner_text()
    cells = tab.locator(".confusion td[title]").all_inner_texts()
    assert [int(cell or 0) for cell in cells] == sum(kept["confusion"], [])
    paper, ink = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light") and paper != ink


@pytest.mark.parametrize("width", [360, 1600])
def test_a_browser_shows_a_comparison(run, opened, tmp_path, width):
    other = shutil.copytree(run, tmp_path / "other-run-of-a-long-name-that-has-no-spaces-in-it")
    config = json.loads((other / "config.json").read_text())
    config["recipe"]["learning_rate"] = 0.123
    (other / "config.json").write_text(json.dumps(config))
    compare([run, other], tmp_path / "compare.html")
    tab = opened(tmp_path / "compare.html", width)
    assert _check_drawn(tab, width) == (6, 0)
    assert "0.123" in tab.locator("#differences").inner_text()
