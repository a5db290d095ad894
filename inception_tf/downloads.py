"""The files of released weights: fetched into a cache, and unpacked."""

import contextlib
import errno
import os
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path, PurePosixPath

import pooch
import requests

from inception_tf.errors import UserError
from inception_tf.files import written_beside

RETRIES = 2  # after a first attempt that failed
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
MAXIMUM_MEMBERS = 1000  # of an archive; a TF1 checkpoint has one to four files
MAXIMUM_BYTES = 4 * 2**30  # of an archive, unpacked


def cache_directory():
    """The folder of the downloads: `models/inception_tf` of Keras's own, $KERAS_HOME or ~/.keras."""
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    return Path(os.path.expanduser(home), "models", "inception_tf")


def download(url, name, known_hash=None, directory=None):
    """The path of a file in the cache, downloaded at its first use.

    Every use checks the file's hash. A file that does not match is never used and never replaced: the user is
    told to delete it. What is downloaded takes its place in the cache only when it is whole and matches.

    Args:
        url: https://, http:// or file:// address; not touched if the file is in the cache.
        name: name of the file in the cache, without a folder.
        known_hash: the published hash, "sha256:..." or "md5:..."; None: the sha256 of the first use, which is
            kept beside the file in `<name>.sha256`.
        directory: the cache; by default `cache_directory()`.

    Returns:
        the absolute `Path` of the file.

    Raises:
        UserError: an argument is wrong, the download failed, the cache cannot be written to, or the file does
            not match its hash.
    """
    _check_arguments(url, name, known_hash)
    directory = Path(directory or cache_directory()).absolute()
    path, record = directory / name, directory / f"{name}.sha256"
    try:
        expected = known_hash or _recorded(record)
        if not path.exists():
            cache = pooch.create(
                directory, base_url="", registry={name: expected}, urls={name: url}, retry_if_failed=RETRIES
            )
            cache.fetch(name, downloader=_download)
        algorithm = expected.split(":")[0].lower() if expected else "sha256"
        actual = f"{algorithm}:{pooch.file_hash(str(path), algorithm)}"
        if expected is None:
            _record(record, actual)
    except (requests.RequestException, urllib.error.URLError) as error:
        raise UserError(
            f"{url} could not be downloaded ({_reason(error)}): check the address and the connection."
        ) from error
    except OSError as error:
        raise UserError(
            f"{url} cannot be kept in {directory} ({_reason(error)}): set KERAS_HOME to a folder that can be "
            "written to and has room."
        ) from error
    except ValueError as error:  # pooch's, for what it downloaded
        remedy = "try again or update inception_tf" if known_hash else f"delete {record} if you trust it"
        raise UserError(f"{url} is not the file that was expected ({_reason(error)}): {remedy}.") from error
    if expected is not None and actual != expected.lower():
        origin = "published" if known_hash else f"recorded in {record}"
        raise UserError(
            f"{path} has the hash {actual}, but {expected} is {origin}: delete it to download it again from "
            f"{url}."
        )
    return path


def forget(path):
    """Removes a file from the cache, and the record of its hash."""
    for file in (path, path.with_name(f"{path.name}.sha256")):
        file.unlink(missing_ok=True)


def extract(archive, directory):
    """Unpacks a .tar.gz of regular files.

    Args:
        archive: the path of the archive.
        directory: an existing folder; if the archive is refused, some files may already lie in it.

    Returns:
        the list of the files' paths.

    Raises:
        UserError: the archive is damaged, too large, or holds more than regular files: links, devices,
            absolute paths, "..".
    """
    paths, size = [], 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for count, member in enumerate(tar, start=1):
                name = PurePosixPath(member.name)
                size += member.size
                if count > MAXIMUM_MEMBERS or member.size < 0 or size > MAXIMUM_BYTES:
                    raise UserError(
                        f"{archive} is too large: it must unpack to at most {MAXIMUM_MEMBERS} files and "
                        f"{MAXIMUM_BYTES} bytes."
                    )
                if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                    raise UserError(
                        f"{archive} is not safe to unpack: {member.name!r} must be a regular file with a "
                        "relative path and without '..'."
                    )
                if member.isfile():  # their folders are made with them
                    tar.extract(member, directory, set_attrs=False, filter="data")
                    paths.append(Path(directory, member.name))
            tar.fileobj.read(2**20)  # the padding, and then gzip compares its checksum
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise UserError(f"{archive} cannot be unpacked in {directory}: {error.strerror}.") from error
        raise UserError(
            f"{archive} could not be unpacked ({_reason(error)}): give a whole .tar.gz archive."
        ) from error
    return paths


def _check_arguments(url, name, known_hash):
    if not re.match(r"(https?|file)://", url):
        raise UserError(f"{url!r} is not an address: give one that begins with https://, http:// or file://.")
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"{name!r} is not a file name: give letters, digits and any of -._+ without a folder."
        )
    if known_hash is not None and not re.fullmatch(
        "sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", known_hash, re.IGNORECASE
    ):
        raise UserError(
            f"{known_hash!r} is not a hash: give sha256: and 64 or md5: and 32 hexadecimal digits."
        )


def _download(url, output_file, pooch_instance):
    """A downloader of pooch's, which has none for file://."""
    os.remove(output_file)  # readable by its owner alone; made anew, it follows the umask
    if url.startswith("file:"):
        with urllib.request.urlopen(url) as source, open(output_file, "wb") as target:
            shutil.copyfileobj(source, target)
    else:
        # A body shorter than its Content-Length raises from urllib3 2 on.
        pooch.HTTPDownloader(progressbar=sys.stderr.isatty())(url, output_file, pooch_instance)


def _recorded(record):
    try:
        return f"sha256:{_one_line(record.read_text(errors='replace'))}"
    except FileNotFoundError:
        return None


def _record(record, actual):
    # A cache that cannot be written to is of use all the same.
    with contextlib.suppress(OSError), written_beside(record) as beside:
        beside.write_text(actual.removeprefix("sha256:") + "\n")


def _reason(error):
    """The first sentence of an error's message."""
    return _one_line(str(error).partition(". ")[0]).rstrip(".")


def _one_line(text):
    return " ".join(text.split())
