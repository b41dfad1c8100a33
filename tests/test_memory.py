"""How much memory is free, as files of the system tell it, and what is refused."""

import subprocess
import sys

import pytest

from vae_tf import memory

SYSTEM = {
    "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 5000 kB\n",
    "/sys/fs/cgroup/memory.max": "max\n",
    "/sys/fs/cgroup/memory.current": "1024000\n",
}
LIMITED = {
    "/sys/fs/cgroup/memory.max": "4096000\n",
    "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 24000\n",
}
OLDER = {
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "2048000\n",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes": "3000000\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (SYSTEM, 5000 * 1024),
        (SYSTEM | LIMITED, 4096000 - 1024000 + 24000),
        (SYSTEM | OLDER, 0),
        (
            SYSTEM | {"/proc/self/limits": "Max address space   unlimited  unlimited  bytes\n"},
            5120000,
        ),
    ],
)
def test_the_least_of_machine_container_and_process_counts(files, expected, monkeypatch):
    monkeypatch.setattr(memory, "_text", lambda path: files.get(str(path), ""))
    assert memory.free() == expected


def test_a_limit_of_the_process_counts():
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (3 << 30, 3 << 30))\n"
    code += "from vae_tf import memory; print(memory.free())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 << 30 < int(out.stdout) < 3 << 30


def test_what_does_not_fit_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 3 * 2**30)
    memory.check_fits("num", 3 * 2**30, "num=3")
    message = (
        "Invalid value for argument 'num': expected what fits in the 3.0 GiB of memory that are free. "
        "Received: num=9, which takes 4.0 TiB. Take fewer."
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        memory.check_fits("num", 4 * 2**40, "num=9", "Take fewer.")
    monkeypatch.setattr(memory, "free", lambda: None)  # where the system does not say
    memory.check_fits("num", 4 * 2**40, "num=9")


@pytest.mark.parametrize(
    ("size", "words"),
    [(3, "3 bytes"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (2**60, "1,024.0 PiB")],
)
def test_sizes_in_words(size, words):
    assert memory.words(size) == words
