"""The contenders of training_step.py: how each takes a step of training, on a batch that is there already.

All minimise the cross-entropy of the same random images and labels with RMSProp of the same learning rate,
decay and momentum, and no other term. A contender's process imports what it needs and no more, so all imports
are within the functions. gpu_step.py takes some of them to a GPU.
"""

import atexit
import dataclasses
import functools
import math
import os
import tempfile
from collections.abc import Callable

from contenders import APPLICATIONS, TIMM, import_timm, limit_threads
from machine import peak_gigabytes

CLASSES = 1000
DROPOUT = 0.2  # of our networks; keras.applications has Inception-v3 without
RMSPROP = {"learning_rate": 0.0005, "decay": 0.9, "momentum": 0.9, "epsilon": 1.0}  # nothing overflows so


@dataclasses.dataclass(frozen=True)
class Job:
    """A network, and what is trained of it.

    Attributes:
        network: key of `inception_tf.NETWORKS`.
        batch: images.
        size: their height and width, in pixels.
        threads: that a contender may use.
        width: the width multiplier of our network.
    """

    network: str
    batch: int
    size: int
    threads: int
    width: float = 1.0


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to train a network.

    Attributes:
        load: function (job, *arguments) that gives a function which takes a step and gives its loss.
        arguments: of `load`.
        networks: those that it has; None: all.
    """

    load: Callable
    arguments: tuple
    networks: tuple | None = None

    def has(self, network):
        return self.networks is None or network in self.networks


def random_batch(job):
    """uint8 [batch, size, size, 3] and int32 [batch]."""
    import numpy as np

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (job.batch, job.size, job.size, 3), np.uint8)
    return pixels, rng.integers(0, CLASSES, job.batch, np.int32)


def scaled(pixels):
    """float32 in [-1, 1], what the networks take."""
    return pixels.astype("float32") / 127.5 - 1


def ours(job, policy):
    import keras
    import numpy as np
    import tensorflow as tf

    from inception_tf import NETWORKS
    from inception_tf.recipes import RECIPES
    from inception_tf.steps import Steps
    from inception_tf.trainer import Trainer

    keras.config.set_dtype_policy(policy)
    recipe = dataclasses.replace(
        RECIPES["paper"],
        batch=job.batch,
        learning_rate=RMSPROP["learning_rate"],
        rms_decay=RMSPROP["decay"],
        momentum=RMSPROP["momentum"],
        epsilon=RMSPROP["epsilon"],
        average_decay=0.0,
    )
    build = functools.partial(
        NETWORKS[job.network].builder,
        input_shape=(job.size, job.size, 3),
        classes=CLASSES,
        width_multiplier=job.width,
    )
    trainer = Trainer(tf.distribute.get_strategy(), build, recipe, Steps(100, 0, 100))
    pixels, labels = random_batch(job)
    batch = {
        "pixels": pixels,
        "draws": np.full((job.batch, 16), 0.9, np.float32),  # neither mirrored nor much distorted
        "label": labels,
        "weight": np.ones(job.batch, np.float32),
    }
    batch = {name: tf.constant(value) for name, value in batch.items()}
    return lambda: float(trainer.step(0, batch)[0])


def stock(job, policy, of_applications):
    """Keras's own training, as it is by default, of our network or of that of keras.applications."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    model = build_stock(job, of_applications)
    model.compile(keras_rmsprop(), "sparse_categorical_crossentropy")
    pixels, labels = random_batch(job)
    images, labels = tf.constant(scaled(pixels)), tf.constant(labels)
    return lambda: float(model.train_on_batch(images, labels))


def build_stock(job, of_applications):
    """Our network, or that of keras.applications."""
    shape = (job.size, job.size, 3)
    if of_applications:
        import keras

        return getattr(keras.applications, APPLICATIONS[job.network])(weights=None, input_shape=shape)
    from inception_tf import NETWORKS

    return NETWORKS[job.network].builder(input_shape=shape, classes=CLASSES)


def keras_rmsprop():
    import keras

    return keras.optimizers.RMSprop(
        RMSPROP["learning_rate"],
        rho=RMSPROP["decay"],
        momentum=RMSPROP["momentum"],
        epsilon=RMSPROP["epsilon"],
    )


def timm(job, is_bfloat16, is_compiled, device="cpu"):
    """PyTorch's usual loop, channels last; the parameters stay float32, autocast computes in bfloat16."""
    # Else it would find what it compiled the last time.
    compiled = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    atexit.register(compiled.cleanup)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled.name
    import torch

    torch.set_num_threads(job.threads)
    torch.backends.cudnn.benchmark = True
    model = import_timm().create_model(TIMM[job.network], pretrained=False, drop_rate=DROPOUT)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.RMSprop(
        model.parameters(),
        lr=RMSPROP["learning_rate"],
        alpha=RMSPROP["decay"],
        momentum=RMSPROP["momentum"],
        eps=RMSPROP["epsilon"],
    )
    forward = torch.compile(model, dynamic=False) if is_compiled else model
    pixels, labels = random_batch(job)
    images = torch.from_numpy(scaled(pixels)).permute(0, 3, 1, 2).to(device)  # channels last in memory
    labels = torch.from_numpy(labels).long().to(device)

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=is_bfloat16):
            logits = forward(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


CONTENDERS = {
    "ours mixed_bfloat16": Contender(ours, ("mixed_bfloat16",)),
    "ours float32": Contender(ours, ("float32",)),
    "keras float32": Contender(stock, ("float32", False)),
    "keras mixed_bfloat16": Contender(stock, ("mixed_bfloat16", False)),
    "keras.applications float32": Contender(stock, ("float32", True), tuple(APPLICATIONS)),
    "keras.applications mixed_bfloat16": Contender(stock, ("mixed_bfloat16", True), tuple(APPLICATIONS)),
    "timm float32": Contender(timm, (False, False), tuple(TIMM)),
    "timm bfloat16": Contender(timm, (True, False), tuple(TIMM)),
    "timm bfloat16, compiled": Contender(timm, (True, True), tuple(TIMM)),
}


def load(name, job):
    """What a `duels.Worker` asks a contender for."""
    limit_threads(job.threads)
    contender = CONTENDERS[name]
    step = contender.load(job, *contender.arguments)

    return lambda: check(step()), peak_gigabytes


def check(loss):
    """Raises an error if a loss, which is waited for, is not finite."""
    if not math.isfinite(float(loss)):
        raise ArithmeticError(f"the loss is {float(loss)}")
