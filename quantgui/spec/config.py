"""The configuration: what the user wants for every layer of a network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from quantgui.spec.quantizer import FLOAT, LayerSpec


@dataclass(frozen=True, slots=True)
class QuantConfig:
    """A default and sparse overrides by layer name. Immutable; every change makes a new value."""

    default: LayerSpec = FLOAT
    overrides: Mapping[str, LayerSpec] = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""
    """Where it came from (a preset's name, a file's name); for people only."""

    def spec_for(self, layer: str) -> LayerSpec:
        """Return what is wanted for `layer`."""
        return self.overrides.get(layer, self.default)

    def with_overrides(self, specs: Mapping[str, LayerSpec]) -> QuantConfig:
        """Return a new configuration that differs in the layers of `specs`."""
        merged = {**self.overrides, **specs}
        sparse = {layer: spec for layer, spec in merged.items() if spec != self.default}
        return replace(self, overrides=MappingProxyType(sparse))

    def __hash__(self) -> int:
        return hash((self.default, frozenset(self.overrides.items())))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantConfig):
            return NotImplemented
        return self.default == other.default and dict(self.overrides) == dict(other.overrides)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.default, dict(self.overrides), self.name))


def _rebuild(default: LayerSpec, overrides: dict[str, LayerSpec], name: str) -> QuantConfig:
    return QuantConfig(default, MappingProxyType(overrides), name)


def changed_layers(old: QuantConfig, new: QuantConfig, layers: Iterable[str]) -> frozenset[str]:
    """Return the layers whose spec differs between two configurations."""
    return frozenset(layer for layer in layers if old.spec_for(layer) != new.spec_for(layer))


@dataclass(frozen=True, slots=True)
class UnknownName:
    """A name in a configuration that matches no layer, with the nearest name that does."""

    name: str
    nearest: str | None

    def __str__(self) -> str:
        hint = f"; did you mean '{self.nearest}'?" if self.nearest else ""
        return f"The configuration names the layer '{self.name}', which the network does not have{hint}"


def unknown_names(config: QuantConfig, layers: Iterable[str]) -> tuple[UnknownName, ...]:
    """Return the overrides of `config` that name no layer of `layers`."""
    known = list(layers)
    missing = [name for name in config.overrides if name not in set(known)]
    return tuple(
        UnknownName(name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.0)), None)) for name in missing
    )
