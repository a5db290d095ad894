"""The names of our variables, taken apart: what the names of another code's tensors are made from."""

import re

from inception_tf.endpoints import SLIM_ENDPOINTS

# A convolution with its batch norm and ReLU: `<block>[_branch_<b>]_<step>[a or b]_<kernel>`.
UNIT = re.compile(
    r"(?P<block>.+?)(_branch_(?P<branch>\d+))?_(?P<step>\d+)(?P<fork>[ab]?)_(?P<kernel>\d+x\d+)"
)


def split(name):
    """`<unit>_conv/kernel` and the like as (unit, "conv", "kernel"); other layers have no suffix."""
    layer, variable = name.split("/")
    for suffix in ("conv", "bn", "linear"):
        if layer.endswith(f"_{suffix}"):
            return layer.removesuffix(f"_{suffix}"), suffix, variable
    return layer, "", variable


def last_steps(names):
    """The number of the last convolution of each branch: dict from (block, branch) to its step."""
    steps = {}
    for name in names:
        if match := UNIT.fullmatch(split(name)[0]):
            key = match["block"], match["branch"]
            steps[key] = max(steps.get(key, 0), int(match["step"]))
    return steps


def repeats(network):
    """The residual blocks of a released network: from our block to (a, b or c; number; is the last c)."""
    counts = {"inception_resnet_v1_facenet": (5, 10, 6), "inception_resnet_v2_slim": (10, 20, 10)}
    return {
        f"inception_resnet_{kind}_{i}": (kind, i, kind == "c" and i == count)
        for kind, count in zip("abc", counts.get(network, ()), strict=False)
        for i in range(1, count + 1)
    }


def endpoints(network):
    """slim's names of the endpoints of a network: dict from our layer to the name."""
    return {layer: name for name, layer in SLIM_ENDPOINTS[network].items()}
