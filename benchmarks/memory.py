"""The peak of a process's memory above what it held before."""

import ctypes
import gc
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def _field(name: str) -> int:
    """A field of ``/proc/self/status`` in bytes."""
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")


def _largest() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Peak:
    """Resident memory above a baseline, taken when the object is made.

    On Linux the kernel's high-water mark (VmHWM) is set back to the present resident size first, after
    freed memory has been given back, so that the peak is that of what follows; no thread takes samples. (The
    kernel keeps these counts to within some hundred KiB.) Elsewhere the growth of ``ru_maxrss`` stands in,
    which misses what stays below an earlier peak.

    Attributes
    ----------
    source : str
        ``"VmHWM"`` or ``"ru_maxrss"``.
    """

    def __init__(self) -> None:
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError, TypeError):
            pass
        try:
            _CLEAR.write_text("5", encoding="ascii")
            self._baseline, self.source = _field("VmRSS"), "VmHWM"
        except OSError:
            self._baseline, self.source = _largest(), "ru_maxrss"

    def bytes(self) -> int:
        """The peak since, above the baseline."""
        now = _field("VmHWM") if self.source == "VmHWM" else _largest()
        return max(now - self._baseline, 0)
