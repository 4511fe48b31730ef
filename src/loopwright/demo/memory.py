"""How much memory the whole system takes: the proportional set size of all its processes, sampled."""

import contextlib
import threading

import psutil

from loopwright import parts
from loopwright.config import Project

__all__ = ["Memory"]


class Memory(threading.Thread):
    """Samples the memory of this process, the supervisor and all their children.

    The proportional set size counts a page shared by n processes as 1/n in each, so that the sum is what the
    machine really holds.
    """

    def __init__(self, project: Project, every_s: float = 2.0) -> None:
        super().__init__(name="memory", daemon=True)
        self._project, self._every_s = project, every_s
        self._stop = threading.Event()
        self.peak_mb = 0.0
        self.at_peak: dict[str, float] = {}

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stop.wait(self._every_s):
            found = self._sample()
            if sum(found.values()) > self.peak_mb:
                self.peak_mb, self.at_peak = sum(found.values()), found

    def stop(self) -> None:
        """Stop sampling."""
        self._stop.set()

    def _sample(self) -> dict[str, float]:
        roots = [psutil.Process()]
        supervisor = parts.supervisor(self._project)
        if supervisor:
            with contextlib.suppress(psutil.Error):
                roots.append(psutil.Process(supervisor.pid))
        family: dict[int, psutil.Process] = {}
        for root in roots:
            with contextlib.suppress(psutil.Error):
                family |= {process.pid: process for process in (root, *root.children(recursive=True))}
        found: dict[str, float] = {}
        for pid, process in family.items():
            with contextlib.suppress(psutil.Error):
                words = [
                    word
                    for word in process.cmdline()
                    if word.startswith("loopwright.") or word.endswith("demo")
                ]
                facts = process.memory_full_info()
                found[f"{words[0] if words else process.name()} {pid}"] = (
                    getattr(facts, "pss", facts.uss) / 1e6
                )
        return found
