"""Inception-v4 (Figure 9)."""

from inception_tf.arguments import documented
from inception_tf.blocks import reduction_a, stem
from inception_tf.layers import average_pool, both, conv, max_pool
from inception_tf.network import Network


def inception_a(x, block):
    """Inception-A (Figure 4): 35x35x384."""
    return block.concat(
        block.branch(x, conv(96, 1, padding="same")),
        block.branch(x, conv(64, 1, padding="same"), conv(96, 3, padding="same")),
        block.branch(
            x, conv(64, 1, padding="same"), conv(96, 3, padding="same"), conv(96, 3, padding="same")
        ),
        block.branch(x, average_pool(3, padding="same"), conv(96, 1, padding="same")),
    )


def inception_b(x, block):
    """Inception-B (Figure 5): 17x17x1024."""
    return block.concat(
        block.branch(x, conv(384, 1, padding="same")),
        block.branch(
            x,
            conv(192, 1, padding="same"),
            conv(224, (1, 7), padding="same"),
            conv(256, (7, 1), padding="same"),
        ),
        block.branch(
            x,
            conv(192, 1, padding="same"),
            conv(192, (7, 1), padding="same"),
            conv(224, (1, 7), padding="same"),
            conv(224, (7, 1), padding="same"),
            conv(256, (1, 7), padding="same"),
        ),
        block.branch(x, average_pool(3, padding="same"), conv(128, 1, padding="same")),
    )


def reduction_b(x, block):
    """Reduction-B (Figure 8): 17x17x1024 -> 8x8x1536."""
    return block.concat(
        block.branch(x, conv(192, 1, padding="same"), conv(192, 3, strides=2, padding="valid")),
        block.branch(
            x,
            conv(256, 1, padding="same"),
            conv(256, (1, 7), padding="same"),
            conv(320, (7, 1), padding="same"),
            conv(320, 3, strides=2, padding="valid"),
        ),
        block.branch(x, max_pool(3, strides=2, padding="valid")),
    )


def inception_c(x, block):
    """Inception-C (Figure 6): 8x8x1536."""
    return block.concat(
        block.branch(x, conv(256, 1, padding="same")),
        block.branch(
            x,
            conv(384, 1, padding="same"),
            both(conv(256, (1, 3), padding="same"), conv(256, (3, 1), padding="same")),
        ),
        block.branch(
            x,
            conv(384, 1, padding="same"),
            conv(448, (3, 1), padding="same"),
            conv(512, (1, 3), padding="same"),
            both(conv(256, (1, 3), padding="same"), conv(256, (3, 1), padding="same")),
        ),
        block.branch(x, average_pool(3, padding="same"), conv(256, 1, padding="same")),
    )


@documented()
def InceptionV4(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="inception_v4",
    *,
    dropout_rate=0.2,
    width_multiplier=1.0,
    batch_norm_momentum=0.9997,
    batch_norm_epsilon=0.001,
    batch_norm_gamma=None,
    auxiliary_head=False,
):
    """Inception-v4 (Figure 9): 42.7 M parameters, 12.3 G multiply-adds."""
    network = Network(network="inception_v4", **locals())
    block = network.block

    x = stem(network.input, block)
    for i in range(1, 5):
        x = inception_a(x, block(f"inception_a_{i}"))
    x = reduction_a(x, block("reduction_a"), k=192, l=224, m=256, n=384)
    for i in range(1, 8):
        x = inception_b(x, block(f"inception_b_{i}"))
    last_17x17 = x
    x = reduction_b(x, block("reduction_b"))
    for i in range(1, 4):
        x = inception_c(x, block(f"inception_c_{i}"))
    return network.model(x, auxiliary_features=last_17x17)
