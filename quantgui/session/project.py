"""The project file: what is open and the configuration, written while the user works, read after a crash.

Each running program has a file of its own, ``autosave-PID.json``. It is removed when the program is closed in good
order, so a file whose program is gone is work that was not saved. A start without a network takes over the newest of
them; only a few of the others are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgui.errors import SpecError
from quantgui.results import ImageOptions
from quantgui.spec.config import QuantConfig
from quantgui.spec.pytorch_source import (
    DEFAULT_OPTIONS,
    PytorchOptions,
    options_from_json,
    options_to_json,
    split_factory,
)
from quantgui.spec.serialization import config_from_json, config_to_json, write_text_atomically
from quantgui.spec.targets import find_target

VERSION = 1
LEFT_KEPT = 5
"""Projects of crashed programs that are kept until one of them is recovered at a start."""
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Project:
    """What is needed to open everything again. `config_path` is the user's own file of the configuration, if any.

    That code of a PyTorch network is trusted is kept: a recovered session goes on where the user has agreed to it.
    """

    network: str
    config: QuantConfig = field(default_factory=QuantConfig)
    data: str = ""
    image_options: ImageOptions | None = None
    metric: str = ""
    config_path: str = ""
    calibration: str = ""
    target: str = "simulation"
    pytorch: PytorchOptions = DEFAULT_OPTIONS


def absolute_source(source: str) -> str:
    """Return a path as it is found again from any folder: by the recovery and the recent files of the next start."""
    if not source or source.startswith("random:"):
        return source
    return str(Path(source).expanduser().absolute())


def absolute_network(network: str) -> str:
    """Return a network as it is found again from any folder; a module that is imported stays as it is."""
    split = split_factory(network)
    if split is None:
        return absolute_source(network)
    source, factory = split
    return f"{absolute_source(source)}:{factory}" if source.endswith(".py") else network


def can_be_found(network: str) -> bool:
    """Return whether there is still a file to open `network` from; of a module that is imported that is not known."""
    split = split_factory(network)
    if split is None:
        return Path(network).is_file()
    return Path(split[0]).is_file() if split[0].endswith(".py") else True


def project_to_json(project: Project) -> dict[str, Any]:
    """Return `project` as JSON values."""
    options = project.image_options
    return {
        "version": VERSION,
        "network": project.network,
        "data": project.data,
        "calibration": project.calibration,
        "image_options": None if options is None else {name: getattr(options, name) for name in options.__slots__},
        "metric": project.metric,
        "target": project.target,
        "config_path": project.config_path,
        "pytorch": options_to_json(project.pytorch),
        "config": config_to_json(project.config),
    }


def project_from_json(value: Any) -> Project:
    """Return the project that `value` describes.

    Raises:
        SpecError: it describes none.
    """
    try:
        if value["version"] != VERSION:
            raise SpecError(f"The project has version {value['version']!r}; this program reads version {VERSION}.")
        options = value["image_options"]
        if options is not None:
            options = ImageOptions(**{**options, "mean": tuple(options["mean"]), "std": tuple(options["std"])})
        return Project(
            str(value["network"]),
            config_from_json(value["config"]),
            str(value["data"]),
            options,
            str(value["metric"]),
            str(value["config_path"]),
            str(value.get("calibration", "")),
            find_target(str(value.get("target", "simulation"))).name,
            options_from_json(value.get("pytorch")) or DEFAULT_OPTIONS,
        )
    except (KeyError, TypeError) as error:
        raise SpecError(f"This is no project file: {error}.") from error


class Autosave:
    """The project file of this program, and those that crashed programs have left."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"autosave-{os.getpid()}.json"
        self._is_own = False

    def write(self, project: Project) -> None:
        """Write the project file; the old one is replaced only by a whole new one.

        Raises:
            SpecError: the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpecError(f"Cannot create the folder '{self._folder}': {error.strerror}.") from error
        self._is_own = True
        write_text_atomically(self._path, json.dumps(project_to_json(project)))

    def remove(self) -> None:
        """Remove the project file: the work has been saved, or was given up."""
        self._is_own = True
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def take_left_behind(self) -> Project | None:
        """Return the newest project that a crashed program has left; its file becomes that of this program.

        So it is there until the work is saved or given up, even where this program crashes over it as well.
        """
        for path in self._left_behind():
            with contextlib.suppress(OSError, ValueError):
                project = project_from_json(json.loads(path.read_text(encoding="utf-8")))
                if can_be_found(project.network):
                    path.replace(self._path)
                    self._is_own = True
                    return project
            # What a crash has damaged cannot be recovered, and nobody is helped by an error about it.
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def prune(self) -> None:
        """Remove what crashed programs have left but for the newest `LEFT_KEPT` projects."""
        half_written = self._folder.glob(".autosave-*.json.*")
        now = time.time()
        for path in (*self._left_behind()[LEFT_KEPT:], *half_written):
            with contextlib.suppress(OSError):
                # A younger one may be in the middle of being written.
                if path.suffix == ".json" or now - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def _left_behind(self) -> list[Path]:
        """Return the files of programs that have ended, the newest first."""
        found: list[tuple[float, Path]] = []
        for path in self._folder.glob("autosave-*.json"):
            # A program gets its number again and again where few run, as in a container.
            if not (path == self._path and not self._is_own) and _is_running(path):
                continue
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]


def _is_running(path: Path) -> bool:
    digits = path.stem.removeprefix("autosave-")
    if not digits.isdecimal():
        return False
    if int(digits) == os.getpid() or sys.platform == "win32":
        # Windows has no harmless way to ask; there the file of another running program is taken for left behind.
        return int(digits) == os.getpid()
    try:
        os.kill(int(digits), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
