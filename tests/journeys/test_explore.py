"""`quantgui.explore`: a real window on a live module, which a script uses and closes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import quantgui
from quantgui import notebook
from quantgui.errors import DataError, MetricError, QuantGuiError
from quantgui.notebook import metric_reference, write_data
from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import find_preset
from tests.pytorch_modules import picture

ROOT = Path(__file__).parents[2]
WINDOW = """
import sys
from PySide6.QtCore import QTimer
import quantgui.gui.app as app
from quantgui.__main__ import main
from quantgui.spec.presets import find_preset

act = sys.argv.pop(1)
start = app.start

def start_and_use(window, *what):
    start(window, *what)
    window.session.data_opened.connect(lambda _: QTimer.singleShot(0, lambda: use(window)))

def use(window):
    layers = [layer.name for layer in window.session.summary.layers]
    if not window.session.data.has_labels or "blocks.0.conv1" not in layers:
        sys.exit(f"something is lost: {layers}")
    if act == "choose":
        window.presenter.apply_preset(find_preset("W8"))
    window.close()

app.start = start_and_use
sys.exit(main())
"""


@pytest.fixture
def window_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that says what the script in the window does."""
    script = tmp_path / "window.py"
    script.write_text(WINDOW)
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def acts(act: str) -> None:
        monkeypatch.setattr(notebook, "window_command", lambda words: [sys.executable, str(script), act, *words])

    return acts


def batches():
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(4, 3, 16, 16, generator=generator), torch.zeros(4, dtype=torch.int64)


def test_that_the_configuration_of_the_closed_window_is_returned(window_that) -> None:
    module = picture().train()
    before = {name: values.clone() for name, values in module.state_dict().items()}
    example = torch.zeros(1, 3, 16, 16)
    window_that("choose")
    chosen = quantgui.explore(module, example, data=batches(), samples=16, exporter="old")
    assert chosen.spec_for("blocks.0.conv1").weights == find_preset("W8").spec.weights
    assert module.training
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())
    window_that("leave")
    begun = QuantConfig().with_overrides({"stem": find_preset("W4").spec})
    assert quantgui.explore(module, example, data=batches(), samples=16, exporter="old", config=begun) == begun


@pytest.mark.parametrize("left", ["nothing", "everything float"])
def test_that_none_is_returned_where_nothing_was_chosen(left, monkeypatch) -> None:
    write = "import sys; from quantgui.spec import serialization as s, config as c; from pathlib import Path; "
    write += "s.save_config(c.QuantConfig(), Path(sys.argv[-1]))"
    code = "pass" if left == "nothing" else write
    monkeypatch.setattr(notebook, "window_command", lambda words: [sys.executable, "-c", code, *words])
    assert quantgui.explore(picture(), torch.zeros(1, 3, 16, 16), exporter="old") is None


def test_that_a_window_that_cannot_be_opened_is_told(monkeypatch) -> None:
    monkeypatch.setattr(notebook, "window_command", lambda _: [sys.executable, "-c", "raise SystemExit('no screen')"])
    with pytest.raises(QuantGuiError, match="no screen"):
        quantgui.explore(picture(), torch.zeros(1, 3, 16, 16), exporter="old")


def test_that_asking_for_explore_imports_nothing_heavy() -> None:
    heavy = "', '.join({'torch', 'onnx', 'PySide6'} & set(sys.modules)) or None"
    code = f"import sys, quantgui; quantgui.explore; sys.exit({heavy})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    with pytest.raises(AttributeError):
        quantgui.explored  # noqa: B018


# --- the data ----------------------------------------------------------------------------------------------------


def written(data: object, tmp_path: Path, names: tuple[str, ...] = ("x",), samples: int = 512) -> dict[str, np.ndarray]:
    with np.load(write_data(data, names, tmp_path / "d.npz", samples)) as file:
        return dict(file)


def test_that_data_is_taken_in_every_form(tmp_path: Path) -> None:
    x, y = torch.arange(24.0).reshape(6, 4), torch.arange(6)
    assert write_data("random:8", ("x",), tmp_path / "unused.npz") == "random:8"
    assert write_data(tmp_path, ("x",), tmp_path / "unused.npz") == str(tmp_path)
    for data in (x, x.numpy(), {"x": x}, [x[:3], x[3:]], (x,)):
        assert np.array_equal(written(data, tmp_path)["x"], x.numpy())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    for data in ((x, y), {"x": x, "labels": y}, loader, ((x[i : i + 1], y[i : i + 1]) for i in range(6))):
        found = written(data, tmp_path)
        assert np.array_equal(found["x"], x.numpy())
        assert np.array_equal(found["labels"], y.numpy())
    assert len(written(loader, tmp_path, samples=5)["x"]) == 5


def test_that_data_that_does_not_fit_is_a_sentence(tmp_path: Path) -> None:
    x = torch.zeros(2, 3)
    for data in (3, [], [3], (x, x, x), [x, torch.zeros(2, 5)], [{"x": x}, {"y": x}], object()):
        with pytest.raises(DataError) as caught:
            write_data(data, ("x",), tmp_path / "d.npz")
        assert str(caught.value).endswith(".")


def test_that_a_metric_is_found_in_its_file(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_metrics.py").write_text("def closeness(outputs, labels):\n    return outputs.mean(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_metrics

    assert metric_reference(my_metrics.closeness) == f"{tmp_path / 'my_metrics.py'}:closeness"
    assert metric_reference("m.py:f") == "m.py:f"
    assert metric_reference(None) == ""
    for metric in (lambda *_: 0, "accuracy", np.mean):
        with pytest.raises(MetricError):
            metric_reference(metric)
