"""Where the paper and its released code differ, or the paper is silent: what it says, what we do, and why."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Deviation:
    """One row of the table.

    Attributes:
        figure: the figure, table or section.
        paper: what the paper prints there.
        ours: what this package does.
        why: the reason.
    """

    figure: str
    paper: str
    ours: str
    why: str


_CHECKPOINT = "the released checkpoint's order, so that its weights load"

DEVIATIONS = (
    Deviation("Fig. 3", "7x1 before 1x7 in the second fork", "1x7 before 7x1", _CHECKPOINT),
    Deviation(
        "Fig. 3",
        "no stride on the 3x3 conv of 192 in the last fork",
        "stride 2",
        "the grid goes from 71x71 to 35x35, as in the max pool beside it",
    ),
    Deviation(
        "Fig. 5",
        "1x7 224, 1x7 256 in the second branch; 1x7, 7x1, 1x7, 7x1 in the third (the third from memory)",
        "1x7 224, 7x1 256; 7x1, 1x7, 7x1, 1x7",
        _CHECKPOINT,
    ),
    Deviation("Fig. 6", "1x3 448, 3x1 512 (from memory)", "3x1 448, 1x3 512", _CHECKPOINT),
    Deviation(
        "Figs. 4 to 6",
        "whether the average pools count the padding is not said",
        "they do not",
        "TensorFlow's pooling divides by the cells inside the image",
    ),
    Deviation(
        "Fig. 17", "linear conv of 1154 filters", "1152", "it is added to an input of 1152 channels (Fig. 7)"
    ),
    Deviation(
        "Fig. 18",
        "caption: of the wider Inception-ResNet-v1",
        "Inception-ResNet-v2's Reduction-B",
        "the caption of Fig. 15 lists it for v2, and Fig. 12 for v1",
    ),
    Deviation(
        "Fig. 19", "linear conv of 2048 filters", "2144", "it is added to an input of 2144 channels (Fig. 18)"
    ),
    Deviation(
        "Fig. 15, section 3.2",
        "Inception-ResNet-v2, which matches the cost of Inception-v4 (12.3 G multiply-adds)",
        "two networks: `InceptionResNetV2` as drawn (9.3 G) and `InceptionResNetV2Slim` as released (13.2 G)",
        "stem, width and number of blocks differ; which of the two the paper's errors belong to is not known",
    ),
    Deviation(
        "Fig. 15",
        "Inception-ResNet-v1",
        "two networks: `InceptionResNetV1` as drawn and `InceptionResNetV1Facenet` as released for faces",
        "facenet's has a sixth Inception-ResNet-C (scale 1.0, no ReLU), a bottleneck before the classes and "
        "160x160 input",
    ),
    Deviation(
        "Section 3.3, Fig. 20",
        "residuals scaled by 0.1 to 0.3; which block takes which is not said",
        "0.17, 0.10, 0.20 for the A, B and C blocks",
        "as released",
    ),
    Deviation(
        "Section 3",
        "batch norm's decay, epsilon and gamma: not said",
        "0.9997 (0.995 for facenet's), 0.001, none",
        "as released",
    ),
    Deviation(
        "Section 4",
        "initialiser: not said",
        "variance scaling, factor 2, fan-in, truncated normal",
        "slim's for Inception-v3 and -v4; its Inception-ResNet-v2 names none and gets Xavier",
    ),
    Deviation(
        "Section 4",
        "20 replicas; the batch of each is not said",
        "20 x 32 = 640",
        "32 is what its group's code took",
    ),
    Deviation("Section 4", "length of training: not said", "200 epochs", "the figures' axes (from memory)"),
    Deviation(
        "Section 4",
        "momentum of RMSProp and decay of the running average: not said",
        "0.9 and 0.9999",
        "slim's flag, and research/inception's value (from memory)",
    ),
    Deviation(
        "Section 4",
        "distortion of training images: not said",
        "a crop of 5 % (10 % without boxes) to 100 % of the area, aspect 3/4 to 4/3, mirrored at random, its "
        "colours distorted",
        "slim's, which is the code of the paper's group; colours linearly in RGB, or exactly as slim's",
    ),
    Deviation(
        "Section 4",
        "how the replicas' gradients are joined: not said",
        "summed in every step",
        "a batch then has one meaning on any number of devices, and a run can be repeated bit by bit",
    ),
    Deviation(
        "Section 4",
        "weight decay: not said",
        "none in `paper`, 4e-5 in `slim` and `tpu`",
        "slim's flag, which goes through RMSProp as a part of the loss",
    ),
    Deviation(
        "Section 4",
        "label smoothing: not said",
        "none in `paper`, 0.1 in `tpu`",
        "slim's flag is 0; tensorflow/tpu takes 0.1",
    ),
    Deviation(
        "Section 4",
        "auxiliary head: neither drawn nor said",
        "none in `paper`, weight 0.4 in `slim` and `tpu`",
        "slim's networks and scripts have it",
    ),
    Deviation(
        "Tables 3 and 4",
        "12 and 144 crops as in [14], which has sizes for 224 pixels only and defines no 12",
        "our reading: shorter sides 342, 384, 427, 470 for 144 crops; six crops of the centre square at 342, "
        "and their mirror images, for 12",
        "the sizes of [14] times 299/224",
    ),
)


def markdown_table():
    """The rows as a Markdown table, which README.md shows between its two `deviations` comments."""
    rows = [("Where", "The paper", "This package", "Why"), ("---",) * 4]
    rows += [dataclasses.astuple(deviation) for deviation in DEVIATIONS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
