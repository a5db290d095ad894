"""Downloads into a cache, from a server of our own on 127.0.0.1, and the unpacking of archives."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import types
from pathlib import Path

import pytest

from inception_tf import downloads
from inception_tf.downloads import cache_directory, download, extract
from inception_tf.errors import UserError

CONTENT = bytes(range(256)) * 400
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
OTHER = "sha256:" + "0" * 64
TIMEOUT = 30  # seconds; for what waits on another process
CHILD = (
    "import sys; from inception_tf.downloads import download; print(download(*sys.argv[1:4], sys.argv[4]))"
)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No test waits between retries, knows a proxy or reaches the user's own cache."""
    monkeypatch.setattr("pooch.core.time", types.SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def server():
    """A server whose `answers` are taken one a request; the last one is for all that follow."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            with lock:
                number, server.requests = server.requests, server.requests + 1
            server.answers[min(number, len(server.answers) - 1)](self)

        def log_message(self, *arguments):
            pass

    lock = threading.Lock()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.answers = 0, [_whole]
    server.url = f"http://127.0.0.1:{server.server_port}/released/w.h5"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _begin(handler, content=CONTENT):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()


def _whole(handler, content=CONTENT):
    _begin(handler, content)
    handler.wfile.write(content)


def _cut_off(handler):
    _begin(handler)
    handler.wfile.write(CONTENT[:50_000])


def _missing(handler):
    handler.send_error(404)


def _unavailable(handler):
    handler.send_error(503)


def _files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _refused(*arguments, words=(), call=download, **keywords):
    """Calls, expects one sentence that has all `words`, and returns it."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert all(str(word) in sentence for word in words), sentence
    return sentence


def _child(url, cache, known_hash=SHA256, code=CHILD, **keywords):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, url, "w.h5", known_hash, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


@pytest.mark.parametrize("known_hash", [SHA256, SHA256.replace("a", "A"), MD5, None])
def test_a_file_is_downloaded_once(server, cache, known_hash):
    for _ in range(2):
        path = download(server.url, "w.h5", known_hash, cache)
        assert path == cache / "w.h5"
        assert path.read_bytes() == CONTENT
    assert server.requests == 1
    assert _files(cache) == (["w.h5"] if known_hash else ["w.h5", "w.h5.sha256"])


def test_a_file_url_is_copied(tmp_path, cache):
    source = tmp_path / "a file"
    source.write_bytes(CONTENT)
    assert download(source.as_uri(), "w.h5", SHA256, cache).read_bytes() == CONTENT
    assert source.exists()


def test_the_cache_is_that_of_keras(server, tmp_path, monkeypatch):
    assert cache_directory() == tmp_path / "keras" / "models" / "inception_tf"
    assert download(server.url, "w.h5") == cache_directory() / "w.h5"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".keras" / "models" / "inception_tf"


def test_other_users_may_read_what_the_umask_allows(server, cache):
    umask = os.umask(0o027)
    try:
        path = download(server.url, "w.h5", None, cache)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640
    assert (cache / "w.h5.sha256").stat().st_mode & 0o777 == 0o640


def test_one_line_says_what_is_downloaded_without_tensorflow_or_keras(server, cache):
    code = "import sys\nsys.modules['tensorflow'] = sys.modules['keras'] = None\n" + CHILD
    _, first = _child(server.url, cache, code=code).communicate(timeout=TIMEOUT)
    _, second = _child(server.url, cache, code=code).communicate(timeout=TIMEOUT)
    (line,) = first.splitlines()
    assert all(word in line for word in ("Downloading", "w.h5", server.url, str(cache)))
    assert second == ""


@pytest.mark.parametrize("known_hash", [OTHER, "md5:" + "0" * 32])
def test_another_file_than_the_published_one_is_not_kept(server, cache, known_hash):
    actual = SHA256 if known_hash == OTHER else MD5
    words = (server.url, known_hash, actual.split(":")[1])
    _refused(server.url, "w.h5", known_hash, cache, words=words)
    assert _files(cache) == []


@pytest.mark.parametrize("known_hash", [SHA256, None])
def test_a_download_cut_off_is_tried_again_and_never_kept(server, cache, known_hash):
    server.answers = [_cut_off]
    _refused(server.url, "w.h5", known_hash, cache, words=(server.url, "IncompleteRead", "connection"))
    assert server.requests == 1 + downloads.RETRIES
    assert _files(cache) == []


@pytest.mark.parametrize("failure", [_cut_off, _unavailable])
def test_a_failure_that_passes_is_not_noticed(server, cache, failure):
    server.answers = [failure, _whole]
    assert download(server.url, "w.h5", None, cache).read_bytes() == CONTENT
    assert server.requests == 2


def test_an_address_without_a_file_is_one_sentence(server, cache, tmp_path):
    server.answers = [_missing]
    _refused(server.url, "w.h5", None, cache, words=(server.url, "404", "check the address"))
    gone = (tmp_path / "gone").as_uri()
    _refused(gone, "w.h5", None, cache, words=(gone, "check the address"))
    assert _files(cache) == []


def test_a_server_that_is_not_there_is_one_sentence(cache):
    with http.server.HTTPServer(("127.0.0.1", 0), None) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/w.h5"
    _refused(url, "w.h5", None, cache, words=(url, "refused", "connection"))
    assert _files(cache) == []


@pytest.mark.parametrize("known_hash", [SHA256, None])
def test_a_file_that_changed_in_the_cache_is_refused_and_stays(server, cache, known_hash):
    path = download(server.url, "w.h5", known_hash, cache)
    path.write_bytes(b"changed")
    changed = hashlib.sha256(b"changed").hexdigest()
    _refused(server.url, "w.h5", known_hash, cache, words=(path, SHA256, changed, "delete", server.url))
    assert path.read_bytes() == b"changed"
    assert server.requests == 1
    path.unlink()
    assert download(server.url, "w.h5", known_hash, cache).read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_refused(server, cache):
    path = download(server.url, "w.h5", None, cache)
    path.unlink()
    server.answers = [lambda handler: _whole(handler, b"changed")]
    record = cache / "w.h5.sha256"
    _refused(server.url, "w.h5", None, cache, words=(server.url, SHA256, f"delete {record}"))
    assert _files(cache) == [record.name]
    record.unlink()
    assert download(server.url, "w.h5", None, cache).read_bytes() == b"changed"


def test_a_file_put_there_by_hand_is_recorded_at_first_use(server, cache):
    cache.mkdir()
    path = cache / "w.h5"
    path.write_bytes(CONTENT)
    assert download(server.url, "w.h5", None, cache) == path
    assert "sha256:" + (cache / "w.h5.sha256").read_text().strip() == SHA256
    assert server.requests == 0


@contextlib.contextmanager
def _read_only(folder):
    """A folder that nobody may write to, nor root: its rights are not root's meanwhile."""
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            (folder / "probe").touch()
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_read_only_cache_is_used_as_it_is(server):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to all other users
        cache = Path(folder)
        (cache / "w.h5").write_bytes(CONTENT)
        with _read_only(cache):
            for known_hash in (SHA256, None):
                assert download(server.url, "w.h5", known_hash, cache) == cache / "w.h5"
            _refused(server.url, "other.h5", None, cache, words=(cache, "denied", "KERAS_HOME"))
        assert _files(cache) == ["w.h5"]
    assert server.requests == 0


def test_a_cache_that_cannot_be_made_is_one_sentence(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    _refused(server.url, "w.h5", words=(cache_directory(), "Not a directory", "KERAS_HOME"))
    assert server.requests == 0


def test_a_file_that_the_disk_cannot_hold_leaves_nothing(server, cache):
    """A limit on the size of a process's files stands for a full disk."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "from inception_tf.errors import UserError\n"
        f"try:\n    {CHILD}\n"
        "except UserError as error:\n    print(error)"
    )
    out, err = _child(server.url, cache, code=code).communicate(timeout=TIMEOUT)
    (sentence,) = out.splitlines()
    assert str(cache) in sentence, err
    assert "too large" in sentence
    assert "room" in sentence
    assert _files(cache) == []


def test_ctrl_c_leaves_nothing(server, cache):
    under_way, end = threading.Event(), threading.Event()

    def hang(handler):
        _begin(handler)
        handler.wfile.write(CONTENT[:50_000])
        under_way.set()
        end.wait(TIMEOUT)

    server.answers = [hang]
    process = _child(server.url, cache)
    try:
        assert under_way.wait(TIMEOUT)
        assert len(_files(cache)) == 1
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)
    finally:
        end.set()
        process.kill()
    assert "KeyboardInterrupt" in err
    assert _files(cache) == []


@pytest.mark.parametrize("known_hash", [SHA256, ""])
def test_two_processes_download_the_same_file(server, cache, known_hash):
    """Both begin before the first ends; the second ends later, and does not spoil the first one's file."""
    both, first_is_done = threading.Barrier(2), threading.Event()

    def first(handler):
        both.wait(TIMEOUT)
        _whole(handler)

    def second(handler):
        _begin(handler)
        handler.wfile.write(CONTENT[:50_000])
        handler.wfile.flush()
        both.wait(TIMEOUT)
        first_is_done.wait(TIMEOUT)
        handler.wfile.write(CONTENT[50_000:])

    server.answers = [first, second]
    code = CHILD.replace("sys.argv[1:4]", "sys.argv[1:3], sys.argv[3] or None")
    processes = [_child(server.url, cache, known_hash, code) for _ in range(2)]
    path = cache / "w.h5"
    try:
        for _ in range(TIMEOUT * 100):
            running = [process for process in processes if process.poll() is None]
            assert not path.exists() or path.read_bytes() == CONTENT
            if len(running) < 2:
                first_is_done.set()
            if not running:
                break
            time.sleep(0.01)
        for process in processes:
            out, err = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, err
            assert out.strip() == str(path)
    finally:
        first_is_done.set()
        for process in processes:
            process.kill()
    assert path.read_bytes() == CONTENT
    assert server.requests == 2
    assert _files(cache) == (["w.h5"] if known_hash else ["w.h5", "w.h5.sha256"])


@pytest.mark.parametrize("name", ["", ".", "..", "../w.h5", "a/w.h5", "/w.h5", "a\\w.h5", "w.h5\n", ".w.h5"])
def test_a_name_is_a_bare_file_name(server, cache, name):
    _refused(server.url, name, SHA256, cache, words=(repr(name), "without a folder"))
    assert server.requests == 0


@pytest.mark.parametrize("url", ["w.h5", "/folder/w.h5", "ftp://127.0.0.1/w.h5", "https:/w.h5"])
def test_an_address_has_a_scheme_that_is_known(cache, url):
    _refused(url, "w.h5", SHA256, cache, words=(repr(url), "https://"))


@pytest.mark.parametrize("known_hash", ["", "0" * 64, "sha1:" + "0" * 40, "md5:" + "0" * 64, OTHER + "\n"])
def test_a_hash_is_one_of_two_kinds(server, cache, known_hash):
    _refused(server.url, "w.h5", known_hash, cache, words=(repr(known_hash), "sha256:"))
    assert server.requests == 0


def _member(name, content=CONTENT, **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def _archive(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            # Past `addfile`, which would read as many bytes as the member says it has.
            tar.fileobj.write(member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
    return path


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "unpacked" / "here"
    folder.mkdir(parents=True)
    return folder


def test_an_archive_is_unpacked(tmp_path, folder):
    archive = _archive(
        tmp_path / "a.tar.gz",
        _member("model.ckpt"),
        _member("sub", b"", type=tarfile.DIRTYPE),
        _member("sub/model.ckpt.index", b"index", mode=0o4777),
    )
    paths = extract(archive, folder)
    assert paths == [folder / "model.ckpt", folder / "sub" / "model.ckpt.index"]
    assert [path.read_bytes() for path in paths] == [CONTENT, b"index"]
    assert not paths[1].stat().st_mode & 0o6000


@pytest.mark.parametrize(
    "member",
    [
        _member("../evil"),
        _member("sub/../../evil"),
        _member("sub/../evil"),
        _member("/evil"),
        _member("evil", b"", type=tarfile.SYMTYPE, linkname="../evil"),
        _member("evil", b"", type=tarfile.LNKTYPE, linkname="model.ckpt"),
        _member("evil", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        _member("evil", b"", type=tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].type.decode()}",
)
def test_a_member_that_is_not_a_file_below_is_refused(tmp_path, folder, member):
    archive = _archive(tmp_path / "a.tar.gz", _member("model.ckpt"), member)
    _refused(archive, folder, call=extract, words=(archive, repr(member[0].name), "regular file"))
    assert _files(folder) == ["model.ckpt"]
    assert _files(folder.parent) == ["here"]


@pytest.mark.parametrize(
    "members",
    [
        [_member("bomb", b"", size=5 * 2**30)],
        [_member("negative", b"", size=-1)],
        [_member("half"), _member("bomb", b"", size=4 * 2**30 - 1)],
        [_member(f"f{i}", b"") for i in range(downloads.MAXIMUM_MEMBERS + 1)],
    ],
    ids=["one", "negative", "sum", "many"],
)
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, folder, members):
    archive = _archive(tmp_path / "a.tar.gz", *members)
    _refused(archive, folder, call=extract, words=(archive, "at most 1000 files", str(4 * 2**30)))
    assert "bomb" not in _files(folder)


def test_a_damaged_archive_is_one_sentence(tmp_path, folder):
    null, _ = _member("a", b"", pax_headers={"path": "a\0b"})
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(null.tobuf(tarfile.PAX_FORMAT)))
    _refused(archive, folder, call=extract, words=(archive, "null byte"))

    # Random bytes, which gzip stores as they are.
    whole = _archive(archive, _member("model.ckpt", random.Random(0).randbytes(100_000))).read_bytes()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(_member("model.ckpt")[0], io.BytesIO(CONTENT))
    flipped = bytearray(whole)
    flipped[50_000] ^= 1  # gzip's checksum alone tells
    overwritten = whole[:50_000] + b"\xff" * 70_000  # with no block of deflate's after the one cut
    truncated = [whole[:length] for length in (0, 5, 50_000, len(whole) - 9)]
    for damaged in [*truncated, bytes(flipped), overwritten, plain.getvalue(), b"no archive"]:
        archive.write_bytes(damaged)
        _refused(archive, folder, call=extract, words=(archive, "whole .tar.gz"))
    archive.unlink()
    _refused(archive, folder, call=extract, words=(archive, "No such file"))
