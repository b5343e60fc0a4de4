"""ONNX forms of PyTorch networks, kept on disk: making one takes many seconds.

A file is called by a hash of everything its form depends on, so it can be missing but never stale. Beside ``KEY.onnx``
lies ``KEY.json`` with what was found out about it; it is written last, so a form without it is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from quantgui.errors import NetworkError
from quantgui.network.bounded_folder import drop_oldest
from quantgui.spec.pytorch_source import Exporter

MOST_BYTES: Final = 2 << 30
"""Bytes of all forms that are kept."""
_STEP: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class Converted:
    """A form on disk; see `network.pytorch.export.Form`."""

    path: Path
    exporter: Exporter
    frozen: tuple[str, ...] = ()
    difference: float = 0.0
    notes: tuple[str, ...] = ()


def hash_of(parts: Iterable[bytes]) -> str:
    """Return a hash of `parts`, of which each counts by itself."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_of_file(path: Path) -> bytes:
    """Return a hash of the content of a file.

    Raises:
        NetworkError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while piece := file.read(_STEP):
                digest.update(piece)
    except FileNotFoundError as error:
        raise NetworkError(f"There is no file '{path}'.") from error
    except OSError as error:
        raise NetworkError(f"'{path}' cannot be read: {error.strerror}.") from error
    return digest.digest()


def find(folder: Path, key: str) -> Converted | None:
    """Return the form called `key` in `folder`, which counts as used from now on; None where there is none."""
    path, told = folder / f"{key}.onnx", folder / f"{key}.json"
    try:
        value = json.loads(told.read_text(encoding="utf-8"))
        if value["exporter"] not in get_args(Exporter) or path.stat().st_size != value["bytes"]:
            return None
        os.utime(path)
        frozen, notes = (tuple(str(each) for each in value[name]) for name in ("frozen", "notes"))
        return Converted(path, value["exporter"], frozen, float(value["difference"]), notes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store(folder: Path, key: str, content: bytes, about: Converted, most_bytes: int = MOST_BYTES) -> Converted:
    """Keep a form, drop those used longest ago beyond `most_bytes`, and return where it lies.

    Raises:
        NetworkError: it cannot be written.
    """
    path = folder / f"{key}.onnx"
    told: dict[str, Any] = {
        "exporter": about.exporter,
        "frozen": about.frozen,
        "difference": about.difference,
        "notes": about.notes,
        "bytes": len(content),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, content)
        _write(folder / f"{key}.json", json.dumps(told).encode())
    except OSError as error:
        raise NetworkError(f"Cannot keep the converted network in '{folder}': {error.strerror}.") from error
    # Another program may use one, which some systems then do not delete.
    with contextlib.suppress(OSError):
        drop_oldest(folder, "*.onnx", path, most_bytes, beside=".json")
    return Converted(path, about.exporter, about.frozen, about.difference, about.notes)


def _write(path: Path, content: bytes) -> None:
    """Write a file beside `path`, then put it in its place."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
