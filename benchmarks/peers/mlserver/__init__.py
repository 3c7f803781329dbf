"""MLServer: its settings of each model, and the runtime of an ONNX model that it does not bring."""
