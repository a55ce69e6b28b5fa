//! The GGUF reader, on any bytes: it may refuse, it may not panic, hang or take memory without bound.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use shapeyard_core::model::gguf::{self, EncoderSizes};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = gguf::read(Cursor::new(bytes)) {
        assert!(file.n_tensor_bytes() <= bytes.len() as u64, "tensors that overlap");
        let _ = EncoderSizes::of(&file);
    }
});
