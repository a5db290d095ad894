"""Inception-ResNet-v1 (Figure 15): the paper's network, and the one released for faces (facenet)."""

from inception_tf.arguments import EXTRA_BATCH_NORM, documented
from inception_tf.blocks import reduction_a
from inception_tf.layers import conv, max_pool
from inception_tf.network import Network


def stem(x, block):
    """Stem (Figure 14): 299x299x3 -> 35x35x256."""
    return block.chain(
        x,
        conv(32, 3, strides=2, padding="valid"),
        conv(32, 3, padding="valid"),
        conv(64, 3, padding="same"),
        max_pool(3, strides=2, padding="valid"),
        conv(80, 1, padding="same"),
        conv(192, 3, padding="valid"),
        conv(256, 3, strides=2, padding="valid"),
    )


def inception_resnet_a(x, block, scale):
    """Inception-ResNet-A (Figure 10): 35x35x256."""
    return block.residual_sum(
        x,
        block.branch(x, conv(32, 1, padding="same")),
        block.branch(x, conv(32, 1, padding="same"), conv(32, 3, padding="same")),
        block.branch(
            x, conv(32, 1, padding="same"), conv(32, 3, padding="same"), conv(32, 3, padding="same")
        ),
        scale=scale,
    )


def inception_resnet_b(x, block, scale):
    """Inception-ResNet-B (Figure 11): 17x17x896."""
    return block.residual_sum(
        x,
        block.branch(x, conv(128, 1, padding="same")),
        block.branch(
            x,
            conv(128, 1, padding="same"),
            conv(128, (1, 7), padding="same"),
            conv(128, (7, 1), padding="same"),
        ),
        scale=scale,
    )


def reduction_b(x, block):
    """Reduction-B (Figure 12): 17x17x896 -> 8x8x1792."""
    return block.concat(
        block.branch(x, conv(256, 1, padding="same"), conv(384, 3, strides=2, padding="valid")),
        block.branch(x, conv(256, 1, padding="same"), conv(256, 3, strides=2, padding="valid")),
        block.branch(
            x,
            conv(256, 1, padding="same"),
            conv(256, 3, padding="same"),
            conv(256, 3, strides=2, padding="valid"),
        ),
        block.branch(x, max_pool(3, strides=2, padding="valid")),
    )


def inception_resnet_c(x, block, scale, activation="relu", batch_norm=False):
    """Inception-ResNet-C (Figure 13): 8x8x1792."""
    return block.residual_sum(
        x,
        block.branch(x, conv(192, 1, padding="same")),
        block.branch(
            x,
            conv(192, 1, padding="same"),
            conv(192, (1, 3), padding="same"),
            conv(192, (3, 1), padding="same"),
        ),
        scale=scale,
        activation=activation,
        batch_norm=batch_norm,
    )


def inception_resnet_v1(network, residual_scale, extra_batch_norm=False):
    """The schema of Figure 15, from the image to the last Inception-ResNet-C.

    Returns:
        the 8x8x1792 map, and the last 17x17x896 map.
    """
    block = network.block
    scale_a, scale_b, scale_c = residual_scale

    x = stem(network.input, block("stem"))
    for i in range(1, 6):
        x = inception_resnet_a(x, block(f"inception_resnet_a_{i}"), scale_a)
    x = reduction_a(x, block("reduction_a"), k=192, l=192, m=256, n=384)
    for i in range(1, 11):
        x = inception_resnet_b(x, block(f"inception_resnet_b_{i}"), scale_b)
    last_17x17 = x
    x = reduction_b(x, block("reduction_b"))
    for i in range(1, 5):
        x = inception_resnet_c(x, block(f"inception_resnet_c_{i}"), scale_c)
    x = inception_resnet_c(x, block("inception_resnet_c_5"), scale_c, batch_norm=extra_batch_norm)
    return x, last_17x17


@documented(residual=True, more=EXTRA_BATCH_NORM)
def InceptionResNetV1(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="inception_resnet_v1",
    *,
    dropout_rate=0.2,
    residual_scale=(0.17, 0.10, 0.20),
    width_multiplier=1.0,
    batch_norm_momentum=0.9997,
    batch_norm_epsilon=0.001,
    batch_norm_gamma=None,
    auxiliary_head=False,
    extra_batch_norm=False,
):
    """Inception-ResNet-v1 as the paper draws it (Figure 15): 22.8 M parameters, 6.2 G multiply-adds."""
    network = Network(network="inception_resnet_v1", **locals())
    x, last_17x17 = inception_resnet_v1(network, residual_scale, extra_batch_norm)
    return network.model(x, auxiliary_features=last_17x17)


@documented(
    residual=True,
    more="""
        embedding_size: size of the bottleneck, 512 or 128 in the released weights.""",
)
def InceptionResNetV1Facenet(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=None,
    classifier_activation="softmax",
    name="inception_resnet_v1_facenet",
    *,
    embedding_size=512,
    dropout_rate=0.2,
    residual_scale=(0.17, 0.10, 0.20),
    width_multiplier=1.0,
    batch_norm_momentum=0.995,
    batch_norm_epsilon=0.001,
    batch_norm_gamma=None,
    auxiliary_head=False,
):
    """Inception-ResNet-v1 as released for faces (facenet): 23.5 M parameters, 160x160 pixels.

    Differs from the paper's by a sixth Inception-ResNet-C (scale 1.0, no ReLU) and by its top: dropout, a
    linear bottleneck with batch norm, then the L2-normalised embedding (`classes=None`, the default) or a
    softmax over identities in place of the normalisation (`classes=N`).
    """
    network = Network(network="inception_resnet_v1_facenet", **locals(), default_size=160)
    x, last_17x17 = inception_resnet_v1(network, residual_scale)
    x = inception_resnet_c(x, network.block("inception_resnet_c_6"), scale=1.0, activation=None)
    return network.model(x, auxiliary_features=last_17x17)
