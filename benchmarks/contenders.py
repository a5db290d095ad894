"""The contenders of inference.py: what is written for them, and how each is loaded.

A contender's process imports what it needs and no more, so all imports are within the functions.
"""

import dataclasses
import functools
import importlib.machinery
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

from machine import reason

APPLICATIONS = {"inception_v3": "InceptionV3", "inception_resnet_v2_slim": "InceptionResNetV2"}
TIMM = {
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "inception_resnet_v2_slim": "inception_resnet_v2",
}
IMAGES = 8  # that there are


@dataclasses.dataclass(frozen=True)
class Job:
    """A network, and the folder with all that `prepare` wrote of it."""

    network: str
    folder: Path
    size: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to run a network.

    Attributes:
        load: function (job, path, *arguments) that gives a function from images to probabilities, arrays.
        file: which `prepare` writes for it; "": their folder.
        arguments: of `load`.
        environment: variables that are set before anything is imported.
        takes: "tensors", which are in [-1, 1], or "pixels", in [0, 255].
    """

    load: Callable
    file: str
    arguments: tuple = ()
    environment: dict = dataclasses.field(default_factory=dict)
    takes: str = "tensors"


def limit_threads(threads):
    """For this process and those that it starts; before TensorFlow and PyTorch are imported."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # more would be processes that stay


def stock_weights(job):
    return str(job.folder / ("stock.h5" if job.network in APPLICATIONS else "stock.weights.h5"))


def stock_model(job):
    """The model of keras.applications if it has the network, else that of this package, not folded."""
    import keras

    import inception_tf

    if job.network in APPLICATIONS:
        builder = getattr(keras.applications, APPLICATIONS[job.network])
    else:
        builder = inception_tf.NETWORKS[job.network].builder
    return builder(weights=stock_weights(job), input_shape=(job.size, job.size, 3))


def keras_model(job, folder, policy):
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    model = stock_model(job)
    run = tf.function(lambda images: model(images, training=False))
    return lambda images: run(tf.constant(images)).numpy().astype("float32")


def saved_model(job, path, name, output):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    signature = loaded.signatures[name]
    (argument,) = signature.structured_input_signature[1]

    def run(images):
        assert loaded  # which holds the weights
        return signature(**{argument: tf.constant(images)})[output].numpy()

    return run


class _AnyClass(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _AnyModule(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyClass(name, (), {})


class _NoTorchvision:
    """Imports torchvision and all below it as stubs: timm asks for it, its networks do not need it."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, _NoTorchvision, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return _AnyModule(spec.name)

    @staticmethod
    def exec_module(module):
        pass


def import_timm():
    """timm, without torchvision, and with the released Inception-v3."""
    import torch

    sys.meta_path.insert(0, _NoTorchvision)
    import timm

    sys.meta_path.remove(_NoTorchvision)
    # Its Inception-v3 counts the padding in the branches' average pools; the released network does not.
    functional = torch.nn.functional
    average_pool = functools.partial(functional.avg_pool2d, count_include_pad=False)
    sys.modules["timm.models.inception_v3"].F = types.SimpleNamespace(
        **{**vars(functional), "avg_pool2d": average_pool}
    )
    return timm


def timm_model(job, path, dtype, compiled):
    import torch
    from safetensors.torch import load_file

    if compiled:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(4))  # an error early, where no compiler is
    timm = import_timm()
    torch.set_num_threads(job.threads)
    dtype = getattr(torch, dtype)
    model = timm.create_model(TIMM[job.network], pretrained=False).eval()
    model.load_state_dict(load_file(path))
    model = model.to(dtype).to(memory_format=torch.channels_last)
    if compiled:
        model = torch.compile(model, dynamic=False)

    def run(images):
        with torch.inference_mode():
            images = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels last as they lie in memory
            return model(images.to(dtype)).float().softmax(-1).numpy()

    return run


def onnx_model(job, path, output=None):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    output = output or session.get_outputs()[0].name
    return lambda images: session.run([output], {given.name: images})[0]


def openvino_model(job, path, precision, output):
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": job.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    network = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: network([images])[output]


FROZEN = {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}
STOCK, OURS = ("serving_default", "output_0"), ("tensors", "probabilities")
CONTENDERS = {
    "keras float32": Contender(keras_model, "", ("float32",)),
    "keras mixed_bfloat16": Contender(keras_model, "", ("mixed_bfloat16",)),
    "keras export": Contender(saved_model, "stock-saved_model", STOCK),
    "ours float32": Contender(saved_model, "ours-float32", OURS),
    "ours float32, frozen weights": Contender(saved_model, "ours-float32", OURS, FROZEN),
    "ours bfloat16": Contender(saved_model, "ours-bfloat16", OURS),
    "ours bfloat16, frozen weights": Contender(saved_model, "ours-bfloat16", OURS, FROZEN),
    "timm float32": Contender(timm_model, "timm.safetensors", ("float32", False)),
    "timm bfloat16": Contender(timm_model, "timm.safetensors", ("bfloat16", False)),
    "timm float32, compiled": Contender(timm_model, "timm.safetensors", ("float32", True)),
    "timm bfloat16, compiled": Contender(timm_model, "timm.safetensors", ("bfloat16", True)),
    "onnxruntime float32": Contender(onnx_model, "stock.onnx"),
    "ours onnx float32": Contender(onnx_model, "ours-onnx/model.onnx", ("probabilities",), takes="pixels"),
    "openvino float32": Contender(openvino_model, "stock.xml", ("f32", 0)),
    "openvino bfloat16": Contender(openvino_model, "stock.xml", ("bf16", 0)),
    "ours openvino float32": Contender(
        openvino_model, "ours-openvino/model.xml", ("f32", "probabilities"), takes="pixels"
    ),
    "ours openvino bfloat16": Contender(
        openvino_model, "ours-openvino/model.xml", ("bf16", "probabilities"), takes="pixels"
    ),
}


def prepare(connection, job):
    """Writes all that the contenders load; sends what could not be written, a dict from file to reason."""
    limit_threads(job.threads)
    import numpy as np

    import inception_tf
    from inception_tf import conversion, inputs, weights
    from inception_tf.export import export

    model = inception_tf.NETWORKS[job.network].builder(input_shape=(job.size, job.size, 3))
    randomise(model)
    card = weights.Card(job.network, job.size, "imagenet")
    conversion.write(model, card, stock_weights(job))
    stock = stock_model(job)
    pixels = np.random.default_rng(1).integers(0, 256, (IMAGES, job.size, job.size, 3)).astype(np.float32)
    tensors = inputs.rescale(pixels, "inception")
    np.save(job.folder / "pixels.npy", pixels)
    np.save(job.folder / "tensors.npy", tensors)
    np.save(job.folder / "probabilities.npy", stock(tensors, training=False))

    def to_openvino(path):
        import openvino

        openvino.save_model(openvino.convert_model(job.folder / "stock-saved_model"), path, False)

    writers = {
        "stock-saved_model": lambda path: stock.export(path, verbose=False),
        "stock.onnx": lambda path: stock.export(path, format="onnx", verbose=False),
        "stock.xml": to_openvino,
        "timm.safetensors": lambda path: conversion.write(model, card, path),
        "ours-float32": lambda path: export(model, card, path, dtype="float32"),
        "ours-bfloat16": lambda path: export(model, card, path, dtype="bfloat16"),
        "ours-onnx": lambda path: export(model, card, path, format="onnx"),
        "ours-openvino": lambda path: export(model, card, path, format="openvino"),
    }
    missing = {}
    for file, write in writers.items():
        try:
            write(str(job.folder / file))
        except Exception as error:
            missing[file] = reason(error)
    connection.send(missing)


def randomise(model):
    """Weights that keep the activations' size, and statistics that matter; the same every time."""
    import numpy as np

    rng = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.weights:
            shape = variable.shape
            if variable.name == "kernel":
                variable.assign(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))
            elif variable.name == "moving_variance":
                variable.assign(rng.uniform(0.5, 1.5, shape))
            elif variable.name != "gamma":
                variable.assign(rng.normal(0, 0.1, shape))
