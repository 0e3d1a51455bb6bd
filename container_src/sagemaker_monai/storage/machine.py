"""What the machine has, as far as this container may use it."""

import os
from pathlib import Path


def memory_bytes() -> int:
    """The machine's memory, or that of its control group."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(pages, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # "max"
        return pages
