"""The download of Fashion-MNIST through torchvision, which can fail but not hang.

Name resolution, a proxy or a captive network can each block for minutes, and Python's resolver takes no
timeout. So the download runs in a daemon thread that writes into a temporary folder, and is given up when
that folder stops growing.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from models import idx

OFFLINE = "BNBENCH_OFFLINE"
STALL_SECONDS = 10.0
"""Without a new byte for so long (torchvision's import, some seconds of it, included) the download is given up;
with the rest of the lookup this keeps to the promised 15 seconds."""
_POLL_SECONDS = 0.1


class DownloadError(Exception):
    """The download is not possible or failed; the message says why, in words that fit in a parenthesis."""


def fetch(folder: Path, sha256: Mapping[str, str], announce: Callable[[str], None]) -> None:
    """Download the files of Fashion-MNIST into `folder`; all of them whole, or nothing.

    Args:
        folder: Created if need be. The files arrive in it decompressed and by a rename each, so that another
            process never sees half a file.
        sha256: File name → SHA-256 of the decompressed content.
        announce: Called with one line before the download starts.

    Raises:
        DownloadError: There is no network, the user asked for none, the folder cannot be written, or what
            arrived has another checksum.
    """
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise DownloadError(f"{OFFLINE} is set")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In the folder itself: a rename must not cross file systems.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-", ignore_cleanup_errors=True) as temporary:
            announce("downloading Fashion-MNIST (30 MB) through torchvision")
            _download(Path(temporary))
            raw = Path(temporary) / "FashionMNIST" / "raw"
            for name, expected in sha256.items():
                idx.read(raw / name).verify(expected, advice="it was not kept")
            for name in sha256:
                (raw / name).replace(folder / name)
    except OSError as error:
        raise DownloadError(f"the cache folder cannot be written: {error.strerror or error}") from error
    except idx.DataError as error:
        raise DownloadError(str(error)) from error


def _download(target: Path) -> None:
    errors: list[str] = []
    thread = threading.Thread(target=_run_torchvision, args=(target, errors), daemon=True, name="download")
    before = socket.getdefaulttimeout()
    # torchvision passes no timeout, so this is how its sockets get one: a thread that is given up here ends
    # soon after, and does not wake up in the middle of a measurement.
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        thread.start()
        size, last_growth = 0, time.monotonic()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            grown = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            if grown != size:
                size, last_growth = grown, time.monotonic()
            elif time.monotonic() - last_growth > STALL_SECONDS:
                raise DownloadError(f"no answer from the network within {STALL_SECONDS:.0f} s")
    finally:
        socket.setdefaulttimeout(before)
    if errors:
        raise DownloadError(errors[0])


def _run_torchvision(target: Path, errors: list[str]) -> None:
    try:
        # Late, since it takes seconds and nothing else needs it.
        from torchvision.datasets import FashionMNIST

        FashionMNIST(root=str(target), download=True)
    except Exception as error:  # whatever it is, the main thread falls back and says so
        errors.append(" ".join(str(error).split()) or type(error).__name__)
