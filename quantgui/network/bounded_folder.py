"""Folders of files that can be made again, of which those used last are kept within a number of bytes."""

from __future__ import annotations

import contextlib
from pathlib import Path


def oldest_first(folder: Path, pattern: str) -> list[tuple[int, int, Path]]:
    """Return time of last use (ns), bytes and path of the files in `folder` that fit `pattern`, oldest first."""
    known = []
    for path in folder.glob(pattern):
        # Another program may have deleted it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            known.append((status.st_mtime_ns, status.st_size, path))
    return sorted(known)


def drop_oldest(folder: Path, pattern: str, kept: Path, most_bytes: int, beside: str = "") -> None:
    """Delete files, those used longest ago first, until the rest takes no more than `most_bytes`; never `kept`.

    A file that lies beside each, with the ending `beside` instead, goes before it.

    Raises:
        OSError: one cannot be deleted.
    """
    known = oldest_first(folder, pattern)
    used = sum(size for _, size, _ in known)
    for _, size, path in known:
        if used <= most_bytes:
            break
        if path != kept:
            if beside:
                path.with_suffix(beside).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            used -= size
