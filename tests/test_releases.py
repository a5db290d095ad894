"""`weights="imagenet"`: a release fetched, checked, kept and read, from a folder and from a local server."""

import functools
import http.server
import inspect
import io
import logging
import threading
from pathlib import Path

import numpy as np
import pooch
import pytest
from foreign_files import write_tar_gz
from golden import tensors as golden
from keras.src.applications import inception_resnet_v2, inception_v3

from inception_tf import NETWORKS, RELEASES, InceptionV3
from inception_tf.weights import releases

FEATURES = {"include_top": False, "input_shape": (75, 75, 3)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models" / "inception_tf"


@pytest.fixture
def host(tmp_path):
    """A folder, and the address of a server that serves it and counts the requests."""
    folder = tmp_path / "host"
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *arguments):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def slim_release(folder, name):
    """A .tar.gz of a checkpoint with slim's names and shapes, and its tensors."""
    shapes = golden.read(f"{golden.__file__.removesuffix('tensors.py')}slim_inception_v3.npz").shapes
    tensors = {tensor: golden.value(tensor, shape) for tensor, shape in shapes.items()}
    write_tar_gz(folder / name, tensors)
    return tensors


def test_a_release_is_downloaded_once(cache, host, monkeypatch):
    folder, address, requests = host
    tensors = slim_release(folder, "v3.tar.gz")
    release = releases.Release(f"{address}/v3.tar.gz", "v3.tar.gz")
    monkeypatch.setitem(RELEASES["inception_v3"], "imagenet-slim", release)
    log = io.StringIO()
    monkeypatch.setattr(pooch.get_logger(), "handlers", [logging.StreamHandler(log)])
    for _ in range(2):
        model = InceptionV3(weights="imagenet-slim", **FEATURES)
        np.testing.assert_array_equal(
            model.get_layer("stem_1_3x3_conv").kernel, tensors["InceptionV3/Conv2d_1a_3x3/weights"]
        )
    assert requests == ["/v3.tar.gz"]
    assert sorted(path.name for path in cache.iterdir()) == ["v3.tar.gz", "v3.tar.gz.sha256"]
    said = log.getvalue()
    assert said.count(str(cache)) == 1 and said.count(release.url) == 1

    (cache / "v3.tar.gz").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"v3\.tar\.gz.*recorded"):
        InceptionV3(weights="imagenet-slim", **FEATURES)


@pytest.mark.parametrize("network", ["inception_v3", "inception_resnet_v2_slim"])
def test_a_file_without_the_published_hash_is_refused(network, cache, host, monkeypatch):
    """The hashes that Keras publishes, and a file that is another."""
    folder, _, _ = host
    published = RELEASES[network]["imagenet"]
    (folder / published.file).write_bytes(b"not the file that Keras published")
    forged = releases.Release((folder / published.file).as_uri(), published.file, published.hash)
    monkeypatch.setitem(RELEASES[network], "imagenet", forged)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ValueError, match=f"{published.file}.*not the file that was expected"):
        NETWORKS[network].builder(weights="imagenet", **FEATURES)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_published_hashes_are_those_in_the_source_of_keras():
    modules = {"inception_v3": inception_v3, "inception_resnet_v2_slim": inception_resnet_v2}
    for network, module in modules.items():
        assert RELEASES[network]["imagenet"].hash.removeprefix("md5:") in inspect.getsource(module)


@pytest.mark.parametrize("network", RELEASES)
def test_releases_come_by_https_from_networks_that_exist(network):
    for release in RELEASES[network].values():
        assert release.url.startswith("https://")
        assert "/" not in release.file


def test_the_page_of_weights_lists_the_releases():
    page = Path(__file__).parents[1].joinpath("docs", "weights.md").read_text()
    rows = [line for line in page.splitlines() if line.endswith(("| published |", "| at first use |"))]
    listed, builder = {}, None
    for row in rows:
        network, name, file, _, hash = (cell.strip(" `") for cell in row.split("|")[1:-1])
        builder = network or builder
        listed.setdefault(builder, {})[name.strip('"')] = (file, hash == "published")
    assert listed == {
        entry.builder.__name__: {
            name: (release.file, release.hash is not None) for name, release in RELEASES[network].items()
        }
        for network, entry in NETWORKS.items()
        if network in RELEASES
    }
