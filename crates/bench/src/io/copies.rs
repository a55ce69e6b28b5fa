//! Large copies of pinned memory.

use anyhow::Result;
use hip_sys::MemcpyKind;
use hipgraph::{DeviceBuffer, PinnedBuffer, Stream};

use super::lab::{Lab, address, raw};
use super::ratio;
use crate::calls::{self, Caller};
use crate::contest::{Contest, Goal};

const N_BYTES: usize = 16 << 20;

/// Each way, by the runtime's own calls and by `hipgraph`.
pub(super) fn contest(lab: &Lab, n: (usize, usize)) -> Result<Contest> {
    let stream = Stream::new(&lab.device)?;
    let raw = stream.raw();
    let device = DeviceBuffer::new(&lab.device, N_BYTES)?;
    let (from, to) = (&*lab.raw_pinned(N_BYTES)?, lab.raw_pinned(N_BYTES)?.as_mut_ptr());
    let there = PinnedBuffer::new(&lab.device, N_BYTES)?;
    let mut back = PinnedBuffer::new(&lab.device, N_BYTES)?;
    let out = MemcpyKind::DEVICE_TO_HOST;
    let mut callers = [
        Caller::rival("raw: to the device", || {
            lab.raw_copy_in(address(&device), from, raw)?;
            lab.raw_wait(raw)
        }),
        Caller::ours("ours: to the device", 0, || {
            stream.copy_in(&device, 0, &there, 0, N_BYTES)?;
            Ok(stream.synchronize()?)
        }),
        Caller::rival("raw: from the device", || {
            raw!(lab.hip(), memcpy_async(to.cast(), device.address(), N_BYTES, out, raw))?;
            lab.raw_wait(raw)
        }),
        Caller::ours("ours: from the device", 2, || {
            stream.copy_out(&mut back, 0, &device, 0, N_BYTES)?;
            Ok(stream.synchronize()?)
        }),
    ];
    let title = format!("{} MiB of pinned memory, waited for", N_BYTES >> 20);
    let mut contest = calls::run("copies", &title, n, &mut callers)?;
    for measured in &mut contest.contenders {
        measured.facts.work = Some((N_BYTES as f64 / 1e9, "GB".to_owned()));
    }
    contest.goals = vec![
        Goal::at_most("ours to the device, over raw", 1.05, ratio(&contest, 1, 0)),
        Goal::at_most("ours from the device, over raw", 1.05, ratio(&contest, 3, 2)),
    ];
    Ok(contest)
}
