"""Feature extraction: the outputs of a network by the name of their layer, or by slim's."""

import string

import keras


def _lettered(prefix, first_letter, layer, count):
    """slim's lettered scopes for numbered blocks: Mixed_5b, Mixed_5c, ... for inception_a_1, ..."""
    letters = string.ascii_lowercase[string.ascii_lowercase.index(first_letter) :]
    return {f"{prefix}{letters[i]}": f"{layer}_{i + 1}" for i in range(count)}


_STEM_V3 = {
    "Conv2d_1a_3x3": "stem_1_3x3",
    "Conv2d_2a_3x3": "stem_2_3x3",
    "Conv2d_2b_3x3": "stem_3_3x3",
    "MaxPool_3a_3x3": "stem_4_max_pool",
    "Conv2d_3b_1x1": "stem_5_1x1",
    "Conv2d_4a_3x3": "stem_6_3x3",
}
_STEM_V4 = {
    "Conv2d_1a_3x3": "stem_1_1_3x3",
    "Conv2d_2a_3x3": "stem_1_2_3x3",
    "Conv2d_2b_3x3": "stem_1_3_3x3",
    "Mixed_3a": "stem_2",
    "Mixed_4a": "stem_3",
    "Mixed_5a": "stem_4",
}
_RESNET_V1 = {
    **_STEM_V3,
    "Conv2d_4b_3x3": "stem_7_3x3",
    "Mixed_5a": "inception_resnet_a_5",
    "Mixed_6a": "reduction_a",
    "Mixed_6b": "inception_resnet_b_10",
    "Mixed_7a": "reduction_b",
    "Mixed_8a": "inception_resnet_c_5",
}

# slim's (for v1 facenet's) endpoint -> layer. The paper's v1 and v2 were never in slim: they take the
# names of the released networks as far as the layers are the same.
SLIM_ENDPOINTS = {
    "inception_v3": {
        **_STEM_V3,
        "MaxPool_5a_3x3": "stem_7_max_pool",
        **_lettered("Mixed_5", "b", "inception_a", 3),
        "Mixed_6a": "reduction_a",
        **_lettered("Mixed_6", "b", "inception_b", 4),
        "Mixed_7a": "reduction_b",
        **_lettered("Mixed_7", "b", "inception_c", 2),
    },
    "inception_v4": {
        **_STEM_V4,
        **_lettered("Mixed_5", "b", "inception_a", 4),
        "Mixed_6a": "reduction_a",
        **_lettered("Mixed_6", "b", "inception_b", 7),
        "Mixed_7a": "reduction_b",
        **_lettered("Mixed_7", "b", "inception_c", 3),
    },
    "inception_resnet_v1": _RESNET_V1,
    "inception_resnet_v1_facenet": {**_RESNET_V1, "Mixed_8b": "inception_resnet_c_6"},
    "inception_resnet_v2": {**_STEM_V4, "Mixed_6a": "reduction_a", "Mixed_7a": "reduction_b"},
    "inception_resnet_v2_slim": {
        **_STEM_V3,
        "MaxPool_5a_3x3": "stem_7_max_pool",
        "Mixed_5b": "mixed_5b",
        "Mixed_6a": "reduction_a",
        "PreAuxLogits": "inception_resnet_b_20",
        "Mixed_7a": "reduction_b",
        "Conv2d_7b_1x1": "final_1_1x1",
    },
}
_TOP = {"Logits": "logits", "Predictions": "predictions", "AuxLogits": "auxiliary_logits"}


def slim_names(model):
    """slim's endpoint names that `model` has.

    Returns:
        dict from slim's name to the name of the layer in `model`.
    """
    layers = {layer.name for layer in model.layers}
    # A network is known by its layers, since a model may be renamed; facenet's v1 contains the paper's.
    fitting = [table for table in SLIM_ENDPOINTS.values() if layers.issuperset(table.values())]
    table = max(fitting, key=len, default={})
    return {**table, **{name: layer for name, layer in _TOP.items() if layer in layers}}


def feature_extractor(model, endpoints):
    """A model from the input of `model` to the outputs of the layers named.

    Args:
        model: a network of this package.
        endpoints: a list of layer names (`inception_a_4`) or slim's endpoint names (`Mixed_5e`).

    Returns:
        a `keras.Model` that shares the layers of `model` and has one output an endpoint, in their order (for
        one endpoint, as Keras does, the tensor itself and not a list).

    Raises:
        ValueError: `endpoints` is empty, or the network has no such endpoint.
    """
    if isinstance(endpoints, str) or not endpoints:
        raise ValueError(
            f"`endpoints` must be a list of at least one name. Received: endpoints={endpoints!r}"
        )
    slim = slim_names(model)
    layers = {layer.name: layer for layer in model.layers}
    unknown = [name for name in endpoints if name not in layers and name not in slim]
    if unknown:
        raise ValueError(
            f"{model.name} has no endpoint {', '.join(map(repr, unknown))}: give the name of a layer "
            f"(`[layer.name for layer in model.layers]`) or one of slim's, {', '.join(slim)}."
        )
    outputs = [layers[slim.get(name, name)].output for name in endpoints]
    return keras.Model(model.input, outputs, name=f"{model.name}_features")
