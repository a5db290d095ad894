"""Where the released weights are, under the names that the builders' `weights` takes."""

import contextlib
import dataclasses

from inception_tf import downloads
from inception_tf.errors import UserError

SLIM = "https://storage.googleapis.com/download.tensorflow.org/models"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
TIMM = "https://huggingface.co/timm"
FACENET_PYTORCH = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"


@dataclasses.dataclass(frozen=True)
class Release:
    """One set of released weights.

    Attributes:
        url: of its file.
        file: what the file is called in the cache.
        hash: "md5:..." where one is published; None: recorded at the first download, checked from then on.
    """

    url: str
    file: str
    hash: str | None = None


def _slim(file):
    return Release(f"{SLIM}/{file}", file)


def _keras(folder, file, md5):
    return Release(f"{KERAS}/{folder}/{file}", file, f"md5:{md5}")


def _timm(name):
    return Release(f"{TIMM}/{name}/resolve/main/model.safetensors", f"{name}.safetensors")


def _facenet_pytorch(file):
    return Release(f"{FACENET_PYTORCH}/{file}", file)


RELEASES = {  # by network, then by name; the published hashes stand in Keras's source
    "inception_v3": {
        "imagenet": _keras(
            "inception_v3",
            "inception_v3_weights_tf_dim_ordering_tf_kernels.h5",
            "9a0d58056eeedaa3f26cb7ebd46da564",
        ),
        "imagenet-slim": _slim("inception_v3_2016_08_28.tar.gz"),
        "imagenet-timm": _timm("inception_v3.tf_in1k"),
    },
    "inception_v4": {
        "imagenet": _slim("inception_v4_2016_09_09.tar.gz"),
        "imagenet-timm": _timm("inception_v4.tf_in1k"),
    },
    "inception_resnet_v1_facenet": {
        "vggface2": _facenet_pytorch("20180402-114759-vggface2.pt"),
        "casia-webface": _facenet_pytorch("20180408-102900-casia-webface.pt"),
    },
    "inception_resnet_v2_slim": {
        "imagenet": _keras(
            "inception_resnet_v2",
            "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5",
            "e693bd0210a403b3192acc6073ad2e96",
        ),
        "imagenet-slim": _slim("inception_resnet_v2_2016_08_30.tar.gz"),
        "imagenet-timm": _timm("inception_resnet_v2.tf_in1k"),
    },
}


@contextlib.contextmanager
def fetched(network, name):
    """The file of a release in the cache, downloaded and checked if it is not there, to be read.

    What was just downloaded, and has no published hash, is kept only if it can be read.

    Raises:
        UserError: it cannot be had, or is not what was published or recorded.
    """
    release = RELEASES[network][name]
    is_new = not (downloads.cache_directory() / release.file).exists()
    path = downloads.download(release.url, release.file, release.hash)
    try:
        yield path
    except UserError as error:
        if not is_new or release.hash is not None or _is_no_fault_of_the_file(error):
            raise
        downloads.forget(path)
        raise UserError(f"{error} It was downloaded from {release.url} and is deleted again.") from error


def _is_no_fault_of_the_file(error):
    """Whether a library is not installed, or there is no room to unpack the file."""
    while error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, ImportError) or (isinstance(error, OSError) and error.errno in downloads.NO_ROOM)
