"""Inception-v3 (reference [15], arXiv 1512.00567), the paper's non-residual baseline."""

from inception_tf.arguments import documented
from inception_tf.blocks import stem_v3
from inception_tf.layers import average_pool, both, conv, max_pool
from inception_tf.network import Network


def inception_a(x, block, pool_filters):
    """The 35x35 block (after Figure 5 of [15], 5x5 branch as released): 35x35x(224 + `pool_filters`)."""
    return block.concat(
        block.branch(x, conv(64, 1, padding="same")),
        block.branch(x, conv(48, 1, padding="same"), conv(64, 5, padding="same")),
        block.branch(
            x, conv(64, 1, padding="same"), conv(96, 3, padding="same"), conv(96, 3, padding="same")
        ),
        block.branch(x, average_pool(3, padding="same"), conv(pool_filters, 1, padding="same")),
    )


def reduction_a(x, block):
    """35x35x288 -> 17x17x768 (after Figure 10 of [15], as released)."""
    return block.concat(
        block.branch(x, conv(384, 3, strides=2, padding="valid")),
        block.branch(
            x,
            conv(64, 1, padding="same"),
            conv(96, 3, padding="same"),
            conv(96, 3, strides=2, padding="valid"),
        ),
        block.branch(x, max_pool(3, strides=2, padding="valid")),
    )


def inception_b(x, block, filters):
    """The 17x17 block with n = 7 (Figure 6 of [15]): 17x17x768; `filters` inside the factorised branches."""
    return block.concat(
        block.branch(x, conv(192, 1, padding="same")),
        block.branch(
            x,
            conv(filters, 1, padding="same"),
            conv(filters, (1, 7), padding="same"),
            conv(192, (7, 1), padding="same"),
        ),
        block.branch(
            x,
            conv(filters, 1, padding="same"),
            conv(filters, (7, 1), padding="same"),
            conv(filters, (1, 7), padding="same"),
            conv(filters, (7, 1), padding="same"),
            conv(192, (1, 7), padding="same"),
        ),
        block.branch(x, average_pool(3, padding="same"), conv(192, 1, padding="same")),
    )


def reduction_b(x, block):
    """17x17x768 -> 8x8x1280 (as released)."""
    return block.concat(
        block.branch(x, conv(192, 1, padding="same"), conv(320, 3, strides=2, padding="valid")),
        block.branch(
            x,
            conv(192, 1, padding="same"),
            conv(192, (1, 7), padding="same"),
            conv(192, (7, 1), padding="same"),
            conv(192, 3, strides=2, padding="valid"),
        ),
        block.branch(x, max_pool(3, strides=2, padding="valid")),
    )


def inception_c(x, block):
    """The 8x8 block with expanded filter banks (Figure 7 of [15]): 8x8x2048."""
    return block.concat(
        block.branch(x, conv(320, 1, padding="same")),
        block.branch(
            x,
            conv(384, 1, padding="same"),
            both(conv(384, (1, 3), padding="same"), conv(384, (3, 1), padding="same")),
        ),
        block.branch(
            x,
            conv(448, 1, padding="same"),
            conv(384, 3, padding="same"),
            both(conv(384, (1, 3), padding="same"), conv(384, (3, 1), padding="same")),
        ),
        block.branch(x, average_pool(3, padding="same"), conv(192, 1, padding="same")),
    )


@documented()
def InceptionV3(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="inception_v3",
    *,
    dropout_rate=0.2,
    width_multiplier=1.0,
    batch_norm_momentum=0.9997,
    batch_norm_epsilon=0.001,
    batch_norm_gamma=None,
    auxiliary_head=False,
):
    """Inception-v3 as released (reference [15]): 23.9 M parameters, 5.7 G multiply-adds."""
    network = Network(network="inception_v3", **locals())
    block = network.block

    x = stem_v3(network.input, block("stem"))
    for i, pool_filters in enumerate((32, 64, 64), start=1):
        x = inception_a(x, block(f"inception_a_{i}"), pool_filters)
    x = reduction_a(x, block("reduction_a"))
    for i, filters in enumerate((128, 160, 160, 192), start=1):
        x = inception_b(x, block(f"inception_b_{i}"), filters)
    last_17x17 = x
    x = reduction_b(x, block("reduction_b"))
    for i in range(1, 3):
        x = inception_c(x, block(f"inception_c_{i}"))
    return network.model(x, auxiliary_features=last_17x17)
