"""Fine-tuning of the real network on real pictures, from files of weights and PNG to a digit: `-m slow`."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from inception_tf import InceptionResNetV1, preprocess_input, run, training
from inception_tf.cli import main
from inception_tf.config import TrainConfig
from inception_tf.serving.golden import TOLERANCES
from inception_tf.trainer import Trainer
from inception_tf.weights import Card, keras_files

NAMES = ("five", "six", "seven", "eight", "nine")
EACH = 11  # pictures of a class, of which one is held out


def _images(digits, first, count):
    """The first `count` pictures of five digits, from `first` on: uint8 [5, count, 75, 75, 3]."""

    def image(pixels):
        return np.asarray(Image.fromarray(pixels[..., 0]).convert("RGB").resize((75, 75)))

    chosen = [digits.images[digits.labels == digit][:count] for digit in range(first, first + 5)]
    return np.array([[image(pixels) for pixels in each] for each in chosen])


def _write_weights(images, path):
    """Weights of Inception-ResNet-v1 whose moving statistics are those of these images."""
    model = InceptionResNetV1(classes=5, input_shape=(75, 75, 3), batch_norm_momentum=0.0)
    model(preprocess_input(images), training=True)
    keras_files.write(model, path, Card("inception_resnet_v1", 75, ("0", "1", "2", "3", "4")))


@pytest.fixture
def watched(monkeypatch, digits):
    """Filled with (features, values by layer) of the network: at first, after the head, at last."""
    seen = []
    fixed = preprocess_input(_images(digits.validation, 0, 2).reshape(-1, 75, 75, 3))

    def look(model):
        features = keras.Model(model.input, model.get_layer("average_pool").output)
        seen.append(
            (features(fixed, training=False).numpy(), {e.name: e.get_weights() for e in model.layers})
        )

    class Watched(Trainer):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            look(self.model)

        def step(self, number, batch, signals):
            result = super().step(number, batch, signals)
            if number + 1 in (5, 8):
                look(self.model)
            return result

    monkeypatch.setattr(run, "Trainer", Watched)
    return seen


def _moved(before, after):
    """The layers of which a value has changed."""
    return {
        name
        for name, values in before.items()
        if any(one.tobytes() != other.tobytes() for one, other in zip(values, after[name], strict=True))
    }


@pytest.mark.slow
def test_new_classes_from_files_of_pictures_to_a_name(digits, watched, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    _write_weights(_images(digits.train, 0, 6).reshape(-1, 75, 75, 3), tmp_path / "weights.keras")
    for name, images in zip(NAMES, _images(digits.train, 5, EACH), strict=True):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "pictures" / name / f"{number:02}.png")

    folder = tmp_path / "run"
    results = training.train(
        TrainConfig(
            data=str(tmp_path / "pictures"),
            weights=str(tmp_path / "weights.keras"),
            classes="auto",
            batch=10,  # five steps an epoch
            steps=8,
            log_every=5,
            run_dir=folder,
        )
    )
    (features, first), (features_after_head, head), (features_at_last, last) = watched

    # The head's stage.
    assert features.tobytes() == features_after_head.tobytes() and features.std() > 0.1
    assert _moved(first, head) - {"dropout"} == {"logits"}
    # The whole network's, with the batch norms' statistics kept.
    norms = [name for name in first if name.endswith("_bn")]
    assert len(norms) > 100
    for name in norms:
        for before, after in zip(first[name][-2:], last[name][-2:], strict=True):
            assert before.tobytes() == after.tobytes()
    assert features.tobytes() != features_at_last.tobytes()
    moved = _moved(head, last)
    assert {"logits", *(name for name in first if name.endswith("_conv"))} <= moved

    assert json.loads((folder / "results.json").read_text()) == results
    assert results["steps"] == 8 and results["images"] == 5
    assert results["saved_model_difference"] <= TOLERANCES["float32"]["probabilities"]
    capsys.readouterr()

    held_out = json.loads((folder / "split.json").read_text())["held_out"]["seven"][0]
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(tmp_path / "pictures" / held_out), "--weights", str(folder), "--json"])
    (answer,) = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in answer["predictions"]} == set(NAMES)
    assert sum(each["probability"] for each in answer["predictions"]) == pytest.approx(1, abs=1e-4)
