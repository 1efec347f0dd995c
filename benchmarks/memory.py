"""What the processes of a run hold."""

import subprocess
import time

import psutil

_POLL_SECONDS = 0.02


def peaks(process: "subprocess.Popen[bytes]") -> list[int]:
    """The most that each process of a run held (bytes), as seen every 20 ms until it ends; first the parent."""
    seen: dict[int, int] = {}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        for each in [parent, *parent.children(recursive=True)]:
            try:
                seen[each.pid] = max(seen.get(each.pid, 0), each.memory_info().rss)
            except psutil.Error:  # it has just ended
                continue
        time.sleep(_POLL_SECONDS)
    return [peak for peak in seen.values() if peak > 64 << 20]  # not multiprocessing's resource tracker
