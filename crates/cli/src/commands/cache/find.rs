//! The entry that the start of a digest means.

use std::collections::BTreeSet;

use anyhow::Result;
use shapeyard_cache::{EntryInfo, FailureRecord};

use super::{bucket, short};
use crate::cache_args::Opened;
use crate::exit::BadInput;

/// So many candidates are named.
const N_NAMED: usize = 8;

/// What is known under one digest.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// In the order in which layers are looked into.
    pub(super) entries: Vec<EntryInfo>,
    pub(super) failure: Option<FailureRecord>,
}

/// What `start` means; an error unless it means one digest.
pub(super) fn one(opened: &Opened, start: &str) -> Result<Found> {
    let start = start.trim().to_lowercase();
    if start.is_empty() {
        return Err(BadInput::new(
            "the key is empty; give the start of a digest that `shapeyard cache ls` shows",
        )
        .into());
    }
    let mut entries = opened.store.find(&start)?;
    let mut failures = opened.store.failures()?;
    failures.retain(|failure| failure.digest.to_string().starts_with(&start));
    let of_entries = entries.iter().map(|entry| entry.name.clone());
    let of_failures = failures.iter().map(|failure| failure.digest.to_string());
    let names: BTreeSet<String> = of_entries.chain(of_failures).collect();
    let name = match names.len() {
        0 => return Err(unknown(opened, &start).into()),
        1 => names.into_iter().next().unwrap_or_default(),
        // A whole name is meant as such, even where another one goes on from it.
        _ if names.contains(&start) => start,
        _ => return Err(ambiguous(&start, &names, &entries).into()),
    };
    entries.retain(|entry| entry.name == name);
    let failure = failures.into_iter().find(|failure| failure.digest.to_string() == name);
    Ok(Found { name, entries, failure })
}

fn unknown(opened: &Opened, start: &str) -> BadInput {
    BadInput::new(format!(
        "no key in {} starts with `{start}`; `shapeyard cache ls` lists what is there",
        opened.places.text()
    ))
}

fn ambiguous(start: &str, names: &BTreeSet<String>, entries: &[EntryInfo]) -> BadInput {
    let line = |name: &String| {
        let known = entries.iter().find(|entry| entry.name == *name);
        let manifest = known.and_then(|entry| entry.manifest.as_ref());
        let shape = manifest.map(|manifest| format!("  {}", bucket(&manifest.key)));
        // Names that start alike are told apart by what comes next.
        let n_chars = short(name).chars().count().max(start.chars().count() + 4);
        let name: String = name.chars().take(n_chars).collect();
        format!("\n  {name}{}", shape.unwrap_or_default())
    };
    let named: String = names.iter().take(N_NAMED).map(line).collect();
    let more = match names.len().saturating_sub(N_NAMED) {
        0 => String::new(),
        n => format!("\n  and {n} more"),
    };
    let n = names.len();
    BadInput::new(format!(
        "{n} keys start with `{start}`; write more of the one that is meant:{named}{more}"
    ))
}
