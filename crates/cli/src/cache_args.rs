//! The options that say which cache is meant.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{Store, StoreOptions};

use crate::exit::BadInput;
use crate::output::Output;

const VARIABLE: &str = "SHAPEYARD_CACHE";

/// What a command that uses compiled artifacts takes.
#[derive(Debug, clap::Args)]
pub(crate) struct CacheArgs {
    /// The folder of compiled artifacts [default: $SHAPEYARD_CACHE, or shapeyard in $XDG_CACHE_HOME or in
    /// ~/.cache]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// A folder with artifacts that is only read, such as a bundle beside a model; may be repeated
    #[arg(long, value_name = "DIR")]
    base: Vec<PathBuf>,
}

impl CacheArgs {
    /// Opens the store; its warnings become notes. A folder that is not there yet is an empty cache.
    pub(crate) fn open(&self, output: &Output) -> Result<Opened> {
        let root = self.root()?;
        let output = *output;
        let mut options =
            StoreOptions::new().root(&root).on_warning(move |warning| output.note(warning));
        for base in &self.base {
            options = options.base(base);
        }
        let places = Places { cache: root, bases: self.base.clone() };
        Ok(Opened { store: options.open()?, places })
    }

    /// Opens the store for a command whose answer would be about nothing: a folder that was named has to be
    /// there.
    pub(crate) fn open_existing(&self, output: &Output) -> Result<Opened> {
        match &self.cache {
            Some(named) if !named.exists() => {
                let named = named.display();
                Err(BadInput::new(format!("there is no cache at `{named}`; correct --cache"))
                    .into())
            }
            _ => self.open(output),
        }
    }

    /// Opens the store for a command that can do without: one that is not there yet is nothing to look
    /// into, and the usual one is only noted where it cannot be used. One that was named must work.
    pub(crate) fn look(&self, output: &Output) -> Result<Option<Opened>> {
        if self.cache.is_some() || !self.base.is_empty() {
            return self.open(output).map(Some);
        }
        if !self.root().is_ok_and(|root| root.exists()) {
            return Ok(None);
        }
        let opened = self.open(output);
        let note = |error: &anyhow::Error| {
            output.note(format_args!("{error:#}; no compiled artifact is used"));
        };
        Ok(opened.inspect_err(note).ok())
    }

    /// The options that say the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let option = |name: &str, folder: &PathBuf| [name.to_owned(), folder.display().to_string()];
        let cache = self.cache.iter().flat_map(|folder| option("--cache", folder));
        cache.chain(self.base.iter().flat_map(|folder| option("--base", folder))).collect()
    }

    fn root(&self) -> Result<PathBuf, BadInput> {
        if let Some(folder) = &self.cache {
            return Ok(folder.clone());
        }
        let home = env::home_dir();
        usual_root(env::var_os(VARIABLE), env::var_os("XDG_CACHE_HOME"), home.as_deref())
            .ok_or_else(|| {
                BadInput::new(format!(
                    "no folder for compiled artifacts is known, since there is no home folder; name one with --cache or {VARIABLE}"
                ))
            })
    }
}

/// A store and where it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) places: Places,
}

/// The folders of a store, as they were named.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Places {
    pub(crate) cache: PathBuf,
    pub(crate) bases: Vec<PathBuf>,
}

impl Places {
    /// Where it was looked, for a person.
    pub(crate) fn text(&self) -> String {
        let named = std::iter::once(&self.cache).chain(&self.bases);
        named.map(|folder| format!("`{}`", folder.display())).collect::<Vec<_>>().join(", ")
    }
}

/// Variables that are set to nothing count as not set, and a relative XDG folder as none, as its
/// specification asks.
fn usual_root(
    own: Option<OsString>,
    xdg: Option<OsString>,
    home: Option<&Path>,
) -> Option<PathBuf> {
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        return Some(own.into());
    }
    let xdg = xdg.map(PathBuf::from).filter(|xdg| xdg.is_absolute());
    let home = home.filter(|home| home.is_absolute()).map(|home| home.join(".cache"));
    xdg.or(home).map(|caches| caches.join("shapeyard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_is_named_is_taken() {
        let root = |own: &str, xdg: &str, home: &str| {
            usual_root(Some(own.into()), Some(xdg.into()), Some(Path::new(home)))
        };
        assert_eq!(root("own", "/xdg", "/me"), Some("own".into()));
        assert_eq!(root("", "/xdg", "/me"), Some("/xdg/shapeyard".into()));
        assert_eq!(root("", "relative", "/me"), Some("/me/.cache/shapeyard".into()));
        assert_eq!(root("", "", ""), None);
        assert_eq!(usual_root(None, None, None), None);
    }
}
