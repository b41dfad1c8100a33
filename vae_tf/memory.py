"""How much memory there is, so that what does not fit is refused before it begins."""

import os
import pathlib

from vae_tf.errors import invalid

# The files of a container's limit, of its use, and the count in `memory.stat` of what can be given
# back: of control groups 2 and 1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def check_fits(argument, size, received, hint=""):
    """Raise if `size` bytes are more than there are.

    Args:
        argument, received, hint: for the message, as of `errors.invalid`.
        size: bytes that the work will take, all together.
    """
    left = free()
    if left is not None and size > left:
        expected = f"what fits in the {words(left)} of memory that are free"
        raise invalid(argument, expected, f"{received}, which takes {words(size)}", hint)


def free():
    """Bytes that this process may still take, or None where the system does not say.

    The least of what the machine has free, what is left of a container's limit, and what is left of
    the process's own (`ulimit -v`).
    """
    return min((*_of_machine(), *_of_container(), *_of_process()), default=None)


def words(size):
    """A number of bytes as one reads it.

    >>> words(3 * 2**30), words(1536), words(3)
    ('3.0 GiB', '1.5 KiB', '3 bytes')
    """
    if size < 1024:
        return f"{size:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:,.1f} PiB"


def _of_machine():
    available = _numbers("/proc/meminfo").get("MemAvailable:")
    if available is not None:
        return [1024 * available]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # all of it, free or not
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return []


def _of_container():
    for limit, use, reclaimable in _GROUPS:
        most, used = _text(limit).strip(), _text(pathlib.Path(limit).with_name(use)).strip()
        if most.isdecimal() and used.isdecimal():  # "max" is none
            cache = _numbers(pathlib.Path(limit).with_name("memory.stat")).get(reclaimable, 0)
            yield max(int(most) - int(used) + cache, 0)


def _of_process():
    name = "Max address space"
    for line in _text("/proc/self/limits").splitlines():
        limit = line.removeprefix(name).split()[0] if line.startswith(name) else ""
        if limit.isdecimal():
            used = int(_text("/proc/self/statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")
            yield max(int(limit) - used, 0)


def _numbers(path):
    """The numbers of a file whose lines are a name and a number."""
    lines = [line.split() for line in _text(path).splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def _text(path):
    """What a file of the system says; nothing where there is none."""
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
