"""The machine and its processes: what several benchmarks ask of them."""

import importlib.metadata
import multiprocessing
import platform
import re
from pathlib import Path

BF16_FLAGS = ("amx_bf16", "avx512_bf16")


def cpu():
    """Its name, and which instructions for bfloat16 it has, as Linux says them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags", "").split()
    return {"name": values.get("model name"), "flags": [flag for flag in BF16_FLAGS if flag in flags]}


def versions(packages):
    """Of Python and of packages, None for one that is not installed."""
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_gigabytes():
    """The most memory that this process held so far; `getrusage` may give its parent's."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak[1]) / 2**20


def start(target, *arguments):
    """A process, and the connection to it, which is the first argument of its target."""
    context = multiprocessing.get_context("spawn")
    connection, child = context.Pipe()
    process = context.Process(target=target, args=(child, *arguments), daemon=True)
    process.start()
    child.close()  # so that its end is noticed here
    return process, connection


def reason(error):
    """An error in one line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"
