"""SavedModels as `export` writes them, but at once: without the process that checks them."""

from inception_tf.export import MAX_PIXELS
from inception_tf.saved_models import CARD
from inception_tf.serving import folding, saved_model


def write(model, card, folder, dtype="float32", top=5, max_pixels=MAX_PIXELS):
    """Folds a network and saves it with its card; returns the folder."""
    output = "embeddings" if card.labels is None else "probabilities"
    network = folding.fold(model, dtype, card.preprocessing.scale, output)
    saved_model.write(network, card, folder, top, max_pixels)
    (folder / CARD).parent.mkdir()
    (folder / CARD).write_text(card.to_json())
    return folder
