"""The models are plain Keras: saved, loaded without this package, cloned, trained by Keras alone."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS

SMALL = {"width_multiplier": 0.1, "input_shape": (75, 75, 3), "classes": 3}
# Between them these two have every kind of layer that there is.
TRIED = {"inception_v4": SMALL, "inception_resnet_v1_facenet": {**SMALL, "classes": None}}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 75, 75, 3)).astype("float32")


def run(model):
    return keras.ops.convert_to_numpy(model(IMAGES, training=False))


def test_loads_where_this_package_is_not_installed(tmp_path):
    expected = {}
    for name, arguments in TRIED.items():
        model = NETWORKS[name].builder(**arguments)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = run(model)
    np.savez(tmp_path / "expected.npz", images=IMAGES, **expected)
    program = """
        import pathlib, sys
        sys.modules["inception_tf"] = None
        import keras
        import numpy as np

        folder = pathlib.Path(sys.argv[1])
        expected = np.load(folder / "expected.npz")
        for path in sorted(folder.glob("*.keras")):
            model = keras.saving.load_model(path)
            assert model.name == path.stem
            output = np.array(model(expected["images"], training=False))
            np.testing.assert_array_equal(output, expected[path.stem])
            print(path.stem)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout.split() == sorted(TRIED)


@pytest.mark.parametrize("name", TRIED)
def test_json_and_clone(name):
    model = NETWORKS[name].builder(**TRIED[name])
    expected = run(model)
    read = keras.models.model_from_json(model.to_json())
    clone = keras.models.clone_model(model)
    for copy in (read, clone):
        assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
        assert [layer.get_config() for layer in copy.layers] == [layer.get_config() for layer in model.layers]
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(run(copy), expected)


@pytest.fixture(scope="module")
def dataset():
    """Twelve images of three classes, each brighter in a channel of its own."""
    generator = np.random.default_rng(0)
    labels = np.arange(12) % 3
    images = generator.uniform(-1, 0.5, (12, 107, 107, 3))
    images[np.arange(12), :, :, labels] += 0.5
    return images.astype("float32"), labels


def test_compile_fit_evaluate_predict(dataset):
    keras.utils.set_random_seed(0)
    images, labels = dataset
    images = images[:, :75, :75]
    model = NETWORKS["inception_v3"].builder(batch_norm_momentum=0.8, **SMALL)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice
    before, _ = model.evaluate(images, labels, batch_size=12, verbose=0)
    moving = np.array(model.get_layer("stem_1_3x3_bn").moving_mean)
    history = model.fit(images, labels, batch_size=12, epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] / 2
    after, accuracy = model.evaluate(images, labels, batch_size=12, verbose=0)
    assert after < before
    assert accuracy > 0.5
    assert not np.allclose(moving, np.array(model.get_layer("stem_1_3x3_bn").moving_mean))
    predictions = model.predict(images, batch_size=5, verbose=0)
    assert predictions.shape == (12, 3)
    assert (predictions.argmax(axis=1) == labels).mean() == pytest.approx(accuracy)


def test_fit_with_the_auxiliary_head(dataset):
    keras.utils.set_random_seed(0)
    images, labels = dataset
    arguments = {**SMALL, "input_shape": (107, 107, 3)}
    model = NETWORKS["inception_v3"].builder(auxiliary_head=True, dropout_rate=0.0, **arguments)
    model.compile("adam", ["sparse_categorical_crossentropy"] * 2, loss_weights=[1.0, 0.4], run_eagerly=True)
    history = model.fit(images, [labels, labels], batch_size=12, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    main, auxiliary = history["predictions_loss"], history["auxiliary_predictions_loss"]
    np.testing.assert_allclose(history["loss"], np.add(main, 0.4 * np.array(auxiliary)), rtol=1e-4)
