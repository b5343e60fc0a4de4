"""The open document as a value: what is open, how it is configured, what is selected. A change makes a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from quantgui.results import DataSummary, LayerInfo, NetworkSummary
from quantgui.session.project import Project
from quantgui.session.recent import RecentFile
from quantgui.spec.config import QuantConfig, UnknownName, unknown_names
from quantgui.spec.pytorch_source import DEFAULT_OPTIONS, PytorchOptions
from quantgui.spec.quantizer import FLOAT, InputWeightedError, LayerSpec
from quantgui.spec.size import network_bytes
from quantgui.spec.targets import TARGETS, Target

_EDITED = " edited"
SIMULATION = TARGETS[0]

Side = Literal["A", "B"]
"""One of the two configurations that are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """What is open, and what the user has made of it.

    Attributes:
        summary: the open network.
        layers: its layers by name, in its order.
        data: the open data.
        metric: the user's metric function, ``FILE.py:function``; empty for the automatic metric.
        config: the configuration.
        saved_config: the configuration as it was last saved or loaded.
        config_path: the file it was read from or saved to, or empty.
        selection: names of the selected layers; the first is the one the tabs show.
        pins: the configurations A and B that are compared.
        target: the runtime that the network is meant for.
    """

    summary: NetworkSummary | None = None
    layers: Mapping[str, LayerInfo] = field(default_factory=dict)
    data: DataSummary | None = None
    metric: str = ""
    config: QuantConfig = field(default_factory=QuantConfig)
    saved_config: QuantConfig = field(default_factory=QuantConfig)
    config_path: str = ""
    selection: tuple[str, ...] = ()
    pins: tuple[QuantConfig | None, QuantConfig | None] = (None, None)
    target: Target = SIMULATION

    # --- other documents -----------------------------------------------------------------------------------------

    def with_network(self, summary: NetworkSummary | None) -> Document:
        """Return the document of another network, all float; metric and target are the user's and stay."""
        layers = {} if summary is None else {layer.name: layer for layer in summary.layers}
        opened = Document(summary, layers, metric=self.metric, target=self.target)
        first = next((name for name in layers if opened.is_editable(name)), next(iter(layers), None))
        return replace(opened, selection=() if first is None else (first,))

    def with_specs(self, specs: Mapping[str, LayerSpec]) -> QuantConfig:
        """Return the configuration with new specs for layers, by name; those that cannot be changed keep theirs."""
        editable = {name: spec for name, spec in specs.items() if self.is_editable(name)}
        name = self.config.name
        edited = name if not name or name.endswith(_EDITED) else f"{name}{_EDITED}"
        return replace(self.config.with_overrides(editable), name=edited)

    def with_pin(self, side: Side, config: QuantConfig | None) -> Document:
        """Return the document with another configuration A or B."""
        first, second = self.pins
        return replace(self, pins=(config, second) if side == "A" else (first, config))

    def fitted(self, config: QuantConfig) -> tuple[QuantConfig, tuple[UnknownName, ...]]:
        """Return what of `config` belongs to layers of this network, and its names that match none."""
        known = {name: spec for name, spec in config.overrides.items() if name in self.layers}
        fitting = QuantConfig(config.default, name=config.name).with_overrides(known)
        return fitting, unknown_names(config, self.layers)

    # --- what follows from it ------------------------------------------------------------------------------------

    @property
    def is_saved(self) -> bool:
        """Whether nothing would be lost without saving the configuration."""
        return self.summary is None or self.config == self.saved_config

    @property
    def current(self) -> LayerInfo | None:
        """The layer that the tabs show."""
        return self.layers[self.selection[0]] if self.selection else None

    @property
    def selected_layers(self) -> tuple[LayerInfo, ...]:
        """The selected layers."""
        return tuple(self.layers[name] for name in self.selection)

    def known(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of `names` that are layers."""
        return tuple(name for name in names if name in self.layers)

    def is_editable(self, name: str) -> bool:
        """Return whether the spec of a layer can be changed."""
        layer = self.layers.get(name)
        return layer is not None and not layer.read_only and layer.finite

    def spec_for(self, name: str) -> LayerSpec:
        """Return what happens to a layer; those that cannot be changed stay as they are in the file."""
        return self.config.spec_for(name) if self.is_editable(name) else FLOAT

    def similar_layers(self, name: str) -> tuple[LayerInfo, ...]:
        """Return all layers that can be changed and have the operator of the layer `name`."""
        op = self.layers[name].op
        return tuple(x for x in self.layers.values() if x.op == op and self.is_editable(x.name))

    def layers_by_data(self) -> frozenset[str]:
        """Return the layers whose weights are quantized otherwise with other data."""
        specs = ((name, self.spec_for(name).weights) for name in self.layers)
        return frozenset(n for n, s in specs if s is not None and isinstance(s.range_estimator, InputWeightedError))

    def violation(self, name: str) -> str:
        """Return why the target cannot run a layer as it is configured; empty where it can."""
        layer = self.layers.get(name)
        if layer is None or not self.target.runs or not self.is_editable(name):
            return ""
        spec = self.config.spec_for(name)
        return self.target.refusal(layer.op, spec, quantizes_activations=layer.quantizes_activations) or ""

    def violations(self) -> tuple[str, ...]:
        """Return the layers that the target cannot run as they are configured."""
        if not self.target.runs:
            return ()
        known: dict[tuple[str, bool, LayerSpec], bool] = {}
        found = []
        for layer in self.layers.values():
            key = (layer.op, layer.quantizes_activations, self.spec_for(layer.name))
            if key not in known:
                known[key] = bool(self.violation(layer.name))
            # Layers that cannot be changed have no violation of the user's.
            if known[key] and self.is_editable(layer.name):
                found.append(layer.name)
        return tuple(found)

    def size(self, config: QuantConfig) -> int:
        """Return the bytes of the network under `config`."""
        if self.summary is None:
            return 0
        return network_bytes(self.summary.float_bytes, self.summary.layers, config)

    # --- what is remembered of it --------------------------------------------------------------------------------

    @property
    def pytorch(self) -> PytorchOptions:
        """How the open network was made from a PyTorch network; the usual options where it is none."""
        conversion = None if self.summary is None else self.summary.conversion
        return DEFAULT_OPTIONS if conversion is None else conversion.options

    def project(self) -> Project | None:
        """Return what is needed to open everything again; None where nothing is open."""
        if self.summary is None:
            return None
        data = self.data
        return Project(
            self.summary.path,
            self.config,
            "" if data is None else data.source,
            None if data is None else data.image_options,
            self.metric,
            self.config_path,
            "" if data is None else data.calibration,
            self.target.name,
            self.pytorch,
        )

    def recent(self) -> RecentFile | None:
        """Return the entry for the list of what was opened lately; None where nothing is open."""
        if self.summary is None:
            return None
        data, calibration = ("", "") if self.data is None else (self.data.source, self.data.calibration)
        return RecentFile(self.summary.path, data, self.config_path, calibration, self.pytorch.untrusted())
