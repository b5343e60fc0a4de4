"""The language of the layers' filter: words, and comparisons such as ``bits>4 sqnr<20 op=conv params>=10k``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from quantgui.errors import SpecError


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What can be asked of a layer; NaN where it is not known (yet)."""

    name: str
    op: str
    format: str
    bits: float
    activation_bits: float
    sqnr: float
    parameters: float
    macs: float
    bytes: float
    differs: bool = False
    """Whether the pinned configurations A and B differ in it."""
    violates: bool = False
    """Whether the target cannot run it as it is configured."""


Test = Callable[[LayerFacts], bool]

NUMBERS: dict[str, Callable[[LayerFacts], float]] = {
    "bits": lambda facts: facts.bits,
    "abits": lambda facts: facts.activation_bits,
    "sqnr": lambda facts: facts.sqnr,
    "params": lambda facts: facts.parameters,
    "macs": lambda facts: facts.macs,
    "bytes": lambda facts: facts.bytes,
}
TEXTS: dict[str, Callable[[LayerFacts], str]] = {
    "name": lambda facts: facts.name,
    "op": lambda facts: facts.op,
    "format": lambda facts: facts.format,
}
_FORMATS: dict[str, Callable[[LayerFacts], str]] = {
    "bits": lambda facts: facts.format.partition(" / ")[0],
    "abits": lambda facts: facts.format.partition(" / ")[2] or "float32",
}
"""What bits are compared with where no number is given, as in ``w=nf4``."""
DIFFERS = "differs"
"""The word that finds the layers in which the pinned configurations A and B differ."""
VIOLATES = "violates"
"""The word that finds the layers that the target cannot run."""
_SYNONYMS = {"parameters": "params", "type": "op", "size": "bytes", "w": "bits", "a": "abits"}
_OF_CONFIG = {"bits", "abits", "bytes", "format", "sqnr"}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_UNITS = {"": 1.0, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "db": 1.0}
_TOKEN = re.compile(r"\s*(?:([A-Za-z]+)\s*(<=|>=|!=|<|>|=)\s*(\S+)|(\S+))")
_NUMBER = re.compile(r"([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class LayerFilter:
    """A filter that has been understood; all its tests must hold."""

    tests: tuple[Test, ...] = ()
    uses_results: bool = False
    """Whether it asks for something the engine computes, so that rows come and go."""
    uses_config: bool = False
    """Whether it asks for something the configuration decides."""
    uses_target: bool = False
    """Whether it asks what the target cannot run."""
    uses_pins: bool = False
    """Whether it asks what differs between the pinned configurations."""

    def accepts(self, facts: LayerFacts) -> bool:
        """Return whether a layer passes."""
        return all(test(facts) for test in self.tests)


def parse_filter(text: str) -> LayerFilter:
    """Return the filter that `text` describes.

    Raises:
        SpecError: a field is unknown, or is compared with something that is no number.
    """
    tests: list[Test] = []
    fields = set()
    uses_pins = uses_target = False
    for match in _TOKEN.finditer(text.rstrip()):
        field, comparison, value, word = match.groups()
        if word is not None:
            tests.append(_word(word))
            uses_pins |= word.lower().removeprefix("-") == DIFFERS
            uses_target |= word.lower().removeprefix("-") == VIOLATES
            continue
        name = _SYNONYMS.get(field.lower(), field.lower())
        fields.add(name)
        tests.append(_comparison(name, comparison, value))
    return LayerFilter(tuple(tests), "sqnr" in fields, bool(fields & _OF_CONFIG) or uses_target, uses_target, uses_pins)


def _word(word: str) -> Test:
    if any(sign in word for sign in "<>"):
        raise SpecError(f"'{word}' is incomplete; write a comparison such as bits>4 or sqnr<20.")
    if word.startswith("-") and len(word) > 1:
        inner = _word(word[1:])
        return lambda facts: not inner(facts)
    sought = word.lower()
    if sought == DIFFERS:
        return lambda facts: facts.differs
    if sought == VIOLATES:
        return lambda facts: facts.violates
    return lambda facts: sought in facts.name.lower() or sought in facts.op.lower()


def _comparison(field: str, comparison: str, value: str) -> Test:
    if field in TEXTS and comparison in ("=", "!="):
        read, sought, wanted = TEXTS[field], value.lower(), comparison == "="
        return lambda facts: (sought in read(facts).lower()) == wanted
    if field not in NUMBERS:
        known = ", ".join([*NUMBERS, *TEXTS])
        raise SpecError(f"There is no '{field}' to filter by; use one of {known}.")
    if field in _FORMATS and comparison in ("=", "!=") and _NUMBER.fullmatch(value) is None:
        read_format, sought_format, equal = _FORMATS[field], value.lower(), comparison == "="
        return lambda facts: (sought_format in read_format(facts).lower()) == equal
    number, compare, get = _number(field, value), _COMPARISONS[comparison], NUMBERS[field]
    # Not known (NaN) is neither more nor less, and not unequal either.
    return lambda facts: not math.isnan(get(facts)) and compare(get(facts), number)


def _number(field: str, text: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS:
        raise SpecError(f"'{text}' is no number to compare {field} with.")
    return float(match[1]) * _UNITS[match[2].lower()]
