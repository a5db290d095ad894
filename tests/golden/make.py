"""Write the golden files: what the networks' own code computes from the weights of `tensors.value`.

Run by hand, once for each source, with the folder where its code lies. None of that code is kept here.

slim: tensorflow/models at 278aa5dc875a74e2a50dd067b8de48975a6e5df6 (its nets/inception_*.py are those of
451906e4e82f19712455066c1b27e2a6ba71b1dd), with Python 3.11, TensorFlow 2.12.1, tf_slim 1.1.0, numpy 1.24.3:

    pip install 'tensorflow-cpu==2.12.*' tf_slim==1.1.0 'numpy<2' 'setuptools<81'
    python make.py slim models/research/slim

Each network in its own argument scope, is_training=False, 1001 classes, auxiliary head; the names are those
of Saver(). `average_logits` are the logits of the moving averages of slim.get_model_variables(), which slim's
training keeps, restored by the names that tf.train.ExponentialMovingAverage gives.

facenet: davidsandberg/facenet at 096ed770f163957c1e56efa7feeb194773920f6e, in the same environment, with
tf_slim for tensorflow.contrib.slim:

    python make.py facenet facenet/src/models

Embeddings of 512 and of 128 dimensions, phase_train=False, and the classifier of train_softmax.py with 10
classes; the names are those of its Saver(tf.trainable_variables()).

facenet_pytorch: the package facenet-pytorch 2.6.0 alone, with torch 2.13.0 and numpy 2.4.6:

    pip install --no-deps --target facenet facenet-pytorch==2.6.0
    python make.py facenet_pytorch facenet/facenet_pytorch/models

cadene: the package pretrainedmodels 0.7.4 alone, with torch 2.13.0, numpy 2.4.6 and, as it takes its
Inception-v3 from there, torchvision 0.28.0 (8fb87713a24951e639c494b0f2a8a81b5f8e33a6):

    pip install --no-deps --target cadene pretrainedmodels==0.7.4
    python make.py cadene cadene/pretrainedmodels/models

The average pools in the branches of torchvision's Inception-v3 count the padding. TensorFlow's, with which
its released weights were trained, do not, nor do they here: F.avg_pool2d has count_include_pad=False. Its
auxiliary head, which it leaves out of inference, is called here on what Mixed_6e gives.
"""

import functools
import importlib
import importlib.util
import os
import sys
import tempfile
import types

import numpy as np
import tensors

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, shapes, averages, image_size, outputs):
    for output, array in outputs.items():
        largest, std = np.abs(array).max(), array.std()
        print(f"{name} {output} {array.shape}: largest {largest:.4g}, std {std:.4g}")
        assert array.dtype == np.float32 and std > 0.02 * largest
        assert output == "embeddings" or 0.1 < largest < 1e4
    tensors.write(os.path.join(HERE, f"{name}.npz"), shapes, averages, image_size, outputs)


def module_at(name, folder):
    """A module of a file alone, without the package around it."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(folder, f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checkpoint_shapes(tf, session, saver):
    """Names and shapes of what a Saver writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = saver.save(session, os.path.join(folder, "model"))
        return {name: tuple(shape) for name, shape in tf.train.list_variables(path)}


def load(session, variables):
    """Set the variables, by the names that a checkpoint has for them."""
    for name, variable in variables.items():
        variable.load(tensors.value(name, tuple(variable.shape.as_list())), session)


def by_name(variables):
    return {variable.op.name: variable for variable in variables}


def make_slim(folder):
    import tensorflow.compat.v1 as tf
    import tf_slim as slim

    tf.disable_v2_behavior()
    sys.path.insert(0, folder)
    inception = importlib.import_module("nets.inception")
    for network in "inception_v4", "inception_v3", "inception_resnet_v2":
        with tf.Graph().as_default(), tf.Session() as session:
            tf.train.create_global_step()
            images = tf.constant(tensors.images(299))
            with slim.arg_scope(getattr(inception, f"{network}_arg_scope")()):
                logits, ends = getattr(inception, network)(
                    images, num_classes=1001, is_training=False, create_aux_logits=True
                )
            session.run(tf.global_variables_initializer())
            shapes = checkpoint_shapes(tf, session, tf.train.Saver())
            load(session, by_name(tf.global_variables()))
            outputs = session.run({"logits": logits, "auxiliary_logits": ends["AuxLogits"]})
            averages = tf.train.ExponentialMovingAverage(0.9999)
            averaged = averages.variables_to_restore(slim.get_model_variables())
            del averaged["global_step"]
            load(session, averaged)
            outputs["average_logits"] = session.run(logits)
        write(f"slim_{network}", shapes, sorted(averaged), 299, outputs)


def make_facenet(folder):
    import tensorflow as tf2
    import tensorflow.compat.v1 as tf
    import tf_slim as slim

    tf.disable_v2_behavior()
    tf.contrib = types.SimpleNamespace(slim=slim)
    sys.modules.update({"tensorflow": tf, "tensorflow.contrib.slim": slim})
    inference = module_at("inception_resnet_v1", folder).inference
    sys.modules["tensorflow"] = tf2
    for size, name in (512, "facenet_inception_resnet_v1"), (128, "facenet_inception_resnet_v1_128"):
        with tf.Graph().as_default(), tf.Session() as session:
            images = tf.constant(tensors.images(160))
            prelogits, _ = inference(images, 1.0, phase_train=False, bottleneck_layer_size=size)
            logits = slim.fully_connected(prelogits, 10, activation_fn=None, scope="Logits", reuse=False)
            embeddings = tf.nn.l2_normalize(prelogits, 1, 1e-10)
            session.run(tf.global_variables_initializer())
            shapes = checkpoint_shapes(tf, session, tf.train.Saver(tf.trainable_variables()))
            load(session, by_name(tf.global_variables()))
            outputs = session.run({"logits": logits, "bottleneck": prelogits, "embeddings": embeddings})
        write(name, shapes, [], 160, outputs)


def torch_model(model):
    """The model with its weights set, and their shapes."""
    import torch

    state = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    model.load_state_dict(
        {name: torch.from_numpy(tensors.value(name, shape)) for name, shape in shapes.items()}
    )
    return model.eval(), shapes


def torch_images(size):
    import torch

    return torch.from_numpy(tensors.images(size).transpose(0, 3, 1, 2).copy())


def keep_output(module, kept):
    """Append what a module gives to a list."""
    module.register_forward_hook(lambda module, inputs, output: kept.append(output))


def make_facenet_pytorch(folder):
    import torch

    # The file imports, for downloads only, requests and a module beside it.
    download = types.ModuleType("facenet.utils.download")
    download.download_url_to_file = None
    adapters = types.ModuleType("requests.adapters")
    adapters.HTTPAdapter = None
    sys.modules.update(
        {
            "facenet": types.ModuleType("facenet"),
            "facenet.utils": types.ModuleType("facenet.utils"),
            "facenet.utils.download": download,
            "requests": types.ModuleType("requests"),
            "requests.adapters": adapters,
        }
    )
    path = os.path.join(folder, "inception_resnet_v1.py")
    spec = importlib.util.spec_from_file_location("facenet.inception_resnet_v1", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    model, shapes = torch_model(module.InceptionResnetV1(classify=True, num_classes=10))
    bottlenecks = []
    keep_output(model.last_bn, bottlenecks)
    with torch.inference_mode():
        logits = model(torch_images(160))
        model.classify = False
        embeddings = model(torch_images(160))
    outputs = {"logits": logits, "bottleneck": bottlenecks[0], "embeddings": embeddings}
    outputs = {name: output.numpy() for name, output in outputs.items()}
    write("facenet_pytorch_inception_resnet_v1", shapes, [], 160, outputs)


def import_torchvision():
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # a wheel for another torch: without its compiled operators
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor a, Tensor b, float c) -> Tensor")
        library.define("qnms(Tensor a, Tensor b, float c) -> Tensor")
        importlib.import_module("torchvision")


def make_cadene(folder):
    import torch

    v4 = module_at("inceptionv4", folder).inceptionv4
    v2 = module_at("inceptionresnetv2", folder).inceptionresnetv2
    for make, name in (v2, "cadene_inception_resnet_v2"), (v4, "cadene_inception_v4"):
        model, shapes = torch_model(make(num_classes=1000, pretrained=None))
        with torch.inference_mode():
            outputs = {"logits": model(torch_images(299)).numpy()}
        write(name, shapes, [], 299, outputs)

    import_torchvision()
    avg_pool2d = torch.nn.functional.avg_pool2d
    torch.nn.functional.avg_pool2d = functools.partial(avg_pool2d, count_include_pad=False)
    v3 = module_at("torchvision_models", folder).inceptionv3
    model, shapes = torch_model(v3(num_classes=1000, pretrained=None))
    assert not model.transform_input
    auxiliary_inputs = []
    keep_output(model.Mixed_6e, auxiliary_inputs)
    with torch.inference_mode():
        logits = model(torch_images(299))
        auxiliary_logits = model.AuxLogits(auxiliary_inputs[0])
    outputs = {"logits": logits.numpy(), "auxiliary_logits": auxiliary_logits.numpy()}
    write("cadene_inception_v3", shapes, [], 299, outputs)


if __name__ == "__main__":
    makers = {
        "slim": make_slim,
        "facenet": make_facenet,
        "facenet_pytorch": make_facenet_pytorch,
        "cadene": make_cadene,
    }
    source, folder = sys.argv[1:]
    makers[source](folder)
