//! A hit, and an entry's file read, hashed and opened without us.

use std::fs::{self, File};

use anyhow::{Result, anyhow};
use shapeyard_cache::{Ask, Entry, Failure, Key, Produced, Store};
use shapeyard_core::Model;

use super::place::{self, Place};
use crate::contest::{Contender, Contest, Role, timed};

/// The artifact that is loaded over and over.
pub(crate) const ARTIFACT: &str = "hit";

pub(crate) fn measure(place: &Place, n_rounds: usize) -> Result<Contest> {
    let (store, model) = (Store::open(place.root())?, Model::open(place.model())?);
    let path =
        publish(&store, &place::key(&store, &model, ARTIFACT)?, &place.bytes)?.path().to_owned();
    let mut buffer = place::buffer();
    let manifest = path.with_file_name("manifest.json");
    let contenders = vec![
        Contender::new("ours: key, lock, verify, open", || Ok(timed(|| load(&store, &model))?.1)),
        Contender::new("fs::read into a new vector", || Ok(timed(|| Ok(fs::read(&path)?))?.1)),
        Contender::new("reading through one buffer", || {
            Ok(timed(|| Ok(place::read_through(&path, &mut buffer)?))?.1)
        })
        .role(Role::Limit),
        Contender::new("BLAKE3 of the mapped file, one thread", || {
            Ok(timed(|| Ok(place::hash_mapped(&path)?))?.1)
        })
        .role(Role::Limit),
        Contender::new("opening without verification", || {
            let open = || -> Result<_> {
                let file = File::open(&path)?;
                file.try_lock_shared().map_err(|error| anyhow!("{error}"))?;
                Ok((file, fs::read(&manifest)?))
            };
            Ok(timed(open)?.1)
        })
        .role(Role::Limit),
        Contender::new("ours, then its bytes in a new vector", || {
            Ok(timed(|| Ok(load(&store, &model)?.read()?))?.1)
        })
        .role(Role::Ours),
    ];
    let title = "an entry to be had, its file in the page cache";
    Contest::run("hit", title, n_rounds, contenders)
}

/// Loads what must be there.
pub(crate) fn load(store: &Store, model: &Model) -> Result<Entry> {
    let key = place::key(store, model, ARTIFACT)?;
    let gone = |_: &std::path::Path| Err(Failure::passing("the entry that was published is gone"));
    Ok(store.get_or_produce(&key, &Ask::new(), gone)?.entry)
}

/// Publishes bytes under a key, unless they are there.
pub(crate) fn publish(store: &Store, key: &Key, bytes: &[u8]) -> Result<Entry> {
    let produce = |path: &std::path::Path| {
        fs::write(path, bytes)?;
        Ok(Produced::default())
    };
    Ok(store.get_or_produce(key, &Ask::new(), produce)?.entry)
}
