//! Which programs requests lack, and which of them is made next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::event::{Event, Stage};
use crate::Extents;
use crate::plan::Bucket;

/// Shapes of requests that are remembered; a client that sends ever new ones must not fill the memory.
const MOST_MISSED: usize = 4096;

/// Programs that requests lack. A queue that is bounded: what most work waits for is made first, what least
/// work waits for is given up first.
#[derive(Debug)]
pub(super) struct Demand {
    capacity: usize,
    /// Requests that found no program, by shape.
    missed: HashMap<Extents, Missed>,
    queue: Vec<Want>,
    compiling: Option<Arc<Bucket>>,
    failed: Vec<Failure>,
    /// What is still to be told.
    events: Vec<Event>,
}

#[derive(Debug)]
struct Missed {
    /// The program that would hold them; `None` where none may be made.
    bucket: Option<Arc<Bucket>>,
    /// Tokens of all of them.
    weight: u64,
}

#[derive(Clone, Debug)]
struct Want {
    bucket: Arc<Bucket>,
    /// Tokens of the requests that lack it.
    weight: u64,
}

#[derive(Debug)]
struct Failure {
    bucket: Arc<Bucket>,
    /// When it may be tried again; `None` is never.
    until: Option<Instant>,
}

/// How far the program is that a request lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody makes it.
    None,
    /// It is queued or compiled.
    OnItsWay,
    /// It could not be compiled.
    Failed,
}

impl Demand {
    /// At most so many wait; 0 counts as 1.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            missed: HashMap::new(),
            queue: Vec::new(),
            compiling: None,
            failed: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Counts a request that found no program. `bucket_for` says which would hold it, given those that can
    /// never be made; it is asked once a shape.
    pub(super) fn missed(
        &mut self,
        request: &Extents,
        n_tokens: u64,
        now: Instant,
        bucket_for: impl FnOnce(&dyn Fn(&Bucket) -> bool) -> Option<Bucket>,
    ) -> Progress {
        if !self.missed.contains_key(request) {
            if self.missed.len() >= MOST_MISSED {
                self.missed.clear();
            }
            let bucket = bucket_for(&|bucket| self.is_refused(bucket)).map(Arc::new);
            self.missed.insert(request.clone(), Missed { bucket, weight: 0 });
        }
        let Some(missed) = self.missed.get_mut(request) else { return Progress::None };
        missed.weight = missed.weight.saturating_add(n_tokens);
        let weight = missed.weight;
        match missed.bucket.clone() {
            Some(bucket) => self.want(bucket, n_tokens, weight, now),
            None => Progress::None,
        }
    }

    /// Adds `more` to what waits for a program; one that is not queued yet is with `all`.
    fn want(&mut self, bucket: Arc<Bucket>, more: u64, all: u64, now: Instant) -> Progress {
        if self.compiling.as_ref() == Some(&bucket) {
            return Progress::OnItsWay;
        }
        if let Some(at) = self.failed.iter().position(|it| it.bucket == bucket) {
            if self.failed[at].until.is_none_or(|until| now < until) {
                return Progress::Failed;
            }
            self.failed.swap_remove(at);
        }
        if let Some(want) = self.queue.iter_mut().find(|want| want.bucket == bucket) {
            want.weight = want.weight.saturating_add(more);
            return Progress::OnItsWay;
        }
        let least = self.queue.iter().enumerate().min_by_key(|(_, want)| want.weight);
        if let Some((at, want)) = least.filter(|_| self.queue.len() >= self.capacity) {
            if want.weight >= all {
                return Progress::None;
            }
            let given_up = self.queue.remove(at);
            self.tell(&given_up.bucket, Stage::GivenUp);
        }
        self.tell(&bucket, Stage::Queued);
        self.queue.push(Want { bucket, weight: all });
        Progress::OnItsWay
    }

    /// Queues the programs of a plan, which says them in the order of their worth.
    pub(super) fn plan(&mut self, buckets: &[Bucket], now: Instant) {
        for (rank, bucket) in buckets.iter().rev().enumerate() {
            self.want(Arc::new(bucket.clone()), 0, worth(rank), now);
        }
    }

    /// Takes the program that most work waits for; it counts as being compiled from now on.
    pub(super) fn next(&mut self) -> Option<Arc<Bucket>> {
        // Of equals the one that waits longest.
        let most = self.queue.iter().enumerate().rev().max_by_key(|(_, want)| want.weight);
        let at = most.map(|(at, _)| at)?;
        let bucket = self.queue.remove(at).bucket;
        self.compiling = Some(Arc::clone(&bucket));
        Some(bucket)
    }

    /// What was being compiled is ready. Requests that still find no program, as `bucket_for` says of each,
    /// stay counted; what nobody lacks any more leaves the queue, unless a plan wants it.
    pub(super) fn ready(
        &mut self,
        planned: &[Bucket],
        bucket_for: impl Fn(&Extents, &dyn Fn(&Bucket) -> bool) -> Option<Bucket>,
    ) {
        self.compiling = None;
        let mut missed = std::mem::take(&mut self.missed);
        missed.retain(|request, it| {
            let bucket = bucket_for(request, &|bucket| self.is_refused(bucket));
            it.bucket = bucket.map(Arc::new);
            it.bucket.is_some()
        });
        let before = std::mem::take(&mut self.queue);
        let of_plan = |want: &Want| {
            let rank = planned.iter().rev().position(|it| *it == *want.bucket)?;
            Some(Want { bucket: Arc::clone(&want.bucket), weight: worth(rank) })
        };
        let mut wants: Vec<Want> = before.iter().filter_map(of_plan).collect();
        for it in missed.values() {
            let Some(bucket) = it.bucket.as_ref().filter(|it| !self.has_failed(it)) else {
                continue;
            };
            match wants.iter_mut().find(|want| want.bucket == *bucket) {
                Some(want) => want.weight = want.weight.saturating_add(it.weight),
                None => wants.push(Want { bucket: Arc::clone(bucket), weight: it.weight }),
            }
        }
        wants.sort_by_key(|want| std::cmp::Reverse(want.weight));
        wants.truncate(self.capacity);
        (self.queue, self.missed) = (wants, missed);
        self.tell_changes(&before);
    }

    fn tell_changes(&mut self, before: &[Want]) {
        let only = |these: &[Want], others: &[Want]| -> Vec<Arc<Bucket>> {
            let is_new = |want: &&Want| !others.iter().any(|it| it.bucket == want.bucket);
            these.iter().filter(is_new).map(|want| Arc::clone(&want.bucket)).collect()
        };
        let (gone, new) = (only(before, &self.queue), only(&self.queue, before));
        gone.iter().for_each(|bucket| self.tell(bucket, Stage::GivenUp));
        new.iter().for_each(|bucket| self.tell(bucket, Stage::Queued));
    }

    /// What was being compiled failed; it is not tried again before `until`, or never.
    pub(super) fn failed(&mut self, until: Option<Instant>) {
        let Some(bucket) = self.compiling.take() else { return };
        if until.is_none() {
            // Another program may hold those requests.
            self.missed.retain(|_, missed| missed.bucket.as_ref() != Some(&bucket));
        }
        self.failed.retain(|failure| failure.bucket != bucket);
        self.failed.push(Failure { bucket, until });
    }

    /// Gives up all that waits, and what is being compiled.
    pub(super) fn give_up(&mut self) {
        let compiling = self.compiling.take();
        let queued = std::mem::take(&mut self.queue).into_iter().map(|want| want.bucket);
        for bucket in compiling.into_iter().chain(queued) {
            self.tell(&bucket, Stage::GivenUp);
        }
    }

    /// What waits, as events.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Event> + '_ {
        self.queue.iter().map(|want| Event { bucket: (*want.bucket).clone(), stage: Stage::Queued })
    }

    /// What happened since the last call.
    pub(super) fn events(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    /// Whether a program can never be made.
    fn is_refused(&self, bucket: &Bucket) -> bool {
        self.failed.iter().any(|it| it.until.is_none() && *it.bucket == *bucket)
    }

    fn has_failed(&self, bucket: &Bucket) -> bool {
        self.failed.iter().any(|it| *it.bucket == *bucket)
    }

    fn tell(&mut self, bucket: &Bucket, stage: Stage) {
        self.events.push(Event { bucket: bucket.clone(), stage });
    }
}

/// What a planned program counts before a request lacks it; the last of a plan has rank 0.
fn worth(rank: usize) -> u64 {
    1 + rank as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signature;

    fn batch(n: usize) -> Bucket {
        Bucket::from_iter([("batch", n)])
    }

    fn request(n: usize) -> Extents {
        let symbols = vec!["batch".to_owned()];
        Signature { symbols, ..Signature::default() }.extents(&batch(n))
    }

    fn weights(demand: &Demand) -> Vec<(Bucket, u64)> {
        demand.queue.iter().map(|want| ((*want.bucket).clone(), want.weight)).collect()
    }

    #[test]
    fn a_program_counts_for_all_shapes_that_lack_it() {
        let (mut demand, now) = (Demand::new(8), Instant::now());
        for (n, tokens, program) in [(3, 60, 4), (4, 70, 4), (7, 100, 8)] {
            demand.missed(&request(n), tokens, now, |_| Some(batch(program)));
        }
        let before = weights(&demand);
        assert_eq!(before, [(batch(4), 130), (batch(8), 100)]);
        demand.ready(&[], |it, _| Some(if *it == request(7) { batch(8) } else { batch(4) }));
        assert_eq!(weights(&demand), before);
    }

    #[test]
    fn a_planned_program_counts_its_rank_and_what_is_still_lacking() {
        let (mut demand, now) = (Demand::new(8), Instant::now());
        let planned = [batch(8), batch(4)];
        demand.plan(&planned, now);
        for (n, tokens) in [(3, 60), (4, 70)] {
            demand.missed(&request(n), tokens, now, |_| Some(batch(4)));
        }
        assert_eq!(weights(&demand), [(batch(4), 131), (batch(8), 2)]);
        demand.ready(&planned, |it, _| (*it == request(3)).then(|| batch(4)));
        assert_eq!(weights(&demand), [(batch(4), 61), (batch(8), 2)]);
    }
}
