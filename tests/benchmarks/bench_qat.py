"""What training makes of networks that rounding ruins, by ``quantgui qat`` with the usual settings.

Three sets of samples: some are trained on, others decide which step is kept, and again others judge the written file,
once, in ONNX Runtime: other digits, mosaics of other pictures, and for efficientnet-lite0 other crops of the same
pictures (of others it knows less: fifteen have taught it; three such are judged too).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from quantgui.spec.config import QuantConfig
from quantgui.spec.presets import activation_spec, weight_spec
from quantgui.spec.quantizer import LayerSpec, MinMax
from quantgui.spec.serialization import save_config
from tests.benchmarks.measuring import Row
from tests.networks import Array, digits, network_path, package_file

TESTED: Final = ("astronaut.png", "rocket.jpg", "flower.jpg")
"""Pictures that are never trained on, and decide nothing."""
TRAINED: Final = (
    *("chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "ihc.png", "retina.jpg"),
    *("hubble_deep_field.jpg", "color.png", "camera.png", "brick.png", "grass.png", "gravel.png", "coins.png"),
    *("moon.png", "china.jpg"),
)
COLOURED: Final = ("chelsea.png", "coffee.png", "motorcycle_left.png", "china.jpg", "retina.jpg", "ihc.png")
_METRIC: Final = """
import numpy as np

def psnr(outputs, labels):
    return -10 * np.log10(np.square(outputs.astype(np.float64) - labels).mean(axis=(1, 2, 3)))
"""


class Target(NamedTuple):
    """A network to be trained: its bits, words of the command, and what is to be reached.

    `again` are the words of a second command, which goes on from what the first has found.
    """

    network: str
    bits: int
    words: tuple[str, ...]
    reached: str
    least: float
    gain: bool = False
    again: tuple[str, ...] = ()


PIECES: Final = ("--scope", "blocks", "--batch", "16")
TARGETS: Final = (
    Target("ccexam-mnist", 2, (), ">= 97 % in 180 s", 0.97),
    Target("demosaicnet", 4, ("--steps", "60", "--batch", "8"), ">= +6 dB PSNR", 6.0, gain=True),
    Target(
        "efficientnet-lite0",
        4,
        (*PIECES, "--steps", "800"),
        ">= 85 %",
        0.85,
        again=(*PIECES, "--steps", "1600", "--seed", "1", "--learning-rate", "0.003"),
    ),
)


def rows() -> Iterator[Row]:
    """Yield a row for each network."""
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            yield _row(target, Path(folder))


def _row(target: Target, folder: Path) -> Row:
    material = write_material(target.network, folder)
    words = material.words
    widest = None if target.network == "efficientnet-lite0" else MinMax()
    spec = LayerSpec(weight_spec(target.bits, range_estimator=widest), activation_spec(8))
    save_config(QuantConfig(spec), folder / "config.json")
    words = [*words, "--config", str(folder / "config.json")]
    output = ["-o", str(folder / "trained.onnx"), "--config-out", str(folder / "trained.json")]
    told, processor = _told(["qat", *words, *output, *target.words], folder)
    seconds = told["training_seconds"]
    if target.again:
        onward = [*words[:-1], str(folder / "trained.json")]
        told, more = _told(["qat", *onward, *output[:2], *target.again], folder)
        processor, seconds = processor + more, seconds + told["training_seconds"]
    scores = {
        name: _scores(target.network, folder / "trained.onnx", arrays) for name, arrays in material.judged.items()
    }
    _told(["export", *words, "-o", str(folder / "untrained.onnx")], folder)
    before = _scores(target.network, folder / "untrained.onnx", material.judged["others"]).mean()
    after = scores["others"].mean()
    commands = ", then ".join(" ".join(each) for each in (target.words, target.again) if each)
    return Row(
        f"{target.network} W{target.bits}A8, {commands}",
        f"{told['metric']} {before:.3f} -> "
        + ", ".join(f"{_mean(each)} ({name})" for name, each in scores.items())
        + f"; {told['after']['value']:.3f} where the step was chosen (float {told['float']['value']:.3f}, "
        f"SQNR {told['before']['output_sqnr_db']:.1f} -> {told['after']['output_sqnr_db']:.1f} dB)",
        f"{seconds:.0f} s, {processor:.0f} s of processor",
        budget=target.reached,
        held=bool((after - before if target.gain else after) >= target.least),
    )


def _mean(scores: Array) -> str:
    return f"{scores.mean():.3f} ± {scores.std(ddof=1) / np.sqrt(len(scores)):.3f}"


def _scores(network: str, path: Path, arrays: Mapping[str, Array]) -> Array:
    """Return the score of each sample for a quantized file: right or not, PSNR in dB, or the float network's class."""
    found = _outputs(path, arrays["input"])
    match network:
        case "ccexam-mnist":
            return (found.argmax(1) == arrays["labels"]).astype(np.float64)
        case "demosaicnet":
            return -10 * np.log10(np.square(found.astype(np.float64) - arrays["labels"]).mean(axis=(1, 2, 3)))
        case _:
            return (found.argmax(1) == _outputs(network_path(network), arrays["input"]).argmax(1)).astype(np.float64)


def _outputs(path: Path, inputs: Array) -> Array:
    """Return what ONNX Runtime makes of samples, as the file says it: quantizing and back, and float between."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    rows = [session.run(None, {name: inputs[i : i + 8]})[0] for i in range(0, len(inputs), 8)]
    return np.asarray(np.concatenate(rows))


def _told(words: Sequence[str], folder: Path) -> tuple[dict[str, Any], float]:
    """Return what the command tells, and the seconds of processor time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "quantgui", *words, "--json"],
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        stdout=subprocess.PIPE,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told: dict[str, Any] = json.loads(done.stdout)
    return told, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Material(NamedTuple):
    """The words that name network and data, and samples that judge: arrays ``input`` and perhaps ``labels``."""

    words: list[str]
    judged: dict[str, dict[str, Array]]


def write_material(network: str, folder: Path) -> Material:
    """Write the data of a network: what is trained on, and what decides which step is kept."""
    trained, deciding = folder / "trained.npz", folder / "deciding.npz"
    words = [str(network_path(network)), "--data", str(deciding), "--calibration", str(trained)]
    match network:
        case "ccexam-mnist":
            values, labels = digits(5000)
            name = _input_of(network)
            np.savez(trained, **{name: values[:4000]})
            np.savez(deciding, **{name: values[4000:4500], "labels": labels[4000:4500]})
            return Material(words, {"others": {"input": values[4500:], "labels": labels[4500:]}})
        case "demosaicnet":
            np.savez(trained, input=_mosaics(64, COLOURED, 1)[0])
            mosaics, truth = _mosaics(12, COLOURED, 4)
            np.savez(deciding, input=mosaics, labels=truth)
            mosaics, truth = _mosaics(12, TESTED, 2)
            (folder / "psnr.py").write_text(_METRIC)
            words += ["--metric", f"{folder / 'psnr.py'}:psnr"]
            return Material(words, {"others": {"input": mosaics, "labels": truth}})
        case _:
            np.savez(trained, input=_photographs(1024, TRAINED, 1))
            np.savez(deciding, input=_photographs(96, TRAINED, 11))
            others, unknown = _photographs(192, TRAINED, 3), _photographs(96, TESTED, 2)
            return Material(words, {"others": {"input": others}, "of unknown pictures": {"input": unknown}})


def _input_of(network: str) -> str:
    import onnx

    return str(onnx.load(network_path(network), load_external_data=False).graph.input[0].name)


def _picture(name: str) -> Array:
    """Return a picture that scikit-image or scikit-learn ships, (H, W, 3) uint8."""
    from skimage import io

    learn = name in ("china.jpg", "flower.jpg")
    package, ending = ("scikit-learn", "datasets/images") if learn else ("scikit-image", "skimage/data")
    values = np.asarray(io.imread(package_file(package, f"{ending}/{name}")))
    return (np.repeat(values[..., None], 3, 2) if values.ndim == 2 else values[..., :3]).astype(np.uint8)


def _mosaics(count: int, names: Sequence[str], seed: int, size: int = 128) -> tuple[Array, Array]:
    """Return Bayer mosaics and the true pictures, as `tests.networks.mosaics` does, of other pictures."""
    rng = np.random.default_rng(seed)
    planes = []
    for i in range(count):
        picture = _picture(names[i % len(names)])
        y, x = (int(rng.integers(0, n - size)) // 2 * 2 for n in picture.shape[:2])
        planes.append(picture[y : y + size, x : x + size].transpose(2, 0, 1))
    truth = np.stack(planes).astype(np.float32) / 255
    mask = np.zeros_like(truth[0])
    mask[1, 0::2, 0::2] = mask[1, 1::2, 1::2] = mask[0, 0::2, 1::2] = mask[2, 1::2, 0::2] = 1
    return truth * mask, truth[:, :, 31:-31, 31:-31]


def _photographs(count: int, names: Sequence[str], seed: int, size: int = 224) -> Array:
    """Return crops of 40 to 100 % of the shorter side, half of them mirrored, ``(pixel - 127) / 128``."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    crops = []
    for i in range(count):
        picture = _picture(names[i % len(names)])
        height, width = picture.shape[:2]
        side = int(min(height, width) * np.sqrt(rng.uniform(0.16, 1.0)))
        y, x = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        crop = Image.fromarray(picture[y : y + side, x : x + side]).resize((size, size), Image.Resampling.BILINEAR)
        crops.append(np.asarray(crop)[:, :: -1 if rng.random() < 0.5 else 1].transpose(2, 0, 1))
    return (np.stack(crops).astype(np.float32) - 127) / 128
