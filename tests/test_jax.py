"""The networks on JAX: built and run where TensorFlow cannot be imported, with the same predictions."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from inception_tf import NETWORKS, weights
from inception_tf.conversion import write

pytest.importorskip("jax", reason="needs JAX: pip install '.[test]'")

# Every convolution has 16 filters then: JAX compiles once a shape.
ARGUMENTS = {"width_multiplier": 0.01, "input_shape": (75, 75, 3), "classes": 7}
COMPARED = {"inception_v4": ".safetensors", "inception_resnet_v1_facenet": ".weights.h5"}
CHILD = """
    import pathlib
    import sys

    class NoTensorFlow:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] == "tensorflow":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, NoTensorFlow)
    import keras
    import numpy as np

    import inception_tf

    assert keras.backend.backend() == "jax"
    folder = pathlib.Path(sys.argv[1])
    images = np.load(folder / "images.npy")
    outputs = {}
    for name, entry in inception_tf.NETWORKS.items():
        weights = next(folder.glob(f"{name}.*"), None)
        model = entry.builder(weights=weights, **ARGUMENTS)
        outputs[name] = model.predict(images, verbose=0)
        assert outputs[name].shape == (2, 7) and np.isfinite(outputs[name]).all()
    assert "tensorflow" not in sys.modules
    np.savez(folder / "outputs.npz", **outputs)
"""


def test_builds_and_predicts_without_tensorflow(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (2, 75, 75, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    expected = {}
    for name, ending in COMPARED.items():
        model = NETWORKS[name].builder(**ARGUMENTS)
        for variable in model.non_trainable_variables:
            low, high = (0.5, 1.5) if variable.path.endswith("variance") else (-0.2, 0.2)
            if not variable.path.startswith("seed"):
                variable.assign(generator.uniform(low, high, variable.shape))
        write(model, weights.Card(name, 75), tmp_path / f"{name}{ending}")
        expected[name] = keras.ops.convert_to_numpy(model(images, training=False))

    program = textwrap.dedent(CHILD).replace("ARGUMENTS", repr(ARGUMENTS))
    child = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    outputs = np.load(tmp_path / "outputs.npz")
    assert set(outputs) == set(NETWORKS)
    for name in COMPARED:
        assert expected[name].std() > 0.01
        difference = np.abs(outputs[name] - expected[name]).max() / expected[name].max()
        assert difference <= 1e-5, name
