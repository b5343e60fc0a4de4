"""Data in all its shapes, and the sentences for what does not fit."""

from __future__ import annotations

import zipfile
from pathlib import Path

import builders
import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from quantgui.errors import DataError
from quantgui.network.batch import carry
from quantgui.network.carried import carried_states
from quantgui.network.datasets import Dataset, open_dataset
from quantgui.network.network import Network
from quantgui.results import ImageOptions, NetworkSummary, TensorInfo


def summary_of(*inputs: TensorInfo, outputs: tuple[TensorInfo, ...] = (), name: str = "net") -> NetworkSummary:
    return NetworkSummary(name, f"{name}.onnx", "f", 17, 8, "", 0, 0, 0, inputs, outputs, ())


def info(name: str, *dims: int | str, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name, dtype, dims)


def opened(path: Path | str, *inputs: TensorInfo, outputs: tuple[TensorInfo, ...] = ()) -> Dataset:
    return open_dataset(str(path), inputs, summary_of(*inputs, outputs=outputs))


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_that_the_first_axis_counts_samples(tmp_path: Path) -> None:
    x, labels = builders.values(10, 3, 4), np.arange(10)
    dataset = opened(saved(tmp_path, x=x, labels=labels), info("x", "batch", 3, 4))
    batches = list(dataset.batches(4))
    assert dataset.samples == 10
    assert [b.samples for b in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), x)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), labels)
    assert [b.samples for b in dataset.batches(4, samples=6)] == [4, 2]


def test_that_a_fixed_batch_is_padded_by_repetition_and_the_padding_is_not_scored(tmp_path: Path) -> None:
    x = builders.values(10, 3)
    dataset = opened(saved(tmp_path, x=x), info("x", 4, 3))
    batches = list(dataset.batches(3))
    assert [b.inputs["x"].shape for b in batches] == [(4, 3)] * 3
    assert [(b.samples, b.rows) for b in batches] == [(4, 4), (4, 4), (2, 4)]
    np.testing.assert_array_equal(batches[-1].inputs["x"][2:], np.repeat(x[-1:], 2, 0))
    np.testing.assert_array_equal(np.concatenate([b.split(b.inputs["x"]) for b in batches]), x)


def test_that_samples_of_a_network_without_batch_axis_are_fed_one_by_one(tmp_path: Path) -> None:
    x = builders.values(5, 6, 7)
    one_row = opened(saved(tmp_path, x=x), info("x", 1, 6, 7))
    assert [b.inputs["x"].shape for b in one_row.batches()] == [(1, 6, 7)] * 5
    stacked = opened(tmp_path / "data.npz", info("x", 6, 7))
    batches = list(stacked.batches(16))
    assert [b.inputs["x"].shape for b in batches] == [(6, 7)] * 5
    np.testing.assert_array_equal(batches[3].inputs["x"], x[3])
    assert batches[0].split(np.zeros(2)).shape == (1, 2)


def test_that_an_array_of_exactly_the_fixed_shape_is_one_sample(tmp_path: Path) -> None:
    dataset = opened(saved(tmp_path, x=builders.values(4, 3)), info("x", 4, 3))
    assert dataset.samples == 1
    assert dataset.sample_input(0)["x"].shape == (4, 3)


def test_that_scalars_masks_and_single_rows_serve_every_sample(tmp_path: Path) -> None:
    path = saved(
        tmp_path, x=builders.values(8, 8), sr=np.array(16000), mask=builders.values(8, 5), bias=np.ones((1, 2))
    )
    inputs = (info("x", "n", 8), info("sr", dtype="int64"), info("mask", 8, 5), info("bias", "n", 2))
    batches = list(opened(path, *inputs).batches(3))
    assert [{k: v.shape for k, v in b.inputs.items()} for b in batches][::2] == [
        {"x": (3, 8), "sr": (), "mask": (8, 5), "bias": (3, 2)},
        {"x": (2, 8), "sr": (), "mask": (8, 5), "bias": (2, 2)},
    ]
    assert batches[0].inputs["sr"].dtype == np.int64


@pytest.mark.parametrize("value", [np.array([16000]), np.array(16000, np.int32)])
def test_that_a_scalar_may_come_as_an_array_of_one(tmp_path: Path, value: np.ndarray) -> None:
    path = saved(tmp_path, x=builders.values(4, 8), sr=value)
    batch = next(opened(path, info("x", "n", 8), info("sr", dtype="int64")).batches())
    assert batch.inputs["sr"].shape == ()
    assert batch.inputs["sr"] == 16000


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.arange(6).reshape(3, 2), "int32"),
        (np.arange(6, dtype=np.uint8).reshape(3, 2), "float32"),
        (np.array([[0, 1], [1, 0], [1, 1]]), "bool"),
        (np.ones((3, 2), bool), "int64"),
        (np.linspace(0, 1, 6).reshape(3, 2), "float32"),
        (np.linspace(0, 1, 6).reshape(3, 2), "float16"),
        (np.arange(6, dtype=">f4").reshape(3, 2), "float32"),
        (np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2)), "float32"),
    ],
)
def test_that_values_are_converted_where_nothing_is_lost(tmp_path: Path, array: np.ndarray, dtype: str) -> None:
    batch = next(opened(saved(tmp_path, x=array), info("x", "n", 2, dtype=dtype)).batches())
    assert batch.inputs["x"].dtype == np.dtype(dtype)
    assert batch.inputs["x"].flags.c_contiguous
    np.testing.assert_array_equal(batch.inputs["x"], array.astype(dtype))


@pytest.mark.parametrize(
    ("array", "dtype", "sentence"),
    [
        (np.array([[1.5, 2.0]]), "int64", "'x' of 'data.npz' is float64, but the network expects int64, n x 2"),
        (np.array([[1, 2**40]]), "int32", "holds values from 1 to 1099511627776, but int32 holds only"),
        (np.array([[-1, 2]]), "uint8", "holds values from -1 to 2, but uint8 holds only 0 to 255"),
        (np.array([[0, 2]]), "bool", "bool holds only 0 to 1"),
        (np.array([[1, 2**30]]), "float32", "float32 holds only"),
        (np.array([[1j, 2.0]]), "float32", "dtype complex128; an array of numbers is needed"),
        (np.array([["a", "b"]]), "float32", "an array of numbers is needed"),
        (np.ones((3, 4)), "float32", "'x' of 'data.npz' has the shape 3 x 4, but the network expects float32, n x 2"),
        (np.ones((0, 2)), "float32", "holds no samples"),
    ],
)
def test_that_data_of_the_wrong_kind_is_refused_in_a_sentence(
    tmp_path: Path, array: np.ndarray, dtype: str, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        opened(saved(tmp_path, x=array), info("x", "n", 2, dtype=dtype))


def test_that_floats_too_large_for_float16_are_refused_when_they_are_read(tmp_path: Path) -> None:
    dataset = opened(saved(tmp_path, x=np.full((2, 2), 1e6)), info("x", "n", 2, dtype="float16"))
    with pytest.raises(DataError, match="too large for float16"):
        next(dataset.batches())


def test_that_a_misspelt_name_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    path = saved(tmp_path, imput=np.ones((2, 2)), other=np.ones((2, 2)))
    with pytest.raises(DataError, match=r"lacks the input 'input' \(float32, n x 2\).*is 'imput' meant"):
        opened(path, info("input", "n", 2))


def test_that_a_missing_scalar_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks the input 'sr' \(int64, scalar\); its arrays are 'x'"):
        opened(saved(tmp_path, x=np.ones((2, 2))), info("x", "n", 2), info("sr", dtype="int64"))


def test_that_an_array_that_is_no_input_is_noted(tmp_path: Path) -> None:
    dataset = opened(saved(tmp_path, x=np.ones((2, 2)), extra=np.ones(3)), info("x", "n", 2))
    assert "The array 'extra' is no input of the network and is not used." in dataset.summary.notes


def test_that_arrays_of_different_length_do_not_belong_together(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.ones((4, 2)), labels=np.arange(3))
    with pytest.raises(DataError, match="'x' has 4 samples, others have 3"):
        opened(path, info("x", "n", 2))


def test_that_pickled_objects_are_refused(tmp_path: Path) -> None:
    array = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match="pickled Python objects"):
            opened(tmp_path / name, info("x", "n", 2))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\x93NUMPY\x01\x00\xff\xff", b"PK\x03\x04" + b"\0" * 40])
def test_that_files_that_hold_no_arrays_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        opened(tmp_path / name, info("x", "n", 2))


def test_that_truncated_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((100, 2)))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-10])
    with pytest.raises(DataError, match="truncated"):
        opened(tmp_path / "x.npy", info("x", "n", 2))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_that_a_header_that_lies_about_its_size_is_refused(tmp_path: Path, compression: int) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    content = (tmp_path / "x.npy").read_bytes().replace(b"(4, 2), ", b"(9, 2), ")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", compression) as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=r"truncated|damaged"):
        opened(tmp_path / "x.npz", info("x", "n", 2))


def test_that_arrays_stay_on_disk_until_they_are_used(tmp_path: Path) -> None:
    x = builders.values(50, 4)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "plain.npz", x=x, labels=np.arange(50))
    np.savez_compressed(tmp_path / "packed.npz", x=x, labels=np.arange(50))
    for name in ("x.npy", "plain.npz", "packed.npz"):
        dataset = opened(tmp_path / name, info("x", "n", 4))
        np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in dataset.batches(7)]), x)
        mapped = isinstance(dataset.feeds[0].column.read(0, 1), np.memmap)
        assert mapped is (name != "packed.npz")


def test_that_one_array_does_not_serve_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    with pytest.raises(DataError, match=r"takes 2 inputs \('x', 'y'\): give a .npz file"):
        opened(tmp_path / "x.npy", info("x", "n", 2), info("y", "n", 2))


def test_that_a_source_that_is_no_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"give a \.npz or \.npy file, a folder of images, or random:N"):
        opened(tmp_path / "x.txt", info("x", "n", 2))
    with pytest.raises(DataError, match="There is no file or folder"):
        opened(tmp_path / "none.npz", info("x", "n", 2))
    for text in ("random:", "random:0", "random:-3", "random:x"):
        with pytest.raises(DataError, match="write random:N"):
            opened(text, info("x", "n", 2))


def test_that_equal_content_has_equal_keys_and_changed_content_has_not(tmp_path: Path) -> None:
    path = saved(tmp_path, x=builders.values(8, 2))
    keys = [b.key for b in opened(path, info("x", "n", 2)).batches(3)]
    assert keys == [b.key for b in opened(path, info("x", "n", 2)).batches(3)]
    assert len(set(keys)) == 3
    saved(tmp_path, x=builders.values(8, 2, seed=1))
    assert not set(keys) & {b.key for b in opened(path, info("x", "n", 2)).batches(3)}


def test_that_batches_are_small_for_large_samples() -> None:
    def size(*dims: int | str) -> int:
        return opened("random:100", info("x", *dims)).batch_size

    assert size("n", 16) == 64
    assert size("n", 3, 32, 32) == 32
    assert size("n", 3, 224, 224) == 8
    assert size("n", 3, 2000, 2000) == 1


# --- recurrent state ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "carried"),
    [
        ((("state", 2, "b", 128), ("stateN", "?", "b", "?")), True),
        ((("h", 1, 1, 16), ("hn", 1, 1, 16)), True),
        ((("h0", 1, 1, 16), ("hn", 1, 1, 16)), True),
        ((("in_cache", 1, 8), ("out_cache", 1, 8)), True),
        ((("hidden_in", 1, 8), ("hidden_out", 1, 8)), True),
        ((("h", 1, 1, 16), ("hn", 1, 1, 8)), False),
        ((("image_in", 1, 8), ("image_out", 1, 8)), False),
        ((("c", 1, 8), ("hn", 1, 8)), False),
    ],
)
def test_that_recurrent_state_is_told_by_name_and_shape(pairs: tuple, carried: bool) -> None:
    (given, *dims), (made, *made_dims) = pairs
    summary = summary_of(info("x", "b", 8), info(given, *dims), outputs=(info("y", "b", 1), info(made, *made_dims)))
    assert carried_states(summary) == ({given: made} if carried else {})


def test_that_the_only_input_is_no_state() -> None:
    assert carried_states(summary_of(info("state", 1, 8), outputs=(info("state_out", 1, 8),))) == {}


def test_that_a_missing_state_begins_with_zeros_and_is_carried(tmp_path: Path) -> None:
    state, output = info("state", 2, "b", 4), info("stateN", 2, "b", 4)
    dataset = opened(saved(tmp_path, x=builders.values(5, 8)), info("x", "b", 8), state, outputs=(output,))
    batches = list(dataset.batches(16))
    assert [b.samples for b in batches] == [1] * 5
    assert not batches[0].inputs["state"].any()
    assert batches[0].inputs["state"].shape == (2, 1, 4)
    assert "The recurrent state 'state' begins with zeros." in dataset.summary.notes
    made = {"stateN": builders.values(2, 1, 4)}
    carried = carry(batches[1], made)
    np.testing.assert_array_equal(carried.inputs["state"], made["stateN"])
    assert carried.state_keys["state"] != carry(batches[1], {"stateN": made["stateN"] + 1}).state_keys["state"]


def test_that_a_given_state_is_where_the_carried_one_begins(tmp_path: Path) -> None:
    start = builders.values(2, 1, 4)
    path = saved(tmp_path, x=builders.values(2, 8), state=start)
    inputs = (info("x", "b", 8), info("state", 2, "b", 4))
    batches = list(opened(path, *inputs, outputs=(info("stateN", 2, "b", 4),)).batches())
    assert len(batches) == 2
    np.testing.assert_array_equal(batches[0].inputs["state"], start)
    assert dict(batches[1].carried) == {"state": "stateN"}


# --- pictures ----------------------------------------------------------------------------------------------------


def pictures(folder: Path, *names: str, size: tuple[int, int] = (40, 30)) -> Path:
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (i * 10, 100, 200)).save(file)
    return folder


def test_that_sub_folders_of_pictures_are_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "10/a.png", "9/b.png", "9/c.jpg", "9/.hidden.png")
    dataset = opened(tmp_path, info("image", "n", 3, 16, 16))
    batch = next(dataset.batches())
    assert dataset.samples == 3
    assert batch.labels.tolist() == [0, 0, 1]  # 9 before 10
    assert batch.inputs["image"].shape == (3, 3, 16, 16)
    assert any("0 = 9" in note for note in dataset.summary.notes)


def test_that_pictures_beside_each_other_have_no_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "x/b.png", "y/c.png")
    assert not opened(tmp_path, info("image", "n", 3, 16, 16)).summary.has_labels


def test_that_pixels_become_input_as_the_options_say(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 128, 0)).save(tmp_path / "a.png")
    options = ImageOptions(4, 4, "NHWC", 3, bgr=True, scale=2.0, mean=(0.5, 0.0, 1.0), std=(1.0, 2.0, 4.0))
    image = info("image", "n", 4, 4, 3)
    dataset = open_dataset(str(tmp_path), (image,), summary_of(image), options)
    expected = [(0.0 - 0.5) / 1, (128 / 255 * 2 - 0.0) / 2, (2.0 - 1.0) / 4]
    np.testing.assert_allclose(dataset.sample_input(0)["image"][0, 2, 2], expected, rtol=1e-6)
    assert dataset.summary.image_options == options


@pytest.mark.parametrize(
    ("name", "dims", "layout", "size", "scale", "mean"),
    [
        ("resnet50", ("n", 3, 224, 224), "NCHW", (224, 224), 1.0, 0.485),
        ("efficientnet-lite0", ("n", 3, 224, 224), "NCHW", (224, 224), 255.0, 127.0),
        ("mobilenet_v2", ("n", 224, 224, 3), "NHWC", (224, 224), 1.0, 0.5),
        ("ppocrv5_rec", ("n", 3, 48, "w"), "NCHW", (48, 320), 1.0, 0.5),
        ("lenet", ("n", 1, 28, 28), "NCHW", (28, 28), 1.0, 0.0),
        ("free", ("n", "c", "h", "w"), "NCHW", (224, 224), 1.0, 0.485),
        ("free", ("n", "h", "w", "channels"), "NHWC", (224, 224), 1.0, 0.5),
    ],
)
def test_that_image_options_are_guessed_from_shape_and_name(
    tmp_path: Path, name: str, dims: tuple, layout: str, size: tuple[int, int], scale: float, mean: float
) -> None:
    pictures(tmp_path, "a.png")
    image = info("x", *dims)
    options = open_dataset(str(tmp_path), (image,), summary_of(image, name=name)).summary.image_options
    assert options is not None
    assert (options.layout, (options.height, options.width)) == (layout, size)
    assert (options.scale, options.mean[0]) == (scale, mean)


def test_that_greys_of_16_bits_keep_their_shades(tmp_path: Path) -> None:
    shades = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(shades * 256 + 17).save(tmp_path / "a.png")
    dataset = opened(tmp_path, info("image", 1, 1, 16, 16, dtype="uint8"))
    np.testing.assert_array_equal(dataset.sample_input(0)["image"][0, 0], shades)


def test_that_an_integer_image_input_gets_whole_pixels(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    dataset = opened(tmp_path, info("image", 1, 16, 16, 3, dtype="uint8"))
    assert dataset.sample_input(0)["image"][0, 3, 3].tolist() == [0, 100, 200]


def test_that_a_folder_without_pictures_and_a_broken_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        opened(tmp_path, info("image", "n", 3, 16, 16))
    (tmp_path / "a.png").write_bytes(b"\x89PNG no")
    with pytest.raises(DataError, match=r"'a.png' is no readable picture"):
        opened(tmp_path, info("image", "n", 3, 16, 16))


def test_that_pictures_are_refused_for_a_network_of_text(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    with pytest.raises(DataError, match="fits only networks with one image input"):
        opened(tmp_path, info("ids", "n", "seq", dtype="int64"))


def test_that_impossible_image_options_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    image = info("x", "n", 3, 16, 16)
    for options, sentence in (
        (ImageOptions(16, 16, std=(0.0, 1.0, 1.0)), "must not be 0"),
        (ImageOptions(16, 16, scale=0.0), "must not be 0"),
        (ImageOptions(16, 16, mean=(0.0, 0.0, float("nan"))), "finite"),
        (ImageOptions(16, 16, mean=(0.0,)), "1 values of 'mean' for 3 channels"),
        (ImageOptions(0, 16), "impossible"),
        (ImageOptions(16, 16, layout="CHW"), "layout"),
        (ImageOptions(20, 16), "has the shape 1 x 3 x 20 x 16"),
    ):
        with pytest.raises(DataError, match=sentence):
            open_dataset(str(tmp_path), (image,), summary_of(image), options)


# --- random numbers ----------------------------------------------------------------------------------------------


def random_data(network: Network, count: int = 3) -> Dataset:
    return open_dataset(f"random:{count}", network.summary.inputs, network.summary, network=network)


def test_that_random_data_is_marked_and_repeatable() -> None:
    network = builders.network_of(builders.residual_model())
    first, second = random_data(network), random_data(network)
    assert not first.summary.trustworthy
    np.testing.assert_array_equal(first.sample_input(2)["image"], second.sample_input(2)["image"])
    np.testing.assert_array_equal(next(first.batches()).inputs["image"][2:], first.sample_input(2)["image"])


def test_that_free_sizes_are_tried_until_the_network_runs() -> None:
    # Only lines of exactly 128 values fit the weight, though the declared width is free.
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    inputs, outputs = [builders.tensor_info("x", ["n", "t", "k"])], [builders.tensor_info("y", ["n", "t", 4])]
    network = builders.network_of(builders.model_of(nodes, inputs, outputs, {"w": builders.values(128, 4)}))
    assert random_data(network).sample_input(0)["x"].shape[-1] == 128


def test_that_random_tokens_stay_below_the_size_of_their_table() -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], name="cast", to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["y"], name="embedding"),
    ]
    inputs = [builders.tensor_info("ids", ["n", "t"], TensorProto.INT32)]
    outputs = [builders.tensor_info("y", ["n", "t", 4])]
    network = builders.network_of(builders.model_of(nodes, inputs, outputs, {"table": builders.values(3, 4)}))
    ids = next(random_data(network, 20).batches()).inputs["ids"]
    assert ids.dtype == np.int32
    assert set(np.unique(ids)) == {0, 1, 2}


def test_that_a_network_of_many_inputs_that_cannot_be_guessed_is_told_in_a_short_sentence() -> None:
    names = [f"x{i}" for i in range(9)]
    nodes = [helper.make_node("Concat", names, ["all"], axis=2), helper.make_node("MatMul", ["all", "w"], ["y"])]
    inputs, outputs = (
        [builders.tensor_info(name, ["n", "t", "k"]) for name in names],
        [builders.tensor_info("y", ["n", "t", 4])],
    )
    network = builders.network_of(builders.model_of(nodes, inputs, outputs, {"w": builders.values(7777, 4)}))
    with pytest.raises(DataError, match=r"x3 \(float32, n x t x k\) and 5 more\) cannot be guessed"):
        random_data(network)


def test_that_a_network_whose_input_cannot_be_guessed_asks_for_data() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    inputs, outputs = [builders.tensor_info("x", ["n", "t", "k"])], [builders.tensor_info("y", ["n", "t", 4])]
    network = builders.network_of(builders.model_of(nodes, inputs, outputs, {"w": builders.values(7777, 4)}))
    with pytest.raises(DataError, match="cannot be guessed; give a data file"):
        random_data(network)
