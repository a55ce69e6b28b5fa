//! What `shapeyard warm` says when it is done.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{BackendId, Model};

use crate::cache_args::Places;
use crate::human;
use crate::output::Report;
use crate::table::Table;

/// What became of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It was there.
    Hit,
    /// It was compiled.
    Compiled,
    /// Another process compiled it meanwhile.
    Waited,
    /// It could not be compiled.
    Failed,
    /// The command was stopped before.
    NotTried,
}

impl State {
    const ALL: [Self; 5] = [Self::Hit, Self::Compiled, Self::Waited, Self::Failed, Self::NotTried];

    const fn text(self) -> &'static str {
        match self {
            Self::Hit => "was there",
            Self::Compiled => "compiled",
            Self::Waited => "compiled by another",
            Self::Failed => "failed",
            Self::NotTried => "not tried",
        }
    }
}

/// A shape, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Shape {
    bucket: Bucket,
    state: State,
    seconds: f64,
    n_bytes: Option<u64>,
    pub(super) error: Option<String>,
}

impl Shape {
    pub(super) fn new(
        bucket: &Bucket,
        state: State,
        time: Duration,
        n_bytes: Option<u64>,
        error: Option<String>,
    ) -> Self {
        Self { bucket: bucket.clone(), state, seconds: time.as_secs_f64(), n_bytes, error }
    }

    pub(super) fn name(&self) -> String {
        name(&self.bucket)
    }

    pub(super) fn not_tried(bucket: &Bucket) -> Self {
        Self::new(bucket, State::NotTried, Duration::ZERO, None, None)
    }
}

/// A shape for people.
pub(super) fn name(bucket: &Bucket) -> String {
    if bucket.is_empty() { "any shape".to_owned() } else { human::line(&bucket.to_string()) }
}

/// What was compiled, and what was not.
#[derive(Serialize)]
pub(super) struct Warmed {
    model: PathBuf,
    backend: BackendId,
    #[serde(flatten)]
    places: Places,
    seconds: f64,
    n_ready: usize,
    n_failed: usize,
    n_not_tried: usize,
    shapes: Vec<Shape>,
}

impl Warmed {
    pub(super) fn new(
        model: &Model,
        backend: &BackendId,
        places: &Places,
        time: Duration,
        shapes: Vec<Shape>,
    ) -> Self {
        let count = |wanted: State| shapes.iter().filter(|shape| shape.state == wanted).count();
        let (n_failed, n_not_tried) = (count(State::Failed), count(State::NotTried));
        Self {
            model: model.path().to_owned(),
            backend: backend.clone(),
            places: places.clone(),
            seconds: time.as_secs_f64(),
            n_ready: shapes.len() - n_failed - n_not_tried,
            n_failed,
            n_not_tried,
            shapes,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.n_ready == self.shapes.len()
    }

    /// Whether something was left out.
    pub(super) const fn is_unfinished(&self) -> bool {
        self.n_not_tried > 0
    }

    /// What a person who stopped the command can count on.
    pub(super) fn left(&self) -> String {
        let shapes = human::count(self.shapes.len(), "shape");
        format!(
            "{} of {shapes} are in the cache; the same command goes on from there",
            self.n_ready
        )
    }

    /// How many shapes came how.
    fn sum(&self) -> String {
        let parts = State::ALL.iter().filter_map(|&state| {
            match self.shapes.iter().filter(|shape| shape.state == state).count() {
                0 => None,
                n => Some(format!("{n} {}", state.text())),
            }
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl Report for Warmed {
    const COMMAND: &'static str = "warm";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.shapes.is_empty() {
            return writeln!(out, "there was nothing to compile");
        }
        let mut table = Table::new(["SHAPE", "STATE", "TIME", "SIZE"]);
        for shape in &self.shapes {
            let time = Duration::from_secs_f64(shape.seconds);
            let time = if time.is_zero() { String::new() } else { human::time(time) };
            let size = shape.n_bytes.map(human::bytes).unwrap_or_default();
            table.row([shape.name(), shape.state.text().to_owned(), time, size]);
        }
        table.write(out)?;
        let (shapes, sum) = (human::count(self.shapes.len(), "shape"), self.sum());
        let time = human::time(Duration::from_secs_f64(self.seconds));
        writeln!(out, "\n{shapes} for {} in {time}: {sum}", self.backend)?;
        writeln!(out, "kept in {}", self.places.cache.display())
    }
}
