//! Which programs would save requests time, and which of them is made next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::event::{Event, Stage};
use crate::Extents;
use crate::plan::Bucket;

/// Shapes of requests that are remembered; a client that sends ever new ones must not fill the memory.
const MOST_SHAPES: usize = 4096;

/// Programs that requests lack. A queue that is bounded: what saves most is made first, what saves least is given
/// up first.
#[derive(Debug)]
pub(super) struct Demand {
    capacity: usize,
    /// What requests lacked, by shape.
    shapes: Shapes,
    /// Seconds that the programs would have saved the requests that lacked them.
    saved: HashMap<Arc<Bucket>, f64>,
    queue: Vec<Want>,
    compiling: Option<Arc<Bucket>>,
    failed: Vec<Failure>,
    /// What is still to be told.
    events: Vec<Event>,
}

/// Requests by shape, with what they lacked.
pub(super) type Shapes = HashMap<Extents, Asked>;

/// Requests of one shape.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The program that would have saved them time; `None` where none would.
    lack: Option<Lack>,
    n: u64,
}

/// A program that a request lacks.
#[derive(Clone, Debug)]
pub(super) struct Lack {
    pub(super) bucket: Arc<Bucket>,
    /// Seconds that it would save the request.
    pub(super) saves: f64,
    /// Seconds that it takes to compile, as far as that is known: what it saves in all has to be as much.
    pub(super) costs: f64,
}

impl Asked {
    /// The same requests, which lack something else by now.
    pub(super) fn lacking(&self, lack: Option<Lack>) -> Self {
        Self { lack, n: self.n }
    }

    /// Seconds that what they lack would have saved them.
    fn saved(&self) -> f64 {
        self.lack.as_ref().map_or(0.0, |lack| self.n as f64 * lack.saves)
    }
}

#[derive(Clone, Debug)]
struct Want {
    bucket: Arc<Bucket>,
    /// Seconds that it would have saved so far.
    saved: f64,
    /// Its place in a plan, from the least worth; 0 where no plan wants it.
    rank: usize,
}

impl Want {
    /// Whether it is to be made rather than another.
    fn is_before(&self, other: &Self) -> bool {
        (self.saved, self.rank) > (other.saved, other.rank)
    }
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
    /// The request lacks none.
    Content,
    /// Nobody makes it, for now.
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
            shapes: HashMap::new(),
            saved: HashMap::new(),
            queue: Vec::new(),
            compiling: None,
            failed: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Counts a request; `None` for a shape that nobody has looked at yet.
    pub(super) fn count(&mut self, request: &Extents, now: Instant) -> Option<Progress> {
        let asked = self.shapes.get_mut(request)?;
        asked.n = asked.n.saturating_add(1);
        let Some(lack) = asked.lack.clone() else { return Some(Progress::Content) };
        let saved = self.saved.entry(Arc::clone(&lack.bucket)).or_default();
        *saved += lack.saves;
        let want = Want { saved: *saved, rank: 0, bucket: lack.bucket };
        Some(self.want(want, lack.costs, now))
    }

    /// Remembers what requests of a shape lack.
    pub(super) fn learn(&mut self, request: &Extents, lack: Option<Lack>) {
        if self.shapes.len() >= MOST_SHAPES {
            self.forget_shapes();
        }
        self.shapes.entry(request.clone()).or_insert(Asked { lack, n: 0 });
    }

    /// Makes room for other shapes. Of those that lack one program one stays and stands for all, so that what it would
    /// have saved them goes on to count; where even these are many, those stay that lost most.
    fn forget_shapes(&mut self) {
        let mut shapes: Vec<(Extents, Asked)> = self.shapes.drain().collect();
        shapes.sort_by(|(_, a), (_, b)| b.saved().total_cmp(&a.saved()));
        let mut saved = std::mem::take(&mut self.saved);
        for (request, Asked { lack, .. }) in shapes {
            if self.shapes.len() >= MOST_SHAPES / 2 {
                break;
            }
            let Some(lack) = lack else { continue };
            let Some(seconds) = saved.remove(&lack.bucket) else { continue };
            self.saved.insert(Arc::clone(&lack.bucket), seconds);
            let n = (seconds / lack.saves).round() as u64;
            self.shapes.insert(request, Asked { lack: Some(lack), n });
        }
    }

    /// Queues a program where what it saves is worth what it costs.
    fn want(&mut self, want: Want, costs: f64, now: Instant) -> Progress {
        if self.compiling.as_ref() == Some(&want.bucket) {
            return Progress::OnItsWay;
        }
        if let Some(at) = self.failed.iter().position(|it| it.bucket == want.bucket) {
            if self.failed[at].until.is_none_or(|until| now < until) {
                return Progress::Failed;
            }
            self.failed.swap_remove(at);
        }
        if let Some(queued) = self.queue.iter_mut().find(|it| it.bucket == want.bucket) {
            queued.saved = want.saved;
            return Progress::OnItsWay;
        }
        if want.saved < costs {
            return Progress::None;
        }
        if self.queue.len() >= self.capacity {
            let least = (0..self.queue.len())
                .reduce(|a, b| if self.queue[a].is_before(&self.queue[b]) { b } else { a });
            match least {
                Some(at) if want.is_before(&self.queue[at]) => {
                    let given_up = self.queue.remove(at);
                    self.tell(&given_up.bucket, Stage::GivenUp);
                }
                _ => return Progress::None,
            }
        }
        self.tell(&want.bucket, Stage::Queued);
        self.queue.push(want);
        Progress::OnItsWay
    }

    /// Queues the programs of a plan, which says them in the order of their worth.
    pub(super) fn plan(&mut self, buckets: &[Bucket], now: Instant) {
        for (bucket, rank) in ranked(buckets) {
            self.want(Want { bucket: Arc::new(bucket.clone()), saved: 0.0, rank }, 0.0, now);
        }
    }

    /// Takes the program that saves most; it counts as being compiled from now on.
    pub(super) fn next(&mut self) -> Option<Arc<Bucket>> {
        // Of equals the one that waits longest.
        let most = (0..self.queue.len())
            .reduce(|a, b| if self.queue[b].is_before(&self.queue[a]) { b } else { a });
        let bucket = self.queue.remove(most?).bucket;
        self.compiling = Some(Arc::clone(&bucket));
        Some(bucket)
    }

    /// Hands out what requests lacked, to be looked at anew; what comes meanwhile is counted by itself.
    pub(super) fn take_shapes(&mut self) -> Shapes {
        self.saved.clear();
        std::mem::take(&mut self.shapes)
    }

    /// What was being compiled is ready.
    pub(super) fn made(&mut self) {
        self.compiling = None;
    }

    /// Requests of these shapes lack this by now. What nobody lacks any more leaves the queue, unless a plan wants it;
    /// what is being compiled goes on.
    pub(super) fn learn_anew(&mut self, planned: &[Bucket], shapes: Shapes) {
        for (request, asked) in std::mem::replace(&mut self.shapes, shapes) {
            let kept = self.shapes.entry(request).or_insert(Asked { n: 0, ..asked.clone() });
            kept.n = kept.n.saturating_add(asked.n);
        }
        self.saved.clear();
        let before = std::mem::take(&mut self.queue);
        let mut wants: Vec<Want> = ranked(planned)
            .filter_map(|(bucket, rank)| {
                let want = before.iter().find(|want| *want.bucket == *bucket)?;
                Some(Want { bucket: Arc::clone(&want.bucket), saved: 0.0, rank })
            })
            .collect();
        let mut costs: HashMap<Arc<Bucket>, f64> = HashMap::new();
        for asked in self.shapes.values() {
            let Some(lack) = &asked.lack else { continue };
            *self.saved.entry(Arc::clone(&lack.bucket)).or_default() += asked.n as f64 * lack.saves;
            costs.insert(Arc::clone(&lack.bucket), lack.costs);
        }
        for (bucket, &saved) in &self.saved {
            match wants.iter_mut().find(|want| want.bucket == *bucket) {
                Some(want) => want.saved = saved,
                None if saved >= costs[bucket] && !self.is_settled(bucket) => {
                    wants.push(Want { bucket: Arc::clone(bucket), saved, rank: 0 });
                }
                None => {}
            }
        }
        wants.sort_by(|a, b| b.saved.total_cmp(&a.saved).then(b.rank.cmp(&a.rank)));
        wants.truncate(self.capacity);
        self.queue = wants;
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
            // Another program may save those requests time.
            let is_other = |lack: &Lack| lack.bucket != bucket;
            self.shapes.retain(|_, asked| asked.lack.as_ref().is_none_or(is_other));
            self.saved.remove(&bucket);
        }
        self.failed.retain(|failure| failure.bucket != bucket);
        self.failed.push(Failure { bucket, until });
    }

    /// Programs that can never be made.
    pub(super) fn refused(&self) -> Vec<Arc<Bucket>> {
        let never = self.failed.iter().filter(|it| it.until.is_none());
        never.map(|it| Arc::clone(&it.bucket)).collect()
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

    /// Whether it is being compiled, or could not be.
    fn is_settled(&self, bucket: &Arc<Bucket>) -> bool {
        let has_failed = self.failed.iter().any(|it| it.bucket == *bucket);
        has_failed || self.compiling.as_ref() == Some(bucket)
    }

    fn tell(&mut self, bucket: &Bucket, stage: Stage) {
        self.events.push(Event { bucket: bucket.clone(), stage });
    }
}

/// The programs of a plan with their ranks; the last has rank 1.
fn ranked(planned: &[Bucket]) -> impl Iterator<Item = (&Bucket, usize)> {
    planned.iter().zip((1..=planned.len()).rev())
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

    fn lack(program: usize, saves: f64) -> Option<Lack> {
        Some(Lack { bucket: Arc::new(batch(program)), saves, costs: 0.0 })
    }

    /// A request of `n` rows that lacks a program.
    fn ask(demand: &mut Demand, n: usize, lack: Option<Lack>) -> Progress {
        demand.learn(&request(n), lack);
        demand.count(&request(n), Instant::now()).unwrap()
    }

    fn queue(demand: &Demand) -> Vec<(Bucket, f64)> {
        let mut queue: Vec<(Bucket, f64)> =
            demand.queue.iter().map(|want| ((*want.bucket).clone(), want.saved)).collect();
        queue.sort_by(|a, b| a.0.cmp(&b.0));
        queue
    }

    #[test]
    fn a_program_counts_for_all_shapes_that_lack_it() {
        let mut demand = Demand::new(8);
        for (n, saves, program) in [(3, 60.0, 4), (4, 70.0, 4), (7, 100.0, 8)] {
            assert_eq!(ask(&mut demand, n, lack(program, saves)), Progress::OnItsWay);
        }
        let before = queue(&demand);
        assert_eq!(before, [(batch(4), 130.0), (batch(8), 100.0)]);
        let shapes = demand.take_shapes();
        demand.learn_anew(&[], shapes);
        assert_eq!(queue(&demand), before);
    }

    #[test]
    fn what_a_plan_wants_is_made_in_its_order_after_what_requests_lack() {
        let mut demand = Demand::new(8);
        let planned = [batch(8), batch(4), batch(2)];
        demand.plan(&planned, Instant::now());
        ask(&mut demand, 2, lack(2, 1e-3));
        for n in [2, 8, 4] {
            assert_eq!(demand.next().as_deref(), Some(&batch(n)));
            let shapes = demand.take_shapes();
            let content = |(request, asked): (Extents, Asked)| (request, asked.lacking(None));
            demand.learn_anew(&planned, shapes.into_iter().map(content).collect());
            demand.made();
        }
        assert_eq!(demand.next(), None);
    }

    #[test]
    fn a_program_is_worth_its_compile_when_it_would_have_saved_as_much() {
        let mut demand = Demand::new(8);
        let lack = |saves| Some(Lack { costs: 1.0, ..lack(4, saves).unwrap() });
        assert_eq!(ask(&mut demand, 3, lack(0.375)), Progress::None);
        assert_eq!(ask(&mut demand, 4, lack(0.25)), Progress::None);
        assert_eq!(demand.next(), None);
        assert_eq!(ask(&mut demand, 3, None), Progress::OnItsWay, "what was learnt stays");
        assert_eq!(queue(&demand), [(batch(4), 1.0)]);
    }

    #[test]
    fn shapes_without_end_are_bounded_and_what_they_lack_is_made_all_the_same() {
        let mut demand = Demand::new(8);
        let lack = |program| Some(Lack { costs: 6000.0, ..lack(program, 1.0).unwrap() });
        for n in 1..6000 {
            assert_eq!(ask(&mut demand, n, lack(8192)), Progress::None);
            assert!(demand.shapes.len() <= MOST_SHAPES);
        }
        assert_eq!(ask(&mut demand, 6000, lack(8192)), Progress::OnItsWay);
        // And it stays in the queue while others come, that are content or lack ever new programs.
        for n in 6001..30_000 {
            ask(&mut demand, n, if n < 11_000 { None } else { lack(n) });
        }
        assert!(demand.shapes.len() <= MOST_SHAPES && demand.saved.len() <= MOST_SHAPES);
        let shapes = demand.take_shapes();
        demand.learn_anew(&[], shapes);
        assert_eq!(queue(&demand), [(batch(8192), 6000.0)]);
    }

    #[test]
    fn what_comes_while_shapes_are_looked_at_is_not_lost() {
        let mut demand = Demand::new(8);
        ask(&mut demand, 3, lack(4, 1.0));
        let shapes = demand.take_shapes();
        assert_eq!(demand.count(&request(3), Instant::now()), None, "nobody knows it now");
        ask(&mut demand, 3, lack(4, 1.0));
        ask(&mut demand, 7, lack(8, 5.0));
        demand.learn_anew(&[], shapes);
        assert_eq!(queue(&demand), [(batch(4), 2.0), (batch(8), 5.0)]);
    }

    #[test]
    fn what_is_being_compiled_is_not_queued_once_more() {
        let mut demand = Demand::new(8);
        ask(&mut demand, 3, lack(4, 1.0));
        assert_eq!(demand.next().as_deref(), Some(&batch(4)));
        let shapes = demand.take_shapes();
        demand.learn_anew(&[], shapes);
        assert_eq!(queue(&demand), []);
        assert_eq!(demand.count(&request(3), Instant::now()), Some(Progress::OnItsWay));
    }

    #[test]
    fn a_request_that_lacks_nothing_is_content() {
        let mut demand = Demand::new(8);
        assert_eq!(ask(&mut demand, 3, None), Progress::Content);
        assert_eq!(demand.next(), None);
    }
}
