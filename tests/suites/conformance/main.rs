//! One suite that every backend passes: rten, ONNX Runtime, ggml, and MIGraphX on its target `ref`.
//!
//! The backends get the same inputs, and their outputs are compared with ONNX Runtime's: fp32 within 1e-4,
//! half within one step of 2^-10, all else byte for byte. A backend that a machine lacks is named in the
//! log of skipped tests; inside the root of `cargo xtask migraphx-root` none is.
//!
//! # What padding and slicing are known to get wrong
//!
//! Numbers are those of a list of faults seen in other runtimes. Tests carry them in their names.
//!
//! | number | fault | where |
//! | --- | --- | --- |
//! | 37 | batches that alternate in one program | `real/tiers.rs` of `shapeyard-migraphx`; `models`, whose batches follow each other on one lane |
//! | 38 | inputs without a batch axis are padded along it | `padding` |
//! | 39 | an output is cut because its extent equals a bucket | `padding` |
//! | 40 | rows that are flattened into another axis | `padding` |
//! | 41 | padded rows change a model's answers | `real/padding.rs`; `padding`, for axes that are no rows |
//! | 42 | padding shows what an earlier request had there | `real/padding.rs`; `buffers` |
//! | 43 | a NaN spreads to other rows | `real/padding.rs` |
//! | 44 | an empty batch | `real/tiers.rs`; `padding` |
//! | 45 | more rows than the largest program | `real/tiers.rs`; `models`, up to 33 rows over 16 |
//! | 46 | a model that mixes rows is split | `real/dependence.rs`: such a model is not compiled (41), one whose rows depend on their place is never split, and neither is what is compiled without padding |
//! | 47 | element types and odd rows | `padding`, `models` |
//! | 48 | inputs that disagree about a symbol | `grids` |
//! | 49 | sequences of one, of the whole length, and shorter masks | `grids` |
//! | 50 | the order of more than ten outputs | `padding` |
//! | 51 | outputs without elements, or of unknown rank | `padding`, and `unshaped` in `models`; a rank that changes from run to run cannot occur, because a compiled program has fixed shapes |

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

mod artifacts;
mod asked;
mod buffers;
mod counting;
mod crowd;
mod grids;
mod models;
mod padding;
mod requests;
mod router;
mod support;
