"""Run by itself, `python saved_model_check.py SAVED_MODEL IMAGES.npy PROBABILITIES.npy`: TensorFlow alone."""

import sys

if __name__ == "__main__":
    sys.modules["keras"] = sys.modules["inception_tf"] = None  # importing either is an error from here on

    import numpy as np
    import tensorflow as tf

    saved_model, images, probabilities = sys.argv[1:]
    serve = tf.saved_model.load(saved_model).signatures["serving_default"]
    np.save(probabilities, serve(images=tf.constant(np.load(images)))["probabilities"].numpy())
