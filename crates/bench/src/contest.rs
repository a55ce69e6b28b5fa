//! Contenders for one thing, measured in interleaved rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::measure::{median, order, spread};

/// What one round of one contender took.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    /// What each of several loaders took; empty where there is one.
    pub(crate) loads: Vec<Duration>,
}

impl From<Duration> for Sample {
    fn from(wall: Duration) -> Self {
        Self { wall, loads: Vec::new() }
    }
}

/// One way to do it.
pub(crate) struct Contender<'a> {
    name: String,
    run: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new<S: Into<Sample>>(
        name: impl Into<String>,
        mut run: impl FnMut() -> Result<S> + 'a,
    ) -> Self {
        Self { name: name.into(), run: Box::new(move || run().map(Into::into)) }
    }
}

/// What all contenders took. The first is ours.
#[derive(Debug, Serialize)]
pub(crate) struct Contest {
    name: &'static str,
    title: String,
    n_rounds: usize,
    contenders: Vec<Measured>,
    /// What was checked besides the times.
    pub(crate) notes: Vec<String>,
}

/// What one contender took.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    name: String,
    median_seconds: f64,
    /// Largest less smallest, as a share of the median.
    spread: f64,
    /// The median of what each loader took.
    median_load_seconds: Option<f64>,
    /// How many times as long ours takes.
    ours_over_this: f64,
    wall_seconds: Vec<f64>,
    load_seconds: Vec<f64>,
}

impl Contest {
    /// Runs every contender once unmeasured, so that what they read is in memory, and then in rounds.
    pub(crate) fn run(
        name: &'static str,
        title: impl Into<String>,
        n_rounds: usize,
        mut contenders: Vec<Contender<'_>>,
    ) -> Result<Self> {
        eprintln!("{name}: {n_rounds} rounds of {} contenders", contenders.len());
        let mut samples = vec![Vec::with_capacity(n_rounds); contenders.len()];
        for contender in &mut contenders {
            (contender.run)()?;
        }
        for round in 0..n_rounds {
            for at in order(round, contenders.len()) {
                samples[at].push((contenders[at].run)()?);
            }
        }
        let names = contenders.into_iter().map(|contender| contender.name);
        let mut measured: Vec<Measured> =
            names.zip(&samples).map(|(name, samples)| Measured::new(name, samples)).collect();
        let ours = measured.first().map_or(f64::NAN, |ours| ours.median_seconds);
        for it in &mut measured {
            it.ours_over_this = ours / it.median_seconds;
        }
        Ok(Self { name, title: title.into(), n_rounds, contenders: measured, notes: Vec::new() })
    }

    /// The median of ours, in seconds.
    pub(crate) fn ours(&self) -> f64 {
        self.contenders.first().map_or(f64::NAN, |ours| ours.median_seconds)
    }

    /// How many times as long as the first alternative ours takes.
    pub(crate) fn ratio(&self) -> f64 {
        self.contenders.get(1).map_or(f64::NAN, |alternative| alternative.ours_over_this)
    }

    /// Prints the table that a person reads.
    pub(crate) fn print(&self) {
        println!("\n{}: {}; {} rounds", self.name, self.title, self.n_rounds);
        let in_crowd = self.contenders.iter().any(|it| it.median_load_seconds.is_some());
        let load = if in_crowd { "  each ms" } else { "" };
        println!("{:>10} {:>9} {:>9}{load} {:>9}", "median ms", "least", "most", "ours/this");
        for contender in &self.contenders {
            contender.print(in_crowd);
        }
        for note in &self.notes {
            println!("  {note}");
        }
    }
}

impl Measured {
    fn new(name: String, samples: &[Sample]) -> Self {
        let seconds = |samples: Vec<Duration>| -> Vec<f64> {
            samples.iter().map(Duration::as_secs_f64).collect()
        };
        let wall_seconds = seconds(samples.iter().map(|sample| sample.wall).collect());
        let load_seconds = seconds(samples.iter().flat_map(|it| it.loads.clone()).collect());
        Self {
            name,
            median_seconds: median(&wall_seconds),
            spread: spread(&wall_seconds),
            median_load_seconds: (!load_seconds.is_empty()).then(|| median(&load_seconds)),
            ours_over_this: f64::NAN,
            wall_seconds,
            load_seconds,
        }
    }

    fn print(&self, in_crowd: bool) {
        let least = self.wall_seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.wall_seconds.iter().copied().fold(0.0, f64::max);
        let [median, least, most] = [self.median_seconds, least, most].map(|it| 1e3 * it);
        print!("{median:10.3} {least:9.3} {most:9.3}");
        match self.median_load_seconds {
            Some(load) => print!("{:9.3}", 1e3 * load),
            None if in_crowd => print!("{:9}", ""),
            None => {}
        }
        println!(" {:8.2}x  {}", self.ours_over_this, self.name);
    }
}

/// What work gives, and how long it took. What is given is dropped later, by whom it is given to.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let made = black_box(work()?);
    Ok((made, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_ours_to_each() {
        let fixed =
            |ms| Contender::new(format!("{ms} ms"), move || Ok::<_, _>(Duration::from_millis(ms)));
        let contest = Contest::run("test", "", 3, vec![fixed(30), fixed(20), fixed(60)]).unwrap();
        assert_eq!(contest.ratio(), 1.5);
        assert_eq!(contest.contenders[2].ours_over_this, 0.5);
        assert_eq!(contest.contenders[0].wall_seconds, [0.03; 3]);
    }
}
