//! `shapeyard cache show`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{EntryInfo, FailureRecord, Field, Key, Manifest};

use super::damage;
use super::find::{self, Found};
use crate::cache_args::CacheArgs;
use crate::exit::Code;
use crate::human;
use crate::output::{Output, Report};

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache show 3f2a9c
  shapeyard cache show 3f2a9c --format json | jq '.fields'

KEY is the start of a digest that `shapeyard cache ls` shows. Two artifacts share a key only if \
every field is equal. Of a failure that is remembered, the compiler's words are shown and for how \
long it is remembered.";

/// Show everything about one compiled artifact or remembered failure
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// The start of a digest, as much of it as is needed
    key: String,
    #[command(flatten)]
    cache: CacheArgs,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<Code> {
    let opened = args.cache.open(output)?;
    output.result(&Shown::of(find::one(&opened, &args.key)?))?;
    Ok(Code::Done)
}

#[derive(Serialize)]
struct Shown {
    name: String,
    /// The first is the one that is used.
    entries: Vec<EntryInfo>,
    failure: Option<FailureRecord>,
    /// The key's, in the order of its record; none where no manifest can be believed.
    fields: Vec<Field>,
}

impl Shown {
    fn of(Found { name, entries, failure }: Found) -> Self {
        let of_entry = entries.iter().find_map(|entry| entry.manifest.as_ref()).map(|it| &it.key);
        let key = of_entry.or(failure.as_ref().map(|failure| &failure.key));
        let fields = key.map(Key::fields).unwrap_or_default();
        Self { name, entries, failure, fields }
    }
}

impl Report for Shown {
    const COMMAND: &'static str = "cache show";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let now_ms = human::now_ms();
        writeln!(out, "key         {}", human::line(&self.name))?;
        for entry in &self.entries {
            write_entry(entry, now_ms, out)?;
        }
        if let Some(failure) = &self.failure {
            write_failure(failure, now_ms, out)?;
        }
        write_fields(&self.fields, out)?;
        let manifests = self.entries.iter().filter_map(|entry| entry.manifest.as_ref());
        manifests.take(1).try_for_each(|manifest| write_notes(&manifest.notes, out))
    }
}

fn write_entry(entry: &EntryInfo, now_ms: u64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:<12}{}", damage::layer(entry.layer), entry.path.display())?;
    let damage = damage::of(entry);
    if !damage.is_empty() {
        writeln!(out, "damaged     {damage}")?;
    }
    if let Some(manifest) = &entry.manifest {
        write_manifest(manifest, now_ms, out)?;
    }
    writeln!(out, "size        {}, with its manifest", human::bytes(entry.n_bytes))?;
    writeln!(out, "last used   {} ago", human::since(entry.last_used_ms, now_ms))
}

fn write_manifest(manifest: &Manifest, now_ms: u64, out: &mut dyn Write) -> io::Result<()> {
    let payload = &manifest.payload;
    writeln!(out, "payload     {}, BLAKE3 {}", human::bytes(payload.n_bytes), payload.checksum)?;
    let (by, host) = (manifest.created_by.pid, human::line(&manifest.created_by.host));
    let made = human::since(manifest.created_at_ms, now_ms);
    writeln!(out, "made        {made} ago by process {by} on {host}")
}

fn write_failure(failure: &FailureRecord, now_ms: u64, out: &mut dyn Write) -> io::Result<()> {
    let (by, host) = (failure.by.pid, human::line(&failure.by.host));
    let ago = human::since(failure.failed_at_ms, now_ms);
    let left = human::since(now_ms, failure.expires_at_ms);
    writeln!(out, "failed      {ago} ago, tried by process {by} on {host}")?;
    writeln!(out, "remembered  for another {left}")?;
    writeln!(out, "reason")?;
    write_block(&failure.text, out)
}

fn write_fields(fields: &[Field], out: &mut dyn Write) -> io::Result<()> {
    if fields.is_empty() {
        return Ok(());
    }
    writeln!(out, "fields")?;
    let names: Vec<String> = fields.iter().map(|field| human::line(&field.name)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    for (name, field) in names.iter().zip(fields) {
        let value = field.value.as_deref().map_or_else(|| "not set".to_owned(), human::line);
        writeln!(out, "  {name:<width$}  {value}")?;
    }
    Ok(())
}

fn write_notes(notes: &BTreeMap<String, String>, out: &mut dyn Write) -> io::Result<()> {
    for (name, text) in notes {
        writeln!(out, "note        {}", human::line(name))?;
        write_block(text, out)?;
    }
    Ok(())
}

fn write_block(text: &str, out: &mut dyn Write) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "  {}", human::line(line)))
}
