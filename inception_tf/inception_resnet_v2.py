"""Inception-ResNet-v2: the network the paper draws (Figure 15), and the one that was released (slim)."""

from inception_tf.arguments import EXTRA_BATCH_NORM, documented
from inception_tf.blocks import reduction_a, stem, stem_v3
from inception_tf.layers import average_pool, conv, max_pool
from inception_tf.network import Network


def inception_resnet_a(x, block, scale):
    """Inception-ResNet-A (Figure 16): 35x35x384; 35x35x320 as released."""
    return block.residual_sum(
        x,
        block.branch(x, conv(32, 1, padding="same")),
        block.branch(x, conv(32, 1, padding="same"), conv(32, 3, padding="same")),
        block.branch(
            x, conv(32, 1, padding="same"), conv(48, 3, padding="same"), conv(64, 3, padding="same")
        ),
        scale=scale,
    )


def inception_resnet_b(x, block, scale):
    """Inception-ResNet-B (Figure 17): 17x17x1152; 17x17x1088 as released."""
    return block.residual_sum(
        x,
        block.branch(x, conv(192, 1, padding="same")),
        block.branch(
            x,
            conv(128, 1, padding="same"),
            conv(160, (1, 7), padding="same"),
            conv(192, (7, 1), padding="same"),
        ),
        scale=scale,
    )


def reduction_b(x, block):
    """Reduction-B (Figure 18): 17x17x1152 -> 8x8x2144; 17x17x1088 -> 8x8x2080 as released."""
    return block.concat(
        block.branch(x, conv(256, 1, padding="same"), conv(384, 3, strides=2, padding="valid")),
        block.branch(x, conv(256, 1, padding="same"), conv(288, 3, strides=2, padding="valid")),
        block.branch(
            x,
            conv(256, 1, padding="same"),
            conv(288, 3, padding="same"),
            conv(320, 3, strides=2, padding="valid"),
        ),
        block.branch(x, max_pool(3, strides=2, padding="valid")),
    )


def inception_resnet_c(x, block, scale, activation="relu", batch_norm=False):
    """Inception-ResNet-C (Figure 19): 8x8x2144; 8x8x2080 as released."""
    return block.residual_sum(
        x,
        block.branch(x, conv(192, 1, padding="same")),
        block.branch(
            x,
            conv(192, 1, padding="same"),
            conv(224, (1, 3), padding="same"),
            conv(256, (3, 1), padding="same"),
        ),
        scale=scale,
        activation=activation,
        batch_norm=batch_norm,
    )


def mixed_5b(x, block):
    """The Inception block after the released stem, drawn in no figure: 35x35x320."""
    return block.concat(
        block.branch(x, conv(96, 1, padding="same")),
        block.branch(x, conv(48, 1, padding="same"), conv(64, 5, padding="same")),
        block.branch(
            x, conv(64, 1, padding="same"), conv(96, 3, padding="same"), conv(96, 3, padding="same")
        ),
        block.branch(x, average_pool(3, padding="same"), conv(64, 1, padding="same")),
    )


@documented(residual=True, more=EXTRA_BATCH_NORM)
def InceptionResNetV2(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="inception_resnet_v2",
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
    """Inception-ResNet-v2 as the paper draws it (Figure 15): 32.5 M parameters, 9.3 G multiply-adds."""
    network = Network(network="inception_resnet_v2", **locals())
    block = network.block
    scale_a, scale_b, scale_c = residual_scale

    x = stem(network.input, block)
    for i in range(1, 6):
        x = inception_resnet_a(x, block(f"inception_resnet_a_{i}"), scale_a)
    x = reduction_a(x, block("reduction_a"), k=256, l=256, m=384, n=384)
    for i in range(1, 11):
        x = inception_resnet_b(x, block(f"inception_resnet_b_{i}"), scale_b)
    last_17x17 = x
    x = reduction_b(x, block("reduction_b"))
    for i in range(1, 5):
        x = inception_resnet_c(x, block(f"inception_resnet_c_{i}"), scale_c)
    x = inception_resnet_c(x, block("inception_resnet_c_5"), scale_c, batch_norm=extra_batch_norm)
    return network.model(x, auxiliary_features=last_17x17)


@documented(residual=True)
def InceptionResNetV2Slim(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="inception_resnet_v2_slim",
    *,
    dropout_rate=0.2,
    residual_scale=(0.17, 0.10, 0.20),
    width_multiplier=1.0,
    batch_norm_momentum=0.9997,
    batch_norm_epsilon=0.001,
    batch_norm_gamma=None,
    auxiliary_head=False,
):
    """Inception-ResNet-v2 as released, keras.applications' own: 55.9 M parameters, 13.2 G multiply-adds.

    The stem is Inception-v3's, followed by one Inception block; there are 10, 20 and 10 residual blocks, the
    last with scale 1.0 and no ReLU, and a 1x1 convolution to 1536 before the top.
    """
    network = Network(network="inception_resnet_v2_slim", **locals())
    block = network.block
    scale_a, scale_b, scale_c = residual_scale

    x = stem_v3(network.input, block("stem"))
    x = mixed_5b(x, block("mixed_5b"))
    for i in range(1, 11):
        x = inception_resnet_a(x, block(f"inception_resnet_a_{i}"), scale_a)
    x = reduction_a(x, block("reduction_a"), k=256, l=256, m=384, n=384)
    for i in range(1, 21):
        x = inception_resnet_b(x, block(f"inception_resnet_b_{i}"), scale_b)
    last_17x17 = x
    x = reduction_b(x, block("reduction_b"))
    for i in range(1, 10):
        x = inception_resnet_c(x, block(f"inception_resnet_c_{i}"), scale_c)
    x = inception_resnet_c(x, block("inception_resnet_c_10"), scale=1.0, activation=None)
    x = block("final").chain(x, conv(1536, 1, padding="same"))
    return network.model(x, auxiliary_features=last_17x17)
