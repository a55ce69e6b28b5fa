//! Requests that run as they came.

use std::cmp::Reverse;

use super::classes::{Candidates, Class, CpuWork, Shapes};
use crate::plan::{Histogram, InvalidSteps, PaddingLimit, PlanOptions, Requests, Traffic};

/// Of more shapes, programs are chosen for so many that stand for them.
const MOST_SHAPES: usize = 4096;

/// Requests by shape: most rows first, and of equally many the longest.
#[derive(Debug)]
pub(super) struct Asked {
    all: Vec<Requests>,
    /// Fewer shapes that stand for all, as [`Traffic`] counts them; `None` where there are few anyway.
    rough: Option<Vec<Requests>>,
}

impl Asked {
    pub(super) fn of(requests: &[Requests]) -> Self {
        let mut all: Vec<Requests> =
            requests.iter().copied().filter(|it| it.count > 0 && it.rows > 0).collect();
        all.sort_unstable_by_key(|it| Reverse((it.rows, it.length)));
        all.dedup_by(|next, kept| {
            let is_alike = (next.rows, next.length) == (kept.rows, kept.length);
            if is_alike {
                kept.count = kept.count.saturating_add(next.count);
            }
            is_alike
        });
        let rough = (all.len() > MOST_SHAPES).then(|| rough(&all));
        Self { all, rough }
    }

    /// One class a shape, or a shape that stands for it; of each length, rows as their policy says.
    pub(super) fn roughly(
        &self,
        lengths: &[usize],
        options: &PlanOptions,
    ) -> Result<(Vec<Class>, Shapes), InvalidSteps> {
        let requests = self.rough.as_ref().unwrap_or(&self.all);
        let held = |it: &Requests| lengths.partition_point(|&length| length < it.length);
        let mut rows: Vec<Vec<(usize, u64)>> = vec![Vec::new(); lengths.len()];
        for it in requests {
            if let Some(rows) = rows.get_mut(held(it)) {
                rows.push((it.rows, it.count));
            }
        }
        let mut shapes = Shapes::new();
        for (rows, &length) in rows.into_iter().map(Histogram::from).zip(lengths) {
            if rows.n_items() > 0 {
                let extents = options.rows.extents(&rows, None)?;
                shapes.extend(extents.into_iter().map(|rows| ((rows, length), false)));
            }
        }
        let class = |it: &Requests| class(&[*it], lengths.get(held(it)), options.padding);
        Ok((requests.iter().map(class).collect(), shapes))
    }

    /// The requests themselves, where others stood for them: those of equally many rows that the same programs hold
    /// are alike.
    pub(super) fn exactly(&self, found: &Candidates, padding: PaddingLimit) -> Option<Vec<Class>> {
        self.rough.as_ref()?;
        let held = |it: &Requests| {
            let last = found.n_holding(it.length).checked_sub(1)?;
            Some(found.programs[last].length)
        };
        let may_pad = |it: &Requests| class(&[*it], held(it).as_ref(), padding).may_pad;
        let are_alike = |a: &Requests, b: &Requests| {
            a.rows == b.rows && held(a) == held(b) && may_pad(a) == may_pad(b)
        };
        let alike = self.all.chunk_by(are_alike);
        Some(alike.map(|alike| class(alike, held(&alike[0]).as_ref(), padding)).collect())
    }
}

/// Fewer shapes that stand for all; none is larger than the largest.
fn rough(all: &[Requests]) -> Vec<Requests> {
    let mut traffic = Traffic::new(MOST_SHAPES);
    all.iter().for_each(|it| traffic.add(*it));
    let most_rows = all.iter().map(|it| it.rows).max().unwrap_or(0);
    let longest = all.iter().map(|it| it.length).max().unwrap_or(0);
    let cut = |it: Requests| Requests {
        rows: it.rows.min(most_rows),
        length: it.length.min(longest),
        ..it
    };
    traffic.requests().into_iter().map(cut).collect()
}

/// Requests that are alike; `held` is the length of the programs that were made for them.
fn class(alike: &[Requests], held: Option<&usize>, padding: PaddingLimit) -> Class {
    let longest = alike.first().copied().unwrap_or(Requests { rows: 0, length: 0, count: 0 });
    let tokens = |it: &Requests| it.n_tokens().saturating_mul(it.count);
    let cpu = alike.iter().fold(CpuWork::default(), |sum, it| CpuWork {
        tokens: sum.tokens + tokens(it) as f64,
        squares: sum.squares + tokens(it) as f64 * it.length as f64,
    });
    Class {
        n_batches: alike.iter().map(|it| it.count).fold(0, u64::saturating_add),
        n_rows: longest.rows,
        length: longest.length,
        n_tokens: alike.iter().map(tokens).fold(0, u64::saturating_add),
        cpu,
        may_pad: held.is_none_or(|&held| longest.length >= padding.shortest(held)),
    }
}

/// Positions of all requests' rows, in the order in which they are planned.
pub(super) fn order(requests: &[Requests]) -> Vec<usize> {
    let mut first_row = 0;
    let mut ranges: Vec<(&Requests, std::ops::Range<usize>)> = Vec::with_capacity(requests.len());
    for it in requests {
        let n = usize::try_from(it.count.saturating_mul(it.rows as u64)).unwrap_or(usize::MAX);
        ranges.push((it, first_row..first_row.saturating_add(n)));
        first_row = first_row.saturating_add(n);
    }
    ranges.sort_by_key(|(it, _)| Reverse((it.rows, it.length)));
    ranges.into_iter().flat_map(|(_, rows)| rows).collect()
}
