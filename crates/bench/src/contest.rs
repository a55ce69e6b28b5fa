//! Contenders for one thing, measured in interleaved rounds.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use shapeyard_core::{Route, Tier};

use crate::measure::{Percentiles, median, order, spread};
use crate::table;

/// What one round of one contender took.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The time of the round.
    pub wall: Duration,
    /// What each of several loaders took; empty where there is one.
    pub loads: Vec<Duration>,
}

impl From<Duration> for Sample {
    fn from(wall: Duration) -> Self {
        Self { wall, loads: Vec::new() }
    }
}

/// What a contender is to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the project offers.
    Ours,
    /// What somebody would use instead.
    Rival,
    /// What nobody can go below: a part of the work, a raw call.
    Limit,
    /// Work that has nothing to do with the question and shows how fast the machine is.
    Yardstick,
}

/// One way to do it.
pub struct Contender<'a> {
    name: String,
    role: Option<Role>,
    run: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl std::fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    /// Ours where it is the first, a rival otherwise. `run` times itself, so that preparing does not count.
    pub fn new<S: Into<Sample>>(
        name: impl Into<String>,
        mut run: impl FnMut() -> Result<S> + 'a,
    ) -> Self {
        let run = Box::new(move || run().map(Into::into));
        Self { name: name.into(), role: None, run }
    }

    /// The same in another role.
    #[must_use]
    pub fn role(self, role: Role) -> Self {
        Self { role: Some(role), ..self }
    }

    /// The same, made slower on purpose: after each run it is kept busy for `share` of what that took.
    #[must_use]
    pub fn handicapped(self, share: f64) -> Self {
        let mut own = self.run;
        let run = Box::new(move || {
            let sample = own()?;
            Ok(Sample { wall: slowed(sample.wall, share), ..sample })
        });
        Self { run, ..self }
    }

    /// What hashing a fixed number of bytes takes, for contests that have nobody to compare with.
    fn yardstick() -> Self {
        const N_BYTES: usize = 4 << 20;
        let bytes = vec![0xA5; N_BYTES];
        Self::new(format!("yardstick: BLAKE3 of {} MiB", N_BYTES >> 20), move || {
            Ok(timed(|| Ok(blake3::hash(&bytes)))?.1)
        })
        .role(Role::Yardstick)
    }
}

/// What all contenders took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contest {
    /// What it is called within its suite.
    pub name: String,
    /// What is done, for a person.
    pub title: String,
    /// Rounds that were run before and do not count.
    pub n_warm_up: usize,
    /// Rounds that count.
    pub n_rounds: usize,
    /// Who took part. The first of ours is the one that rivals are compared with.
    pub contenders: Vec<Measured>,
    /// What ours should keep to.
    pub goals: Vec<Goal>,
    /// What was checked besides the times.
    pub notes: Vec<String>,
}

/// What one contender took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What it is to the question.
    pub role: Role,
    /// The contender that it is compared with, where that is not the first of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// Seconds that each round took, in order: equal places of two contenders are the same round.
    pub seconds: Vec<f64>,
    /// The same, summed up.
    pub rounds: Percentiles,
    /// Of single calls in seconds, where a round has many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Percentiles>,
    /// What else is known of it.
    pub facts: Facts,
}

/// What is known of a contender besides its time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Processor time of a round, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// What a round works on: a number and a word, `(600, "texts")`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<(f64, String)>,
    /// The share of what ran that was padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding_share: Option<f64>,
    /// The most memory that its process had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The least cosine between its vectors and the first contender's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_cosine: Option<f64>,
    /// Requests for memory that Rust code makes a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations: Option<f64>,
    /// What happened to runs of ours.
    #[serde(flatten)]
    pub counts: Counts,
    /// Anything else, by a name with its unit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, f64>,
}

/// Runs by what happened to them, under the names that reports give it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// By tier.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<String, u64>,
    /// By route.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds runs that met the backend in one readiness.
    ///
    /// # Errors
    ///
    /// A tier without a name.
    pub fn add_tier(&mut self, tier: Tier, n: u64) -> Result<()> {
        add(&mut self.tiers, &tier, n)
    }

    /// Adds runs on one route.
    ///
    /// # Errors
    ///
    /// A route without a name.
    pub fn add_route(&mut self, route: Route, n: u64) -> Result<()> {
        add(&mut self.routes, &route, n)
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (sum, one) in [(&mut self.tiers, &other.tiers), (&mut self.routes, &other.routes)] {
            one.iter().for_each(|(name, n)| *sum.entry(name.clone()).or_default() += n);
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, what: &impl Serialize, n: u64) -> Result<()> {
    let name = serde_json::to_value(what)?;
    let name = name.as_str().context("it has no name of one word")?;
    *counts.entry(name.to_owned()).or_default() += n;
    Ok(())
}

/// Something that ours should keep to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What, with its unit.
    pub what: String,
    /// The most that it should be.
    pub at_most: f64,
    /// What it was; not a number where nothing was measured.
    #[serde(with = "crate::measure::number_or_null")]
    pub found: f64,
    /// Whether it was kept.
    pub met: bool,
}

impl Goal {
    /// A goal that `found` keeps where it is at most `at_most`.
    pub fn at_most(what: impl Into<String>, at_most: f64, found: f64) -> Self {
        Self { what: what.into(), at_most, found, met: found <= at_most }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.met { "met" } else { "missed" };
        let [found, at_most] = [self.found, self.at_most].map(table::number);
        write!(f, "goal {verdict}: {}: {found}, at most {at_most}", self.what)
    }
}

/// Two contenders' times in the same rounds, one over the other.
#[derive(Clone, Copy, Debug)]
pub struct Ratio<'a> {
    /// Whose times are divided.
    pub of: &'a Measured,
    /// By whose.
    pub over: &'a Measured,
    /// The median of the rounds' ratios.
    pub median: f64,
}

impl<'a> Ratio<'a> {
    /// Of the rounds that both took part in.
    #[must_use]
    pub fn of(of: &'a Measured, over: &'a Measured) -> Self {
        let ratios: Vec<f64> = of.seconds.iter().zip(&over.seconds).map(|(a, b)| a / b).collect();
        Self { of, over, median: median(&ratios) }
    }
}

impl Contest {
    /// Runs every contender once unmeasured, so that what they read is in memory, and then in rounds.
    ///
    /// # Errors
    ///
    /// The first of a contender's.
    pub fn run(
        name: &str,
        title: impl Into<String>,
        n_rounds: usize,
        mut contenders: Vec<Contender<'_>>,
    ) -> Result<Self> {
        let has_other = contenders.iter().skip(1).any(|it| it.role != Some(Role::Ours));
        if !has_other {
            contenders.push(Contender::yardstick());
        }
        eprintln!("{name}: {n_rounds} rounds of {} contenders", contenders.len());
        let mut samples = vec![Vec::with_capacity(n_rounds); contenders.len()];
        let run = |contender: &mut Contender<'_>| {
            (contender.run)().with_context(|| format!("`{}` failed", contender.name))
        };
        contenders.iter_mut().try_for_each(|contender| run(contender).map(drop))?;
        for round in 0..n_rounds {
            for at in order(round, contenders.len()) {
                samples[at].push(run(&mut contenders[at])?);
            }
        }
        let roles = contenders.into_iter().enumerate().map(|(at, contender)| {
            let role = if at == 0 { Role::Ours } else { Role::Rival };
            (contender.name, contender.role.unwrap_or(role))
        });
        let measured = roles.zip(&samples).map(|((name, role), it)| Measured::of(name, role, it));
        let contenders = measured.collect();
        let (name, title) = (name.to_owned(), title.into());
        Ok(Self { name, title, n_warm_up: 1, n_rounds, contenders, ..Self::default() })
    }

    /// The first of ours.
    #[must_use]
    pub fn first_of_ours(&self) -> Option<&Measured> {
        self.contenders.iter().find(|it| it.role == Role::Ours)
    }

    /// The median of ours, in seconds; NaN where there is none.
    #[must_use]
    pub fn ours(&self) -> f64 {
        self.first_of_ours().map_or(f64::NAN, |ours| ours.rounds.median)
    }

    /// How many times as long as the first alternative ours takes; NaN where there is none.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let first = self.contenders.iter().find(|it| it.role == Role::Rival);
        first.and_then(|it| self.ratio_of(it)).map_or(f64::NAN, |it| it.median)
    }

    /// Of the one that names another beside it, its time over the other's; else the first of ours over it.
    #[must_use]
    pub fn ratio_of<'a>(&'a self, measured: &'a Measured) -> Option<Ratio<'a>> {
        let (of, over) = match &measured.beside {
            Some(beside) => (measured, self.contenders.iter().find(|it| it.name == *beside)?),
            None => (self.first_of_ours()?, measured),
        };
        Some(Ratio::of(of, over))
    }

    /// The fastest among those in this role, round by round: a machine that turns slow or fast halfway changes the medians
    /// of all, and of some more than of others.
    #[must_use]
    pub fn best(&self, role: Role) -> Option<&Measured> {
        let most = self.contenders.iter().map(|it| it.seconds.len()).max()?;
        let common = self.contenders.iter().find(|it| it.seconds.len() == most)?;
        let beside = |it: &Measured| Ratio::of(it, common).median;
        let all = self.contenders.iter().filter(|it| it.role == role);
        all.min_by(|a, b| beside(a).total_cmp(&beside(b)))
    }

    /// The best of ours over the best rival.
    #[must_use]
    pub fn best_ratio(&self) -> Option<Ratio<'_>> {
        Some(Ratio::of(self.best(Role::Ours)?, self.best(Role::Rival)?))
    }

    /// Prints the table that a person reads.
    pub fn print(&self) {
        let rounds = if self.n_rounds == 1 { "round" } else { "rounds" };
        println!("\n{}: {}; {} {rounds}", self.name, self.title, self.n_rounds);
        print!("{}", table::of(self).text());
        self.goals.iter().for_each(|goal| println!("  {goal}"));
        self.notes.iter().for_each(|note| println!("  {note}"));
    }
}

impl Measured {
    /// One whose rounds took so many seconds each.
    pub fn new(name: impl Into<String>, role: Role, seconds: Vec<f64>) -> Self {
        let rounds = Percentiles::of(&seconds);
        let facts = Facts::default();
        Self { name: name.into(), role, beside: None, seconds, rounds, calls: None, facts }
    }

    fn of(name: String, role: Role, samples: &[Sample]) -> Self {
        let seconds = samples.iter().map(|sample| sample.wall.as_secs_f64()).collect();
        let calls: Vec<f64> =
            samples.iter().flat_map(|it| it.loads.iter().map(Duration::as_secs_f64)).collect();
        let calls = (!calls.is_empty()).then(|| Percentiles::of(&calls));
        Self { calls, ..Self::new(name, role, seconds) }
    }

    /// Largest less smallest, as a share of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        spread(&self.seconds)
    }
}

/// Keeps this thread busy for a share of what something took; gives the time of both. With it a slowdown is put
/// in on purpose, which comparing has to find.
#[must_use]
pub fn slowed(took: Duration, share: f64) -> Duration {
    let (more, start) = (took.mul_f64(share), Instant::now());
    let wasted = black_box(0u64);
    while start.elapsed() < more {
        black_box(wasted.wrapping_add(1));
    }
    if more.is_zero() { took } else { took + start.elapsed() }
}

/// What work gives, and how long it took. What is given is dropped later, by whom it is given to.
///
/// # Errors
///
/// The work's own.
pub fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let made = black_box(work()?);
    Ok((made, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_read_as_it_was_written() {
        let mut facts = Facts { allocations: Some(1.0), ..Facts::default() };
        facts.counts.add_tier(Tier::Rebind, 2).unwrap();
        facts.counts.add_route(Route::Padded, 3).unwrap();
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(text, r#"{"allocations":1.0,"tiers":{"rebind":2},"routes":{"padded":3}}"#);
        let read: Facts = serde_json::from_str(&text).unwrap();
        assert_eq!(read.counts, facts.counts);
        assert!(serde_json::from_str::<Facts>(r#"{"tires":{}}"#).is_err());
    }

    fn fixed(ms: u64) -> Contender<'static> {
        Contender::new(format!("{ms} ms"), move || Ok::<_, _>(Duration::from_millis(ms)))
    }

    #[test]
    fn ratios_are_of_ours_to_each() {
        let contest = Contest::run("test", "", 3, vec![fixed(30), fixed(20), fixed(60)]).unwrap();
        assert_eq!(contest.ratio(), 1.5);
        let last = &contest.contenders[2];
        assert_eq!(contest.ratio_of(last).unwrap().median, 0.5);
        assert_eq!(contest.contenders[0].seconds, [0.03; 3]);
        assert_eq!(contest.best(Role::Rival).unwrap().name, "20 ms");
    }

    #[test]
    fn the_fastest_is_so_round_by_round() {
        // The machine turned twice as fast, for the second of ours a round earlier than for the first.
        let of = |name: &str, role, seconds: [f64; 5]| Measured::new(name, role, seconds.into());
        let contest = Contest {
            contenders: vec![
                of("direct", Role::Rival, [2.0, 2.0, 1.0, 1.0, 1.0]),
                of("spinning", Role::Ours, [2.0, 2.0, 2.0, 1.0, 1.0]),
                of("sleeping", Role::Ours, [3.0, 3.0, 1.5, 1.5, 1.5]),
            ],
            ..Contest::default()
        };
        assert_eq!(contest.best(Role::Ours).unwrap().name, "spinning");
        assert_eq!(contest.best_ratio().unwrap().median, 1.0);
    }

    #[test]
    fn who_names_another_is_compared_with_it() {
        let mut contest =
            Contest::run("test", "", 1, vec![fixed(30), fixed(20), fixed(60)]).unwrap();
        contest.contenders[2].beside = Some("20 ms".to_owned());
        let ratio = contest.ratio_of(&contest.contenders[2]).unwrap();
        assert_eq!((ratio.of.name.as_str(), ratio.median), ("60 ms", 3.0));
    }

    #[test]
    fn who_is_alone_gets_a_yardstick() {
        let contenders = vec![fixed(1), fixed(2).role(Role::Ours)];
        let contest = Contest::run("test", "", 1, contenders).unwrap();
        let roles: Vec<Role> = contest.contenders.iter().map(|it| it.role).collect();
        assert_eq!(roles, [Role::Ours, Role::Ours, Role::Yardstick]);
        assert!(contest.best(Role::Rival).is_none() && contest.ratio().is_nan());
    }

    #[test]
    fn a_handicap_makes_a_contender_slower_by_its_share_at_least() {
        let contest = Contest::run("test", "", 2, vec![fixed(10).handicapped(0.1)]).unwrap();
        assert!(contest.contenders[0].seconds.iter().all(|it| *it >= 0.011));
    }

    #[test]
    fn an_error_names_who_failed() {
        let failing = Contender::new("a rival", || Err::<Duration, _>(anyhow::anyhow!("no disk")));
        let error = Contest::run("test", "", 1, vec![fixed(1), failing]).unwrap_err();
        assert_eq!(format!("{error:#}"), "`a rival` failed: no disk");
    }
}
