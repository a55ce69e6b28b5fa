//! How time is told.

use std::time::{Duration, Instant};

use shapeyard_core::measure::Watch;

use crate::measure::cpu_time;

/// How time is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Clock {
    /// Time on the wall.
    #[default]
    Wall,
    /// Processor time of all threads of this process.
    Cpu,
}

impl Watch for Clock {
    fn stopwatch(&self) -> Box<dyn Fn() -> Duration> {
        match self {
            Self::Wall => {
                let started = Instant::now();
                Box::new(move || started.elapsed())
            }
            Self::Cpu => {
                let started = cpu_time();
                Box::new(move || cpu_time().saturating_sub(started))
            }
        }
    }
}
