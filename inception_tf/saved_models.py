"""Exported SavedModels, as functions from images to probabilities."""

from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from inception_tf.errors import UserError, listed
from inception_tf.weights import Card, checkpoint_index
from inception_tf.weights.loading import printable

CARD = "assets.extra/card.json"  # assets.extra is SavedModel's folder for what its users add
GRAPH = "saved_model.pb"
# What may run: a SavedModel is a program, and others of TensorFlow's operations, with state or without, read
# and write files, run Python, or end the process.
OPERATIONS = """
    PartitionedCall StatefulPartitionedCall ReadVariableOp
    HashTableV2 InitializeTableFromTextFileV2 LookupTableFindV2 LookupTableImportV2
    Const Identity IdentityN NoOp StopGradient EnsureShape Cast Fill OnesLike ZerosLike Range Shape Size
    BatchToSpaceND BroadcastTo ConcatV2 DepthToSpace ExpandDims GatherV2 MirrorPad Pack Pad PadV2 Reshape
    ReverseV2 Slice SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice Tile Transpose Unpack
    Abs Add AddN AddV2 Ceil ClipByValue Cos Div DivNoNan Erf Erfc Exp Expm1 Floor FloorDiv FloorMod Log Log1p
    Maximum Minimum Mul Neg Pow RealDiv Reciprocal Round Rsqrt Sign Sin Sqrt Square SquaredDifference Sub
    Equal Greater GreaterEqual Less LessEqual LogicalAnd LogicalNot LogicalOr NotEqual Select SelectV2
    All Any ArgMax ArgMin Max Mean Min Prod Sum
    BatchMatMulV2 BatchMatMulV3 Einsum MatMul
    AvgPool BiasAdd Conv2D DepthwiseConv2dNative FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN MaxPool
    Elu LeakyRelu LogSoftmax Relu Relu6 Selu Sigmoid Softmax Softplus Softsign Tanh
    ResizeBicubic ResizeBilinear ResizeNearestNeighbor
"""
# The functions by which TensorFlow would save the SavedModel again, or restore it: they are for files.
SAVERS = ("__inference__traced_save", "__inference__traced_restore")


def is_saved_model(path):
    """Whether `path` is the folder of a SavedModel."""
    return Path(path, GRAPH).is_file()


def load(directory):
    """An exported network.

    Load it in the scope of a `tf.distribute.Strategy` to call it in the strategy's `run`.

    Args:
        directory: the folder of a SavedModel that `export.export_saved_model` wrote.

    Returns:
        a function from float32 images [n, height, width, 3], scaled as the card says, to float32
        probabilities [n, classes], which may be called within a `tf.function`; and the `weights.Card`, whose
        network may be any name.

    Raises:
        UserError: there is no such SavedModel, it is damaged, has no card, takes or gives something else, or
            has operations that a network does not need.
    """
    if not is_saved_model(directory):
        raise UserError(f"{directory} is no SavedModel: it has no {GRAPH}.")
    if not Path(directory, CARD).is_file():
        raise UserError(
            f"{directory} has no {CARD}, which tells its classes and preprocessing: export the network anew."
        )
    try:
        card = Card.from_json(Path(directory, CARD).read_text(encoding="utf-8"))
        foreign = _foreign(Path(directory, GRAPH).read_bytes())
        if not foreign:
            checkpoint_index.check(Path(directory, "variables", "variables.index"))
            loaded = tf.saved_model.load(str(directory))
            serve = loaded.signatures.get("serving_default")
            is_classifier = serve is not None and _is_classifier(serve, card)
    except Exception as error:  # whatever TensorFlow comes upon in a damaged one
        reason = printable(str(error).rstrip(".") or type(error).__name__)
        raise UserError(f"{directory} cannot be read as a SavedModel: {reason}.") from error
    if foreign:
        raise UserError(
            f"{directory} is not run, as it has what a network does not need: {printable(listed(foreign))}."
        )
    if not is_classifier:
        raise UserError(
            f"{directory} is no classifier of {card.size}x{card.size} pixels: its serving_default must take "
            "float32 images and give probabilities."
        )

    def probabilities(images):
        return serve(images=images)["probabilities"]

    probabilities.saved_model = loaded  # which keeps the variables
    return probabilities, card


def _foreign(content):
    """The names of what a SavedModel might run and must not: operations, and functions that save.

    The main graph is not looked at, as TensorFlow 2 does not load it.
    """
    graphs = SavedModel.FromString(content).meta_graphs
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise ValueError("it is not one graph of TensorFlow 2")
    (graph,) = graphs
    functions = graph.graph_def.library.function
    savers = {
        function.signature.name
        for function in functions
        # TensorFlow may take one implementation of an interface for another.
        if function.signature.name.startswith(SAVERS) and "api_implements" not in function.attr
    }
    others = [function for function in functions if function.signature.name not in savers]
    run = b"".join(part.SerializeToString() for part in (graph.object_graph_def, *others))
    called = {name for name in savers if name.encode() in run}
    operations = {node.op for function in others for node in function.node_def}
    return sorted(operations.difference(OPERATIONS.split()) | called)


def _is_classifier(serve, card):
    """Whether a signature takes images of the card's size, and gives probabilities."""
    arguments, inputs = serve.structured_input_signature
    outputs = serve.structured_outputs
    if arguments or set(inputs) != {"images"} or set(outputs) != {"probabilities"}:
        return False
    images, probabilities = inputs["images"], outputs["probabilities"]
    return (
        images.dtype == probabilities.dtype == tf.float32
        and images.shape.is_compatible_with((None, card.size, card.size, 3))
        and probabilities.shape.rank == 2
    )
