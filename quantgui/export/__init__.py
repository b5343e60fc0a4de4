"""What leaves the program: quantized ONNX, and the proof that it does the same."""
