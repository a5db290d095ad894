"""Exported SavedModels, as functions from images to probabilities."""

from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from inception_tf.errors import UserError, listed
from inception_tf.weights import Card, checkpoint_index
from inception_tf.weights.loading import printable

# assets.extra is SavedModel's folder for what its users add, which TensorFlow does not read.
CARD = "assets.extra/card.json"
CLASS_NAMES = "assets.extra/class_names.txt"
GRAPH = "saved_model.pb"
# What may run: a SavedModel is a program, and others of TensorFlow's operations, with state or without, read
# and write files, run Python, or end the process. Memory and time are not looked after: a network may take
# more of them than there is, and a loop may have no end.
OPERATIONS = """
    PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile ReadVariableOp Assert
    Const Identity IdentityN NoOp StopGradient EnsureShape Cast Fill OnesLike ZerosLike Range Shape Size
    BatchToSpaceND BroadcastTo ConcatV2 DepthToSpace ExpandDims GatherV2 MirrorPad Pack Pad PadV2 Reshape
    ReverseV2 Slice SpaceToBatchND SpaceToDepth Split SplitV Squeeze StridedSlice Tile Transpose Unpack
    TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem TensorListStack
    Abs Add AddN AddV2 Ceil ClipByValue Cos Div DivNoNan Erf Erfc Exp Expm1 Floor FloorDiv FloorMod Log
    Log1p Maximum Minimum Mul Neg Pow RealDiv Reciprocal Round Rsqrt Sign Sin Sqrt Square
    SquaredDifference Sub
    Equal Greater GreaterEqual Less LessEqual LogicalAnd LogicalNot LogicalOr NotEqual Select
    SelectV2
    All Any ArgMax ArgMin Max Mean Min Prod Sum TopKV2 Where
    BatchMatMulV2 BatchMatMulV3 Einsum MatMul
    AvgPool BiasAdd Conv2D DepthwiseConv2dNative FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN
    MaxPool Elu LeakyRelu LogSoftmax Relu Relu6 Selu Sigmoid Softmax Softplus Softsign Tanh
    DecodeJpeg DecodePaddedRaw DecodePng ExtractJpegShape ResizeBicubic ResizeBilinear
    ResizeNearestNeighbor ScaleAndTranslate StringLength
"""
# The functions by which TensorFlow would save the SavedModel again, or restore it: they are for files. They
# are not run, but TensorFlow works out the shapes in them when it loads them, and for that runs what is
# constant: it would read the file that a ReadFile names. Those of their operations that touch files have
# state, and what has state is not constant.
SAVERS = ("__inference__traced_save", "__inference__traced_restore")
SAVING = """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename
    StaticRegexFullMatch StringJoin
"""
# What the objects may be: an asset is a path to any file, and a resource runs functions when it is loaded.
OBJECTS = {"user_object", "function", "bare_concrete_function", "variable", "constant"}
CLASSES = {"", "tf.TrackableConstant"}  # an object is made by its class, if it names one, whatever it is


def is_saved_model(path):
    """Whether `path` is the folder of a SavedModel."""
    return Path(path, GRAPH).is_file()


def load(directory):
    """An exported network.

    Load it in the scope of a `tf.distribute.Strategy` to call it in the strategy's `run`.

    Args:
        directory: the folder of a SavedModel that `export.export` wrote.

    Returns:
        a function from float32 images [n, height, width, 3], scaled as the card says, to float32
        probabilities [n, classes], which may be called within a `tf.function`; and the `weights.Card`, whose
        network may be any name.

    Raises:
        UserError: there is no such SavedModel, it is damaged, has no card, takes or gives something else, or
            has operations or objects that a network does not need, such as assets and tables.
    """
    if not is_saved_model(directory):
        raise UserError(f"{directory} is no SavedModel: it has no {GRAPH}.")
    if not Path(directory, CARD).is_file():
        raise UserError(
            f"{directory} has no {CARD}, which tells its classes and preprocessing: export the network anew."
        )
    pipes = _pipes(Path(directory))
    if pipes:
        names = printable(listed(pipes))
        raise UserError(f"{directory} is not read, as it has what is neither a file nor a folder: {names}.")
    try:
        card = Card.from_json(Path(directory, CARD).read_text(encoding="utf-8"))
        foreign = _foreign(Path(directory, GRAPH).read_bytes())
        if not foreign:
            checkpoint_index.check(Path(directory, "variables", "variables.index"))
            loaded = tf.saved_model.load(str(directory))
            serve = loaded.signatures.get("tensors")
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
            f"{directory} is no classifier of {card.size}x{card.size} pixels: its signature tensors must "
            "take float32 images and give probabilities."
        )

    def probabilities(images):
        return serve(images=images)["probabilities"]

    probabilities.saved_model = loaded  # which keeps the variables
    return probabilities, card


def _pipes(directory):
    """What lies where TensorFlow reads and is neither file nor folder: reading a pipe would wait for ever."""
    paths = (*directory.glob("*"), *directory.glob("*/*"))
    return sorted(str(path.relative_to(directory)) for path in paths if not (path.is_file() or path.is_dir()))


def _foreign(content):
    """The names of what a SavedModel might run or read and must not: operations, functions, objects.

    The main graph is not looked at, as TensorFlow 2 loads no more of it than values of constants.
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
    in_savers = {node.op for function in functions for node in function.node_def}.difference(SAVING.split())
    operations = (operations | in_savers).difference(OPERATIONS.split())
    return sorted(operations | called | _foreign_objects(graph))


def _foreign_objects(graph):
    """The kinds and classes of what a SavedModel would make when it is loaded, and must not."""
    objects = graph.object_graph_def.nodes
    kinds = {node.WhichOneof("kind") or "object of no kind" for node in objects} - OBJECTS
    names = {name for node in objects for name in (node.registered_name, node.registered_saver)} - CLASSES
    # Functions that restoring the variables would run.
    restored = {"saveable_objects" for node in objects if node.saveable_objects}
    return kinds | names | restored | ({"asset"} if graph.asset_file_def else set())


def _is_classifier(serve, card):
    """Whether a signature takes images of the card's size, and gives probabilities."""
    arguments, inputs = serve.structured_input_signature
    outputs = serve.structured_outputs
    if arguments or set(inputs) != {"images"} or "probabilities" not in outputs:
        return False
    images, probabilities = inputs["images"], outputs["probabilities"]
    return (
        images.dtype == probabilities.dtype == tf.float32
        and images.shape.is_compatible_with((None, card.size, card.size, 3))
        and probabilities.shape.rank == 2
    )
