"""The blocks that several networks share: two stems, and Reduction-A of Figure 7."""

from inception_tf.layers import conv, max_pool


def stem(x, block):
    """Stem of Inception-v4 and Inception-ResNet-v2 (Figure 3): 299x299x3 -> 35x35x384.

    `block` makes a block from a name: the stem forks three times, and each fork is one.
    """
    x = block("stem_1").chain(
        x,
        conv(32, 3, strides=2, padding="valid"),
        conv(32, 3, padding="valid"),
        conv(64, 3, padding="same"),
    )
    fork = block("stem_2")
    x = fork.concat(
        fork.branch(x, max_pool(3, strides=2, padding="valid")),
        fork.branch(x, conv(96, 3, strides=2, padding="valid")),
    )
    fork = block("stem_3")
    x = fork.concat(
        fork.branch(x, conv(64, 1, padding="same"), conv(96, 3, padding="valid")),
        fork.branch(
            x,
            conv(64, 1, padding="same"),
            conv(64, (1, 7), padding="same"),
            conv(64, (7, 1), padding="same"),
            conv(96, 3, padding="valid"),
        ),
    )
    fork = block("stem_4")
    return fork.concat(
        fork.branch(x, conv(192, 3, strides=2, padding="valid")),
        fork.branch(x, max_pool(3, strides=2, padding="valid")),
    )


def stem_v3(x, block):
    """Stem of Inception-v3 and of the released Inception-ResNet-v2: 299x299x3 -> 35x35x192."""
    return block.chain(
        x,
        conv(32, 3, strides=2, padding="valid"),
        conv(32, 3, padding="valid"),
        conv(64, 3, padding="same"),
        max_pool(3, strides=2, padding="valid"),
        conv(80, 1, padding="valid"),
        conv(192, 3, padding="valid"),
        max_pool(3, strides=2, padding="valid"),
    )


def reduction_a(x, block, k, l, m, n):  # noqa: E741 (the four letters are Table 1's)
    """Reduction-A (Figure 7): 35x35 -> 17x17; `k`, `l`, `m`, `n` are the filters of Table 1."""
    return block.concat(
        block.branch(x, conv(n, 3, strides=2, padding="valid")),
        block.branch(
            x,
            conv(k, 1, padding="same"),
            conv(l, 3, padding="same"),
            conv(m, 3, strides=2, padding="valid"),
        ),
        block.branch(x, max_pool(3, strides=2, padding="valid")),
    )
