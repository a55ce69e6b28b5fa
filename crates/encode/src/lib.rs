//! Text to vectors through a Shapeyard engine.
//!
//! * [`units`]: files, folders and records cut into pieces of text.
//! * [`tokens`]: text to token ids.
//! * [`Encoder`]: token ids to vectors, in batches under a token budget, back in the caller's order.
//! * [`pool`]: one vector a token to one vector a text.

mod embeddings;
mod encoder;
mod error;
mod lanes;
mod layout;
pub mod pool;
mod remaining;
mod repeats;
mod report;
pub mod tokens;
pub mod units;

pub use embeddings::Embeddings;
pub use encoder::{EncodeOptions, Encoder, Observer, Unobserved};
pub use error::EncodeError;
pub use layout::axes;
pub use report::{EncodeReport, EncodeTimes, Repeated, Routed, Tried};
