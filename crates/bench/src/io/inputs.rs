//! Many inputs of the host to the device: one copy each, or gathered into one.

use anyhow::{Context as _, Result};
use hipgraph::{DeviceBuffer, Event, Layout, StagingRing, Stream};

use super::lab::{Lab, address, raw};
use super::ratio;
use crate::calls::{self, Caller};
use crate::contest::{Contest, Goal, Role};

const N_INPUTS: usize = 190;
/// Requests that are enqueued one after the other.
const N_REQUESTS: usize = 20;
/// Bytes of an input of those requests.
const REQUEST_BYTES: usize = 1024;

/// Inputs of so many bytes; one copy each takes `times` as long at least.
pub(super) fn contest(lab: &Lab, size: usize, times: f64, n: (usize, usize)) -> Result<Contest> {
    let stream = Stream::new(&lab.device)?;
    let (raw, layout) = (stream.raw(), layout(size)?);
    let arena = DeviceBuffer::new(&lab.device, layout.n_bytes())?;
    let mut ring = StagingRing::new(&stream, 2);
    let own_arena = DeviceBuffer::new(&lab.device, layout.n_bytes())?;
    let (pinned, mirror) = (&*lab.raw_pinned(layout.n_bytes())?, lab.raw_pinned(layout.n_bytes())?);
    let pageable = vec![vec![7_u8; size]; N_INPUTS];
    let inputs: Vec<&[u8]> = pageable.iter().map(Vec::as_slice).collect();
    let (slots, base) = (layout.slots(), address(&arena));
    let mut callers = [
        Caller::rival("raw: gathered, one copy", || {
            for (slot, input) in slots.iter().zip(&inputs) {
                mirror[slot.range()].copy_from_slice(input);
            }
            lab.raw_copy_in(base, mirror, raw)?;
            lab.raw_wait(raw)
        }),
        Caller::ours("ours: gathered, one copy", 0, || {
            ring.gather(&own_arena, &layout, &inputs)?;
            Ok(stream.synchronize()?)
        }),
        Caller::rival("raw: one copy each, pageable", || {
            for (slot, input) in slots.iter().zip(&inputs) {
                lab.raw_copy_in(base + slot.offset, input, raw)?;
            }
            lab.raw_wait(raw)
        }),
        Caller::rival("raw: one copy each, pinned", || {
            for slot in slots {
                lab.raw_copy_in(base + slot.offset, &pinned[slot.range()], raw)?;
            }
            lab.raw_wait(raw)
        }),
        Caller::of_rounds(
            "raw: the copy alone",
            Role::Limit,
            None,
            calls::in_process(|| {
                lab.raw_copy_in(base, pinned, raw)?;
                lab.raw_wait(raw)
            }),
        ),
    ];
    let title = format!("{N_INPUTS} inputs of {size} B, waited for");
    let mut contest = calls::run(&format!("inputs-{size}"), &title, n, &mut callers)?;
    let goal = |what: &str, at_most, of, over| {
        Goal::at_most(format!("{what}, {size} B"), at_most, ratio(&contest, of, over))
    };
    let best = if contest.contenders[2].rounds.median < contest.contenders[3].rounds.median {
        2
    } else {
        3
    };
    contest.goals = vec![
        goal("ours gathered, over raw gathered", 1.3, 1, 0),
        goal("ours gathered, over the faster of one copy each", 1.0 / times, 1, best),
    ];
    Ok(contest)
}

/// Requests one after the other through a ring of arenas: the next is gathered while the device works, for so
/// many cycles each.
pub(super) fn staging(lab: &Lab, cycles: i64, n: (usize, usize)) -> Result<Contest> {
    let stream = Stream::new(&lab.device)?;
    let layout = layout(REQUEST_BYTES)?;
    let arena = DeviceBuffer::new(&lab.device, layout.n_bytes())?;
    let pinned = &*lab.raw_pinned(layout.n_bytes())?;
    let pageable = vec![vec![7_u8; REQUEST_BYTES]; N_INPUTS];
    let inputs: Vec<&[u8]> = pageable.iter().map(Vec::as_slice).collect();
    let (stream, layout, inputs) = (&stream, &layout, &inputs);
    let requests = |n_arenas, is_serial| -> Result<_> {
        let mut ring = StagingRing::new(stream, n_arenas);
        let own_arena = DeviceBuffer::new(stream.device(), layout.n_bytes())?;
        Ok(move || {
            for _ in 0..N_REQUESTS {
                ring.gather(&own_arena, layout, inputs)?;
                lab.spin(stream, cycles)?;
                if is_serial {
                    stream.synchronize()?;
                }
            }
            Ok(stream.synchronize()?)
        })
    };
    let mut mirrors = [lab.raw_pinned(layout.n_bytes())?, lab.raw_pinned(layout.n_bytes())?];
    let copied = [Event::new(&lab.device)?, Event::new(&lab.device)?];
    let by_hand = || {
        let raw = stream.raw();
        for at in 0..N_REQUESTS {
            let (mirror, copied) = (&mut *mirrors[at % 2], &copied[at % 2]);
            raw!(lab.hip(), event_synchronize(copied.raw()))?;
            for (slot, input) in layout.slots().iter().zip(inputs) {
                mirror[slot.range()].copy_from_slice(input);
            }
            lab.raw_copy_in(address(&arena), mirror, raw)?;
            raw!(lab.hip(), event_record(copied.raw(), raw))?;
            lab.spin(stream, cycles)?;
        }
        lab.raw_wait(raw)
    };
    let mut callers = [
        Caller::rival("each waited for", requests(1, true)?),
        Caller::rival("one arena", requests(1, false)?),
        Caller::ours("two arenas", 0, requests(2, false)?),
        Caller::ours("three arenas", 0, requests(3, false)?),
        Caller::rival("raw: two arenas, by hand", by_hand),
        Caller::of_rounds(
            "raw: nothing gathered",
            Role::Limit,
            None,
            calls::in_process(|| {
                for _ in 0..N_REQUESTS {
                    lab.raw_copy_in(address(&arena), pinned, stream.raw())?;
                    lab.spin(stream, cycles)?;
                }
                lab.raw_wait(stream.raw())
            }),
        ),
    ];
    let title = format!(
        "{N_REQUESTS} requests of {N_INPUTS} inputs of {REQUEST_BYTES} B and {cycles} cycles"
    );
    let mut contest = calls::run(&format!("staging-{cycles}"), &title, n, &mut callers)?;
    contest.goals = vec![
        Goal::at_most("two arenas, over waiting for each", 0.8, ratio(&contest, 2, 0)),
        Goal::at_most("two arenas, over the same by hand", 1.1, ratio(&contest, 2, 4)),
    ];
    Ok(contest)
}

fn layout(size: usize) -> Result<Layout> {
    Layout::of(&[size; N_INPUTS]).context("the inputs are larger than an address space")
}
