//! Many small inputs to the first device in one copy, and what arrived.
//!
//! ```text
//! cargo run -p hipgraph --example gather
//! ```

#![allow(clippy::print_stdout, reason = "a program that reports to a person")]

use std::error::Error;

use hipgraph::{Device, DeviceBuffer, Layout, StagingRing, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::first()?;
    let stream = Stream::new(&device)?;
    let inputs: Vec<Vec<u8>> = (1..=190).map(|byte| vec![byte; 64]).collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let layout = Layout::of(&[64; 190]).ok_or("the inputs are too large")?;

    // Two arenas: the next request is gathered while this one is on its way.
    let mut ring = StagingRing::new(&stream, 2);
    let arena = DeviceBuffer::new(&device, layout.n_bytes())?;
    let n_bytes = ring.gather(&arena, &layout, &inputs)?;
    println!(
        "{}: {} inputs in one copy of {n_bytes} bytes",
        device.properties().name,
        inputs.len()
    );

    let mut arrived = [0; 64];
    let last = layout.slots().last().ok_or("there is no input")?;
    stream.read(&arena, last.offset, &mut arrived)?;
    println!("the last begins with {}", arrived[0]);
    Ok(())
}
