"""Looking through a .pt2 file before torch reads it: what could run code in it is refused or left out.

``torch.export.load`` trusts its file: it unpickles whatever a weight, a constant or the example inputs claim to be,
evaluates the expressions of shapes (sympy) and the guards, resolves the name of an operator to any attribute of torch,
generates Python from the names of values and runs it, and imports what the structure of inputs names. So nothing of the
file reaches it unseen. `checked_program` reads the archive with the standard library alone, holds every string of the
program against what a string in its place may be, and writes a new archive from what has passed:

    kept        the graph (operators of ATen and of Python's arithmetic only), plain tensors, module names of each node
    left out    guards, stack traces, other metadata, compiled code, extra files; example inputs are handed back apart
    refused     everything else, with a sentence
"""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from quantgui.errors import NetworkError
from quantgui.network.pytorch.strings import (
    MOST_DEPTH,
    MOST_TEXT,
    NAME,
    WORD,
    is_operator,
    is_shape_expression,
    is_structure,
)

MOST_JSON_BYTES: Final = 1 << 28
MOST_RECORDS: Final = 1_000_000
_MODEL = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_SAMPLES = "data/sample_inputs/model.pt"
_SMALL = ("archive_format", "archive_version", "byteorder", ".data/version")
_CONFIGS = {_WEIGHTS: "model_weights_config.json", _CONSTANTS: "model_constants_config.json"}
_TENSOR_FILES = {_WEIGHTS: re.compile(r"weight_\d{1,9}"), _CONSTANTS: re.compile(r"tensor_\d{1,9}")}

_TO_CPU = ("cuda", "mps", "xpu", "hpu", "xla")


@dataclass(frozen=True, eq=False)
class CheckedProgram:
    """A saved program that torch may read.

    Attributes:
        archive: the new archive.
        samples: the pickled example inputs, not looked at: to be read with ``weights_only=True`` or not at all.
        inputs: names of the user's inputs, in order.
    """

    archive: io.BytesIO
    samples: bytes
    inputs: tuple[str, ...]


def checked_program(path: Path) -> CheckedProgram:
    """Return what may be read of the program at `path`.

    Raises:
        NetworkError: the file is no saved program, is damaged, or holds what could run code.
    """
    if path.is_dir():
        raise NetworkError(f"'{path.name}' is a folder; choose a .pt2 file.")
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path.name, archive, path.stat().st_size).program()
    except FileNotFoundError as error:
        raise NetworkError(f"There is no file '{path}'.") from error
    except OSError as error:
        raise NetworkError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise NetworkError(f"'{path.name}' is damaged, incomplete or no program saved by torch.export.save.") from error


class _Reader:
    """Reads one archive; its methods raise NetworkError."""

    def __init__(self, name: str, archive: zipfile.ZipFile, size: int) -> None:
        self._name = name
        self._archive = archive
        self._records = self._look_through(size)

    def program(self) -> CheckedProgram:
        self._refuse_other_kinds()
        program = self._json(_MODEL)
        checked = _Program(self).check(program)
        kept = {_MODEL: json.dumps(checked).encode(), _SAMPLES: b""}
        for folder in (_WEIGHTS, _CONSTANTS):
            kept |= self._tensors(folder)
        kept |= {name: self._read(name) for name in _SMALL if name in self._records}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
            for name, content in kept.items():
                new.writestr(f"program/{name}", content)
        buffer.seek(0)
        samples = self._read(_SAMPLES) if _SAMPLES in self._records else b""
        return CheckedProgram(buffer, samples, _user_inputs(checked))

    def refuse(self, what: str) -> NoReturn:
        raise NetworkError(
            f"'{self._name}' {what}, so it is not opened: opening a network runs no code of its file. Save it again "
            "with torch.export.save, or open it by its Python code (module:factory) and weights."
        )

    def damaged(self, what: str) -> NoReturn:
        raise NetworkError(f"'{self._name}' {what}, so it is damaged.")

    # --- the archive ---------------------------------------------------------------------------------------------

    def _look_through(self, size: int) -> dict[str, zipfile.ZipInfo]:
        infos = self._archive.infolist()
        if len(infos) > MOST_RECORDS or sum(info.file_size for info in infos) > size:
            self.refuse("unpacks to more than it is")
        records: dict[str, zipfile.ZipInfo] = {}
        roots = set()
        for info in infos:
            root, _, name = info.filename.partition("/")
            parts = info.filename.split("/")
            strange = "\\" in info.filename or "\0" in info.filename or ":" in parts[0]
            if strange or any(part in ("", ".", "..") for part in parts[:-1]):
                self.refuse(f"holds a record with the path '{info.filename[:80]}'")
            if stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & 1:
                self.refuse("holds links or encrypted records")
            if info.compress_type != zipfile.ZIP_STORED:
                self.refuse("holds compressed records")
            if name in records:
                self.refuse(f"holds the record '{name[:80]}' twice")
            roots.add(root)
            if name:
                records[name] = info
        if len(roots) > 1:
            plain = {info.filename for info in infos}
            if "serialized_exported_program.json" in plain:
                self._refuse_old()
            self.refuse("holds several archives")
        return records

    def _refuse_other_kinds(self) -> None:
        names = self._records
        if _MODEL in names:
            if others := [n for n in names if n.startswith("models/") and n != _MODEL]:
                self.refuse(f"holds several programs ('{others[0][:80]}')")
            return
        if any(name.startswith("data/aotinductor/") for name in names):
            self.refuse("holds code compiled for one machine (AOTInductor) instead of a network")
        if is_torchscript(names):
            raise NetworkError(torchscript_sentence(self._name))
        if "data.pkl" in names:
            raise NetworkError(weights_sentence(self._name))
        if "serialized_exported_program.json" in names:
            self._refuse_old()
        raise NetworkError(f"'{self._name}' is no program saved by torch.export.save.")

    def _refuse_old(self) -> NoReturn:
        raise NetworkError(
            f"'{self._name}' was saved by an old version of PyTorch; save it again with torch.export.save "
            "of 2.8 or newer."
        )

    def _read(self, name: str) -> bytes:
        return self._archive.read(self._records[name])

    def _json(self, name: str) -> Any:
        if name not in self._records:
            self.damaged(f"has no record '{name}'")
        if self._records[name].file_size > MOST_JSON_BYTES:
            self.refuse(f"has a record '{name}' of {self._records[name].file_size} bytes")
        try:
            return json.loads(self._read(name))
        except (ValueError, RecursionError) as error:
            raise NetworkError(f"'{self._name}' is damaged: the record '{name}' is no JSON.") from error

    def _tensors(self, folder: str) -> dict[str, bytes]:
        """Return the plain tensors of a folder and the list of them; refuse pickled ones and objects."""
        listed = self._json(folder + _CONFIGS[folder])
        entries = listed.get("config") if isinstance(listed, dict) else None
        if not isinstance(entries, dict):
            self.damaged("has no list of its tensors")
        kept = {folder + _CONFIGS[folder]: json.dumps({"config": entries}).encode()}
        for name, entry in entries.items():
            if not isinstance(entry, dict):
                self.damaged("has no list of its tensors")
            file = entry.get("path_name")
            if (
                entry.get("use_pickle") is not False
                or not isinstance(file, str)
                or not _TENSOR_FILES[folder].fullmatch(file)
            ):
                self.refuse(f"holds '{str(name)[:80]}' as a pickled object")
            if not WORD.fullmatch(name) or not isinstance(entry.get("tensor_meta"), dict):
                self.damaged("has no list of its tensors")
            _Program(self).check_part(entry["tensor_meta"])
            if folder + file not in self._records:
                self.damaged(f"has no values for '{name}'")
            kept[folder + file] = self._read(folder + file)
        kept[folder + _CONFIGS[folder]] = json.dumps({"config": entries}).encode()
        return kept


class _Program:
    """Holds the strings of a program against what they may be."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def check(self, program: Any) -> dict[str, Any]:
        """Return the program without what is left out."""
        if not isinstance(program, dict) or not isinstance(program.get("graph_module"), dict):
            self._reader.damaged("holds no graph")
        program["guards_code"] = []
        program["graph_module"]["metadata"] = {}
        self.check_part(program)
        return program

    def check_part(self, value: Any, key: str = "", depth: int = 0) -> None:
        """Check `value`, which stands under `key`, and everything in it."""
        if depth > MOST_DEPTH:
            self._reader.refuse("is nested too deeply")
        if isinstance(value, dict):
            self._check_object(value, key, depth)
        elif isinstance(value, list):
            for each in value:
                self.check_part(each, key, depth + 1)
        elif isinstance(value, str):
            self._check_text(value, key)

    def _check_object(self, value: dict[str, Any], key: str, depth: int) -> None:
        if isinstance(value.get("metadata"), dict):
            stack = value["metadata"].get("nn_module_stack")
            value["metadata"] = {"nn_module_stack": stack} if isinstance(stack, str) else {}
        if key == "device" and value.get("type") in _TO_CPU:
            value["type"], value["index"] = "cpu", None
        for name, each in value.items():
            if not WORD.fullmatch(name):
                self._reader.refuse(f"names a value '{name[:80]}'")
            if name in ("as_custom_obj", "as_opaque") or (name == "custom_obj_values" and each):
                self._reader.refuse("holds an object that is no tensor")
            self.check_part(each, name, depth + 1)

    def _check_text(self, text: str, key: str) -> None:
        match key:
            case "expr_str":
                good = is_shape_expression(text)
            case "target":
                good = is_operator(text)
            case "in_spec" | "out_spec":
                good = not text or is_structure(text)
            case "nn_module_stack" | "as_string" | "as_strings":
                good = len(text) <= MOST_TEXT and "\0" not in text
            case "name" | "as_name":
                good = NAME.fullmatch(text) is not None
            case _:
                good = WORD.fullmatch(text) is not None
        if not good:
            what = "the operator" if key == "target" else "the expression" if key == "expr_str" else "the text"
            self._reader.refuse(f"holds {what} '{' '.join(text[:80].split())}', which is none of a network's")


def _user_inputs(program: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the tensors that the user feeds."""
    names = []
    for spec in program["graph_module"].get("signature", {}).get("input_specs", ()):
        argument = spec.get("user_input", {}).get("arg", {}) if isinstance(spec, dict) else {}
        if isinstance(argument, dict) and isinstance(argument.get("as_tensor"), dict):
            names.append(str(argument["as_tensor"].get("name", "")))
    return tuple(names)


# --- sentences that several readers say ---------------------------------------------------------------------------


def weights_sentence(name: str) -> str:
    """Return what to do with a file of weights, or with a pickled module: neither says what network it belongs to."""
    return (
        f"'{name}' holds weights or a pickled module and is not opened by itself, as it does not say what "
        "network it belongs to: open the Python code that makes it (module:factory, or FILE.py:factory) together with "
        "these weights, or save the network with torch.export.save as .pt2."
    )


def torchscript_sentence(name: str) -> str:
    """Return what to do with a TorchScript file."""
    return (
        f"'{name}' is a TorchScript file, which holds code and is not opened: save the network with torch.export.save "
        "as .pt2, or open its Python code (module:factory) together with its weights."
    )


def archive_sentence(path: Path) -> str:
    """Return what to do with a zip archive that was opened as if it were an ONNX file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {part for name in archive.namelist() for part in (name, name.partition("/")[2])}
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        names = set()
    if _MODEL in names:
        return f"'{path.name}' is a program saved by torch.export.save; give it the ending .pt2 to open it."
    if is_torchscript(names):
        return torchscript_sentence(path.name)
    if "data.pkl" in names:
        return weights_sentence(path.name)
    return f"'{path.name}' is an archive; an ONNX network is needed."


def is_torchscript(names: Collection[str]) -> bool:
    """Return whether an archive with the records `names` is a TorchScript file."""
    return "constants.pkl" in names or any(name.startswith("code/") for name in names)
