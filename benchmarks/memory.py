"""The memory in use on a whole GPU, all processes together, polled through NVML.

Left out: what one process allocated (torch counts that).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time

GIB = 2**30


class _Info(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class MemoryWatch:
    """Polls the first GPU that this process may see every few milliseconds while it is open; on a machine without one
    all answers are None.

    Attributes:
        baseline_gib: in use when the watch was opened.
    """

    def __init__(self, interval_s: float = 0.01) -> None:
        self._interval_s = interval_s
        self._series: list[tuple[float, int]] = []
        self._done = threading.Event()
        self._handle = ctypes.c_void_p()
        self.baseline_gib: float | None = None
        try:
            self._library: ctypes.CDLL | None = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            self._library = None
            return
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
        index = int(first) if first.isdigit() else 0  # NVML counts all GPUs
        handle = ctypes.byref(self._handle)
        if self._library.nvmlInit_v2() or self._library.nvmlDeviceGetHandleByIndex_v2(index, handle):
            self._library = None

    def __enter__(self) -> MemoryWatch:
        if self._library is not None:
            self.baseline_gib = self._used() / GIB
            self._thread = threading.Thread(target=self._poll, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._library is not None:
            self._thread.join()

    def peak_gib(self, first: float, last: float) -> float | None:
        """The most in use between two ``time.time()`` values, above the baseline."""
        inside = [used for when, used in self._series if first <= when <= last]
        return None if not inside or self.baseline_gib is None else max(inside) / GIB - self.baseline_gib

    def _used(self) -> int:
        info = _Info()
        assert self._library is not None
        self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(info))
        return int(info.used)

    def _poll(self) -> None:
        while not self._done.wait(self._interval_s):
            self._series.append((time.time(), self._used()))
