"""Files that are there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


@contextlib.contextmanager
def written_beside(path):
    """A path in a folder beside `path`, to write to; what lies there in the end is moved, in order of names.

    Args:
        path: of the file to write, or what the names of several begin with; written over.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder, path.name)
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, path.with_name(file.name))


@contextlib.contextmanager
def folder_written_beside(path, overwrite=False):
    """A new folder beside `path`, to write into; in the end, unless there was an error, it becomes `path`.

    Args:
        path: of the folder to write. What a killed attempt left beside it is put right first.
        overwrite: whether it may replace a folder that is there.

    Raises:
        FileExistsError: it may not, and `path` is there; or another process is writing it.
    """
    path = Path(path)
    beside, before = (path.with_name(f".{path.name}.{name}") for name in ("partial", "before"))

    def settle():
        if before.exists() and not path.exists():
            os.replace(before, path)
        for left in (beside, before):
            shutil.rmtree(left, ignore_errors=True)

    beside.mkdir(parents=True, exist_ok=True)
    with _locked(beside):
        settle()
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists")
    beside.mkdir()
    with _locked(beside):
        try:
            yield beside
            if path.exists():
                os.replace(path, before)
            os.replace(beside, path)
        finally:
            settle()


@contextlib.contextmanager
def _locked(folder):
    """Within it a folder is locked; FileExistsError if another process has it locked."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock(descriptor):
            raise FileExistsError("another process is writing it")
        yield
    finally:
        os.close(descriptor)


def lock(file):
    """Locks an open file until it is closed; False if another process has. Without locks: True."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
