//! Requests that run as they came.

use super::classes::{Class, Shapes};
use crate::plan::{Histogram, InvalidSteps, PlanOptions, Requests};

/// One class a shape, in the requests' order; of each length, rows as their policy says.
pub(super) fn as_they_came(
    requests: &[Requests],
    lengths: &[usize],
    options: &PlanOptions,
) -> Result<(Vec<Class>, Shapes), InvalidSteps> {
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
    let class = |it: &Requests| {
        let n_tokens = it.n_tokens().saturating_mul(it.count);
        let held = lengths.get(held(it));
        Class {
            n_batches: it.count,
            n_rows: it.rows,
            length: it.length,
            n_tokens,
            squares: n_tokens as f64 * it.length as f64,
            may_pad: held.is_none_or(|&held| it.length >= options.padding.shortest(held)),
        }
    };
    let real = requests.iter().filter(|it| it.count > 0 && it.rows > 0);
    Ok((real.map(class).collect(), shapes))
}
