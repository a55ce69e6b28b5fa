//! What requests will look like, and which of that no program serves yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use shapeyard_core::plan::cover::{Freedom, cover, nearest};
use shapeyard_core::plan::{Bucket, Histogram};

/// Rows of the programs that are compiled for texts where none are ready.
const USUAL_ROWS: usize = 8;
/// Tokens of a batch of texts that prices are compared by.
const TOKEN_BUDGET: usize = 512;
/// Shapes that an error names.
const N_NEAREST: usize = 3;

/// What requests will look like.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// One request of this shape, with its rows and the length of each in tokens.
    Request { shape: Bucket, rows: usize, length: usize },
    /// Texts, stacked along `rows` and varying along `length`.
    Texts {
        rows: String,
        length: String,
        /// Lengths of the texts in tokens.
        lengths: Vec<usize>,
        /// No text is longer.
        limit: usize,
    },
}

impl Need {
    /// The shapes to compile so that everything can run, beside those that are ready.
    pub(crate) fn missing(&self, ready: &[Bucket], freedom: &Freedom<'_>) -> Vec<Bucket> {
        match self {
            Self::Request { shape, .. } if shape.iter().any(|(_, extent)| extent == 0) => {
                Vec::new()
            }
            Self::Request { shape, .. } => match cover(shape, ready, freedom) {
                Some(_) => Vec::new(),
                None => vec![shape.clone()],
            },
            Self::Texts { rows, length, lengths, limit } => {
                let held = ready.iter().filter_map(|bucket| bucket.get(length)).max();
                let too_long = lengths.iter().filter(|&&n| Some(n.max(1)) > held);
                let steps: BTreeSet<usize> = too_long
                    .map(|&n| n.max(1).next_power_of_two().min((*limit).max(n)).max(1))
                    .collect();
                let n_rows = ready.iter().filter_map(|bucket| bucket.get(rows)).max();
                let n_rows = n_rows.unwrap_or(USUAL_ROWS);
                let of_step = |step| Bucket::from_iter([(rows, n_rows), (length, step)]);
                steps.into_iter().map(of_step).collect()
            }
        }
    }

    /// The only programs that are needed, where the request has one of exactly its shape.
    pub(crate) fn only(&self, ready: &[Bucket]) -> Option<Bucket> {
        match self {
            Self::Request { shape, .. } => ready.contains(shape).then(|| shape.clone()),
            Self::Texts { .. } => None,
        }
    }

    /// What prices are compared by: the lengths of rows, counted, and the tokens of a batch.
    pub(crate) fn work(&self) -> (Histogram, usize) {
        match self {
            // It runs as one batch, whatever others would be cut to.
            Self::Request { rows, length, .. } => {
                (Histogram::from(vec![(*length, *rows as u64)]), rows.saturating_mul(*length))
            }
            Self::Texts { lengths, .. } => (Histogram::of(lengths), TOKEN_BUDGET),
        }
    }

    /// Whether the backend says in which shapes the work is done.
    pub(crate) const fn is_planned(&self) -> bool {
        matches!(self, Self::Texts { .. })
    }

    fn text(&self, missing: &[Bucket]) -> String {
        match (self, missing.last()) {
            (Self::Texts { length, lengths, .. }, _) => {
                format!("texts of up to {} tokens (`{length}`)", lengths.iter().max().unwrap_or(&0))
            }
            (Self::Request { shape, .. }, _) if shape.is_empty() => "this model".to_owned(),
            (Self::Request { shape, .. }, _) => shape.to_string(),
        }
    }

    /// The error that says what to compile.
    pub(crate) fn cold(&self, missing: &[Bucket], ready: &[Bucket], command: &Command<'_>) -> Cold {
        let near = missing.last().map(|wanted| nearest(wanted, ready, N_NEAREST));
        let near = near.unwrap_or_default();
        let near = near.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let ready = match near.as_str() {
            "" => "none of this model is there with these options".to_owned(),
            near => format!("nearest are {near}"),
        };
        Cold { wanted: self.text(missing), ready, command: command.text(missing) }
    }
}

/// No program for a shape is ready.
#[derive(Debug, thiserror::Error)]
#[error(
    "no program for {wanted} is ready; {ready}. Compile it with\n  {command}\nor let this command do so with --backend migraphx --compile-missing"
)]
pub(crate) struct Cold {
    wanted: String,
    ready: String,
    command: String,
}

impl Cold {
    /// What is lacking.
    pub(crate) fn what(&self) -> String {
        format!("no program for {}", self.wanted)
    }

    /// In one line, for a note.
    pub(crate) fn line(&self) -> String {
        let Self { wanted, ready, command } = self;
        format!("no program for {wanted} ({ready}); compile it with `{command}`")
    }
}

/// What the command that compiles needs besides the shapes.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) model: &'a Path,
    /// The options that decide the artifacts and where they are kept.
    pub(crate) words: Vec<String>,
}

impl Command<'_> {
    /// The command that compiles these shapes.
    fn text(&self, missing: &[Bucket]) -> String {
        let mut extents: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (symbol, extent) in missing.iter().flat_map(Bucket::iter) {
            extents.entry(symbol).or_default().insert(extent);
        }
        let start = ["shapeyard", "warm"].map(str::to_owned);
        let model = self.model.display().to_string();
        let mut words = [&start[..], &[model], &self.words].concat();
        if !extents.is_empty() {
            words.push("--buckets".to_owned());
        }
        for (symbol, extents) in extents {
            let extents = extents.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            words.push(format!("{symbol}={extents}"));
        }
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use shapeyard_core::BackendId;
    use shapeyard_core::plan::calibrate::Split;
    use shapeyard_core::plan::prices::Measurements;

    use super::*;

    fn shape(batch: usize, sequence: usize) -> Bucket {
        Bucket::from_iter([("batch", batch), ("sequence", sequence)])
    }

    fn request(rows: usize, length: usize) -> Need {
        Need::Request { shape: shape(rows, length), rows, length }
    }

    fn texts(lengths: &[usize], limit: usize) -> Need {
        let (rows, length) = ("batch".to_owned(), "sequence".to_owned());
        Need::Texts { rows, length, lengths: lengths.to_vec(), limit }
    }

    #[test]
    fn a_request_that_can_be_padded_or_split_needs_nothing() {
        let need = request(3, 10);
        let free = Freedom { rows: Some("batch"), rigid: &[] };
        assert_eq!(need.missing(&[shape(4, 16)], &free), []);
        assert_eq!(need.missing(&[shape(1, 16)], &free), []);
        assert_eq!(need.missing(&[shape(4, 8)], &free), [shape(3, 10)]);
        let rigid = ["batch".to_owned(), "sequence".to_owned()];
        let exact = Freedom { rows: None, rigid: &rigid };
        assert_eq!(need.missing(&[shape(4, 16)], &exact), [shape(3, 10)]);
        assert_eq!(request(0, 10).missing(&[], &free), [], "nothing to compute");
    }

    #[test]
    fn a_request_is_priced_as_the_one_batch_that_it_is() {
        // A token is cheaper with two sessions, a batch with one.
        let mut all = Measurements::new(BackendId::new("example"));
        for (n_sessions, launch, token) in [(1, 1e-3, 9e-6), (2, 2e-3, 3e-6)] {
            let of = all.of(Split { n_sessions, n_threads: 2 / n_sessions });
            of.loads.record(1, 1, 0.1);
            for (rows, length) in [(1, 1), (1, 64), (16, 64), (1, 512), (16, 512)] {
                of.runs.record(rows, length, launch + token * (rows * length) as f64);
            }
        }
        let n_sessions = |need: &Need| {
            let (lengths, token_budget) = need.work();
            all.cheapest(&lengths, token_budget).unwrap().split.n_sessions
        };
        assert_eq!([n_sessions(&request(1, 1)), n_sessions(&request(16, 512))], [1, 2]);
        // The launch of one batch, not of sixteen: that would be 60 ms.
        let (lengths, token_budget) = request(16, 512).work();
        let found = all.cheapest(&lengths, token_budget).unwrap();
        let seconds = found.fit.price.work(&lengths, token_budget) - found.fit.price.load;
        assert!((seconds - 26.6e-3).abs() < 2e-3, "{seconds}");
    }

    #[test]
    fn texts_need_the_lengths_that_they_have() {
        let free = Freedom::default();
        let missing =
            |lengths: &[usize], ready: &[Bucket]| texts(lengths, 100).missing(ready, &free);
        assert_eq!(missing(&[3, 20, 30, 99], &[]), [shape(8, 4), shape(8, 32), shape(8, 100)]);
        assert_eq!(missing(&[3, 20, 30], &[shape(2, 16)]), [shape(2, 32)]);
        assert_eq!(missing(&[3, 16], &[shape(2, 16)]), []);
    }

    #[test]
    fn the_error_says_what_to_run() {
        let words = ["--backend", "migraphx", "--cache", "my cache"].map(str::to_owned).to_vec();
        let command = Command { model: Path::new("m.onnx"), words };
        let need = request(3, 10);
        let ready = [shape(1, 8), shape(4, 8)];
        let cold = need.cold(&[shape(3, 10)], &ready, &command).to_string();
        let wanted = "\n  shapeyard warm m.onnx --backend migraphx --cache 'my cache' --buckets batch=3 sequence=10\n";
        assert!(cold.contains(wanted), "{cold}");
        assert!(cold.contains("nearest are batch=4,sequence=8; batch=1,sequence=8"), "{cold}");
        let texts = texts(&[5, 60], 64);
        let cold = texts.cold(&texts.missing(&[], &Freedom::default()), &[], &command).line();
        assert!(cold.contains("--buckets batch=8 sequence=8,64`"), "{cold}");
        assert!(cold.starts_with("no program for texts of up to 60 tokens"), "{cold}");
    }
}
