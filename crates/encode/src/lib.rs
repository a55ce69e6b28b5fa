//! Text to embeddings through a Shapeyard engine.
