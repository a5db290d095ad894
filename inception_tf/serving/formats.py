"""The formats of an exported network: how each is written, and what it can hold."""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable

import keras

from inception_tf.errors import UserError
from inception_tf.serving import saved_model


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as people know it.
        write: function (network, card, folder, content) that writes files into a folder; `content` is that of
            export.json.
        packages: what it needs to be written and checked, by the names that are imported.
        extra: of this package, which installs them.
        dtypes: in which its runtime can compute.
        keeps_bfloat16: whether it keeps weights in bfloat16; else they are kept in float32.
    """

    name: str
    write: Callable
    packages: tuple[str, ...] = ()
    extra: str | None = None
    dtypes: tuple[str, ...] = ("float32",)
    keeps_bfloat16: bool = False

    def versions(self):
        """Of the packages."""
        return {name: importlib.metadata.version(name.replace("_", "-")) for name in self.packages}

    def check_installed(self):
        """Raises `UserError` if a package that it needs is not there."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"{self.name} needs {', '.join(missing)}: pip install 'inception_tf[{self.extra}]'."
            )


def _write_saved_model(network, card, folder, content):
    saved_model.write(network, card, folder, content["top"], content["max_pixels"])


def _by_keras(format, file):
    def write(network, card, folder, content):
        network(keras.ops.zeros((1, card.size, card.size, 3)))  # Keras's ONNX wants one that was called
        network.export(str(folder / file), format=format, verbose=False)

    return write


BOTH = ("float32", "bfloat16")
FORMATS = {
    "saved_model": Format("SavedModel", _write_saved_model, dtypes=BOTH, keeps_bfloat16=True),
    "openvino": Format(
        "OpenVINO", _by_keras("openvino", "model.xml"), ("openvino",), "openvino", dtypes=BOTH
    ),
    "onnx": Format("ONNX", _by_keras("onnx", "model.onnx"), ("tf2onnx", "onnx", "onnxruntime"), "onnx"),
    "litert": Format("LiteRT", _by_keras("litert", "model.tflite"), ("ai_edge_litert",), "litert"),
}
