"""Which networks were opened lately, and the data that went with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgui.session.project import can_be_found
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions, options_from_json, options_to_json
from quantgui.spec.serialization import write_text_atomically

ENTRIES_KEPT = 12


@dataclass(frozen=True, slots=True)
class RecentFile:
    """A network's file, with the data and the configuration last used with it (empty where there was none)."""

    network: str
    data: str = ""
    config: str = ""
    calibration: str = ""
    pytorch: PytorchOptions = DEFAULT_OPTIONS
    """How a PyTorch network is opened. Code is trusted for a session: whoever opens it again is asked again."""


class RecentFiles:
    """The list, newest first, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> tuple[RecentFile, ...]:
        """Return what was opened lately; files that are gone are left out. A damaged list counts as empty."""
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            entries = [
                RecentFile(
                    str(e["network"]),
                    str(e["data"]),
                    str(e["config"]),
                    str(e.get("calibration", "")),
                    (options_from_json(e.get("pytorch")) or DEFAULT_OPTIONS).untrusted(),
                )
                for e in value
            ]
        except (OSError, ValueError, KeyError, TypeError):
            return ()
        return tuple(entry for entry in entries if can_be_found(entry.network))

    def add(self, entry: RecentFile) -> None:
        """Put `entry` first.

        Raises:
            SpecError: the list cannot be written.
        """
        others = [e for e in self.entries() if e.network != entry.network]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps([_to_json(e) for e in (entry, *others)[:ENTRIES_KEPT]], indent=1)
        write_text_atomically(self._path, content)

    def clear(self) -> None:
        """Forget all entries."""
        self._path.unlink(missing_ok=True)


def _to_json(entry: RecentFile) -> dict[str, Any]:
    return {
        "network": entry.network,
        "data": entry.data,
        "config": entry.config,
        "calibration": entry.calibration,
        "pytorch": options_to_json(entry.pytorch.untrusted()),
    }
