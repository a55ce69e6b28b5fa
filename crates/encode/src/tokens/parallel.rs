//! The same work on many items, by several threads.

use std::sync::{Mutex, PoisonError};

/// Items that a thread takes at a time: enough that threads rarely meet, few enough that none idles long.
const N_AT_ONCE: usize = 16;

/// Applies `work` to all items; the results are in the items' order.
pub(super) fn map<T: Sync, R: Send + Default + Clone, E: Send>(
    items: &[T],
    n_threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let mut results = vec![R::default(); items.len()];
    let pieces = Mutex::new(items.chunks(N_AT_ONCE).zip(results.chunks_mut(N_AT_ONCE)));
    let worker = || {
        loop {
            let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((items, results)) = next else { return Ok(()) };
            for (item, result) in items.iter().zip(results) {
                *result = work(item)?;
            }
        }
    };
    let n_more = n_threads.min(items.len().div_ceil(N_AT_ONCE)).saturating_sub(1);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..n_more).map(|_| scope.spawn(worker)).collect();
        let mut outcome = worker();
        for other in others {
            let theirs = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and(theirs);
        }
        outcome
    })?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_whatever_the_threads() {
        let items: Vec<usize> = (0..100).collect();
        let wanted: Vec<usize> = items.iter().map(|item| item * 2).collect();
        for n_threads in [0, 1, 2, 7, 1000] {
            assert_eq!(map(&items, n_threads, |item| Ok::<_, ()>(item * 2)), Ok(wanted.clone()));
        }
        assert_eq!(map(&[], 3, |item: &usize| Ok::<_, ()>(*item)), Ok(vec![]));
    }

    #[test]
    fn one_failure_fails_all() {
        let items: Vec<usize> = (0..100).collect();
        let work = |item: &usize| if *item == 77 { Err("no") } else { Ok(*item) };
        assert_eq!(map(&items, 3, work), Err("no"));
    }
}
