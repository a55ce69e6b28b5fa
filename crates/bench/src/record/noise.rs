//! What else a machine did while something was measured.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// Other work that takes more than this share of the machine makes figures doubtful.
const NOISY_OTHERS: f64 = 0.05;
/// So does a host that takes more than this share of a virtual machine's time.
const NOISY_STEAL: f64 = 0.01;

/// Of fewer of the kernel's ticks than these no share is told: one tick more or less would decide it.
const LEAST_TICKS: u64 = 200;

/// What else a machine did. Shares are of the time of all its processors; unknown where the system does not
/// tell, or over too few ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Processes that wanted to run, on average over the minute before.
    pub load_before: Option<f64>,
    /// The same at the end, this one counted.
    pub load_after: Option<f64>,
    /// What the host of a virtual machine gave to others.
    pub steal_share: Option<f64>,
    /// What processes took that are neither this one nor its children.
    pub others_share: Option<f64>,
}

impl Noise {
    /// Whether the figures are doubtful.
    #[must_use]
    pub fn is_noisy(&self) -> bool {
        let above = |share: Option<f64>, limit| share.is_some_and(|share| share > limit);
        above(self.others_share, NOISY_OTHERS) || above(self.steal_share, NOISY_STEAL)
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: Option<f64>| match share {
            Some(share) => format!("{:.1}%", 100.0 * share),
            None => "an unknown share".to_owned(),
        };
        let load = |load: Option<f64>| load.map_or("unknown".to_owned(), |it| format!("{it:.2}"));
        let verdict = if self.is_noisy() { "noisy" } else { "quiet" };
        let (before, after) = (load(self.load_before), load(self.load_after));
        let (others, steal) = (percent(self.others_share), percent(self.steal_share));
        write!(
            f,
            "{verdict}: other work took {others} of the machine and its host {steal}; load {before} before, \
             {after} after"
        )
    }
}

/// Looks at the machine from the beginning of a measurement to its end.
#[derive(Clone, Debug)]
pub struct Watch {
    load_before: Option<f64>,
    ticks: Option<Ticks>,
}

impl Watch {
    /// Begins to look.
    #[must_use]
    pub fn start() -> Self {
        Self { load_before: load(), ticks: Ticks::now() }
    }

    /// What happened since.
    #[must_use]
    pub fn noise(&self) -> Noise {
        let since = self.ticks.zip(Ticks::now()).map(|(then, now)| now.since(&then));
        let share = |of: fn(&Ticks) -> u64| {
            let since = since.filter(|since| since.all >= LEAST_TICKS)?;
            Some(of(&since) as f64 / since.all as f64)
        };
        Noise {
            load_before: self.load_before,
            load_after: load(),
            steal_share: share(|it| it.stolen),
            others_share: share(|it| it.busy.saturating_sub(it.own)),
        }
    }
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Time of all processors since the machine started, in units that all fields share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    all: u64,
    busy: u64,
    stolen: u64,
    /// What this process took, and its children that have ended.
    own: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&machine, &own)
    }

    fn parse(machine: &str, own: &str) -> Option<Self> {
        let line = machine.lines().next()?.strip_prefix("cpu ")?;
        let numbers: Vec<u64> = line.split_whitespace().map_while(|it| it.parse().ok()).collect();
        let [user, nice, system, idle, waiting, irq, softirq, stolen, ..] = numbers[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        // The second field is a name in parentheses, which may hold anything.
        let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let own = fields.get(11..15)?.iter().filter_map(|it| it.parse::<u64>().ok()).sum();
        Some(Self { all: busy + idle + waiting + stolen, busy, stolen, own })
    }

    fn since(&self, then: &Self) -> Self {
        Self {
            all: self.all.saturating_sub(then.all),
            busy: self.busy.saturating_sub(then.busy),
            stolen: self.stolen.saturating_sub(then.stolen),
            own: self.own.saturating_sub(then.own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let machine = "cpu  10 1 5 100 4 2 3 7 9 9\ncpu0 1 1 1 1\n";
        let own = "42 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n";
        let ticks = Ticks::parse(machine, own).unwrap();
        assert_eq!(ticks, Ticks { all: 132, busy: 21, stolen: 7, own: 11 + 12 + 13 + 14 });
        assert_eq!(Ticks::parse("cpu 1 2", own), None);
        assert_eq!(Ticks::parse(machine, "42"), None);
    }

    #[test]
    fn noise_is_others_work_or_stolen_time() {
        let noise = |others, steal| Noise {
            others_share: Some(others),
            steal_share: Some(steal),
            ..Noise::default()
        };
        assert!(!noise(0.02, 0.0).is_noisy() && !Noise::default().is_noisy());
        assert!(noise(0.2, 0.0).is_noisy() && noise(0.0, 0.02).is_noisy());
        assert!(noise(0.2, 0.0).to_string().starts_with("noisy: other work took 20.0%"));
    }
}
