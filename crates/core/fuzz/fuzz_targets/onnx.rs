//! The ONNX reader, on any bytes: it may refuse, it may not panic, hang or take memory without bound.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = shapeyard_core::model::onnx::read(Cursor::new(bytes));
});
