"""What is taken away by way of the engine: files of other tools, read back, and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantgui.engine.bench import Bench
from quantgui.engine.requests import OpenData, OpenNetwork, ReadSettings, WriteReport, WriteSettings
from quantgui.errors import DataError, ExportError
from quantgui.results import ReportWritten, SettingsRead, SettingsWritten
from quantgui.spec.presets import find_preset, preset_config

DIGITS = Path(__file__).parents[2] / "sample_models/digits"


@pytest.fixture
def bench() -> Bench:
    bench = Bench(cache_bytes=2**26)
    list(bench.handle(OpenNetwork(str(DIGITS / "digits.onnx"))))
    return bench


def test_that_encodings_hold_ranges_and_need_data_for_them(bench: Bench, tmp_path: Path) -> None:
    config = preset_config(find_preset("W8A8"), bench.network.summary.layers)
    path = tmp_path / "digits.encodings"
    with pytest.raises(DataError, match="come from data"):
        list(bench.handle(WriteSettings(config, str(path), "aimet-1.0")))
    assert not path.exists()
    list(bench.handle(OpenData(str(DIGITS / "digits.calibration.npz"))))
    *_, written = bench.handle(WriteSettings(config, str(path), "aimet-1.0"))
    assert isinstance(written, SettingsWritten)
    *_, read = bench.handle(ReadSettings(str(path)))
    assert isinstance(read, SettingsRead)
    assert read.unknown == ()
    for layer in bench.network.summary.layers:
        if not layer.keeps_float:
            assert str(read.config.spec_for(layer.name).weights) == str(config.spec_for(layer.name).weights)


def test_that_weights_alone_need_no_data(bench: Bench, tmp_path: Path) -> None:
    config = preset_config(find_preset("W4"), bench.network.summary.layers)
    *_, written = bench.handle(WriteSettings(config, str(tmp_path / "x.json"), "qnn"))
    assert isinstance(written, SettingsWritten)


def test_that_the_network_itself_is_not_overwritten(bench: Bench) -> None:
    config = preset_config(find_preset("W4"), bench.network.summary.layers)
    before = (DIGITS / "digits.onnx").read_bytes()
    for request in (
        WriteSettings(config, str(DIGITS / "digits.onnx"), "torchao"),
        WriteReport(config, str(DIGITS / "digits.onnx")),
    ):
        with pytest.raises(ExportError):
            list(bench.handle(request))
    assert (DIGITS / "digits.onnx").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}", b"GGUF"])
def test_that_a_file_of_no_tool_is_a_sentence(bench: Bench, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"\.$"):
        list(bench.handle(ReadSettings(str(path))))
    with pytest.raises(ExportError, match="Cannot read"):
        list(bench.handle(ReadSettings(str(tmp_path / "missing"))))


def test_that_the_report_is_written_with_and_without_data(bench: Bench, tmp_path: Path) -> None:
    config = preset_config(find_preset("W4"), bench.network.summary.layers)
    path = tmp_path / "report.html"
    *_, written = bench.handle(WriteReport(config, str(path)))
    assert isinstance(written, ReportWritten)
    assert "against the float network" not in path.read_text()
    list(bench.handle(OpenData(str(DIGITS / "digits.evaluation.npz"))))
    *_, written = bench.handle(WriteReport(config, str(path)))
    assert isinstance(written, ReportWritten)
    assert written.file_bytes == path.stat().st_size
    assert "against the float network" in path.read_text()
