"""Networks of PyTorch: saved programs and modules of the user's code, opened as ONNX networks are."""
