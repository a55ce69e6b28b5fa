//! Damaged entries, for people.

use std::io::{self, Write};

use shapeyard_cache::{DamagedEntry, EntryInfo, LayerKind};

use crate::human;

/// What is wrong with an entry, as far as that shows without reading its payload; empty if nothing is.
pub(super) fn of(entry: &EntryInfo) -> String {
    match (&entry.damage, &entry.manifest) {
        (Some(damage), _) => human::line(&damage.to_string()),
        (None, None) => "it cannot be read".to_owned(),
        (None, Some(_)) => String::new(),
    }
}

/// How a layer is called.
pub(super) const fn layer(layer: LayerKind) -> &'static str {
    match layer {
        LayerKind::Writable => "cache",
        LayerKind::Base => "base",
    }
}

/// Writes a line for each damaged entry, with what `became` of it.
pub(super) fn write(
    damaged: &[DamagedEntry],
    became: impl Fn(&DamagedEntry) -> String,
    out: &mut dyn Write,
) -> io::Result<()> {
    for entry in damaged {
        let damage = human::line(&entry.damage.to_string());
        writeln!(out, "damaged     {}: {damage}{}", entry.path.display(), became(entry))?;
    }
    Ok(())
}
