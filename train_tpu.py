"""Trains a network of the paper on whatever accelerator is there: `inception-tf train` under another name."""

import sys

from inception_tf.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
