"""ONNX operators in torch, so that gradients flow through networks; imported only where they are needed."""
