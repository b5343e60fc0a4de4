from __future__ import annotations

import builders
import numpy as np
import pytest
from onnx import helper

from quantgui.analysis.output_roles import computed_by, recognise_outputs


def skeleton(*operators, name="output"):
    """Return a network whose operators follow each other, the last one making the output."""
    nodes = []
    tensor = "x"
    for i, operator in enumerate(operators):
        result = name if i == len(operators) - 1 else f"t{i}"
        inputs = [tensor, "w"] if operator in ("MatMul", "Gemm", "Add", "Reshape") else [tensor]
        nodes.append(helper.make_node(operator, inputs, [result], name=f"n{i}"))
        tensor = result
    graph = helper.make_graph(nodes, "g", [builders.tensor_info("x", ["n", 4])], [builders.tensor_info(name, None)])
    return helper.make_model(graph)


def role(values, *operators, name="output", labels=None, others=None):
    outputs = {name: np.asarray(values, np.float32), **(others or {})}
    return recognise_outputs(skeleton(*operators, name=name), outputs, labels)[name]


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_that_a_distribution_is_recognised_by_its_values():
    x = builders.values(4, 7)
    assert role(softmax(x), "Div") == role(softmax(x), "Softmax")
    assert role(softmax(x), "Div").kind == "probabilities"
    assert role(np.log(softmax(x)), "Sub").kind == "log_probabilities"
    per_position = role(softmax(builders.values(4, 5, 7)), "Softmax")
    assert (per_position.kind, per_position.axis) == ("probabilities", 2)
    per_pixel = role(softmax(builders.values(4, 3, 6, 5), axis=1), "Softmax")
    assert (per_pixel.kind, per_pixel.axis) == ("probabilities", 1)


def test_that_half_precision_probabilities_are_recognised():
    p = softmax(builders.values(4, 3000)).astype(np.float16)
    assert recognise_outputs(skeleton("Softmax"), {"output": p}, None)["output"].kind == "probabilities"


@pytest.mark.parametrize("classes", [64, 128, 384, 512])
def test_that_embeddings_are_no_classes(classes):
    x = builders.values(4, classes)
    assert role(x, "Gemm").kind == "values"
    assert role(x / np.linalg.norm(x, axis=1, keepdims=True), "Div").kind == "values"
    assert role(builders.values(4, 1, 1, classes), "Conv").kind == "values"
    assert role(x, "Gemm", name="embedding_logits").kind == "values"


def test_that_a_lone_linear_output_of_some_length_is_logits():
    assert role(builders.values(4, 1000), "Gemm").kind == "logits"
    assert role(builders.values(4, 10), "MatMul", "Add", "Reshape").kind == "logits"
    assert role(builders.values(2, 3, 30522), "MatMul").kind == "logits"


@pytest.mark.parametrize("length", [1, 2, 4])
def test_that_short_regressions_are_no_classes(length):
    assert role(builders.values(4, length), "Gemm").kind == "values"


def test_that_landmarks_beside_a_classifier_are_no_classes():
    others = {"prob": softmax(builders.values(4, 2))}
    assert role(builders.values(4, 10), "Gemm", others=others).kind == "values"


def test_that_names_tell_logits_from_boxes():
    assert (
        role(builders.values(4, 4), "Gemm", name="class_logits", others={"b": builders.values(4, 4)}).kind == "logits"
    )
    assert role(builders.values(4, 12), "Gemm", name="box_deltas").kind == "values"


def test_that_one_value_of_a_sigmoid_is_a_binary_probability():
    p = 1 / (1 + np.exp(-builders.values(4, 1)))
    assert role(p, "Sigmoid").kind == "binary"
    assert role(p, "Sigmoid", "Squeeze").kind == "binary"
    assert role(p, "Tanh").kind == "values"
    assert role(p, "Tanh", name="speech_prob").kind == "binary"
    assert role(p.reshape(1, 1, 2, 2), "Sigmoid").kind == "values", "a map is no decision"
    assert role(np.tile(p, 3), "Sigmoid").kind == "binary", "several labels at once"


def test_that_labels_make_classes_of_any_scores():
    x = builders.values(4, 64)
    assert role(x, "Gemm", labels=np.array([0, 63, 5, 2])).kind == "logits"
    assert role(x, "Gemm", labels=np.array([[0], [63], [5], [2]])).kind == "logits"
    assert role(x, "Gemm", labels=np.array([0, 64, 5, 2])).kind == "values", "there is no class 64"
    assert role(x, "Gemm", labels=builders.values(4)).kind == "values", "labels that are no integers"
    frames = builders.values(4, 9, 5)
    assert role(frames, "Tanh", labels=np.zeros((4, 9), np.int64)).kind == "logits"
    assert role(frames, "Tanh", labels=np.zeros(4, np.int64)).kind == "values"


def test_that_integer_outputs_are_decisions():
    assert recognise_outputs(skeleton("ArgMax"), {"output": np.zeros((4, 2), np.int64)}, None)["output"].is_class_like


def test_that_the_computing_operator_is_found_inside_branches():
    model = builders.if_model()
    assert computed_by(model, "branch") == {"MatMul"}
    assert computed_by(model, "y") == {"MatMul"}
