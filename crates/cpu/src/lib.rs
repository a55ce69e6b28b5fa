//! CPU backends of Shapeyard, the embedded engine (rten) and ONNX Runtime.
