//! The digest of a large model: the first time, remembered, and beside plain reading.

use std::fs;

use anyhow::Result;
use shapeyard_cache::Store;
use shapeyard_core::Model;

use super::place::{self, Place};
use crate::contest::{Contender, Contest, Role, timed};

pub(crate) fn measure(place: &Place, n_rounds: usize) -> Result<Contest> {
    let (store, model) = (Store::open(place.root())?, Model::open(place.model())?);
    store.digests().of_model(&model)?;
    let path = place.model();
    let mut buffer = place::buffer();
    let contenders = vec![
        Contender::new("ours, the first time", || {
            let fresh = tempfile::tempdir_in(place.path())?;
            let store = Store::open(fresh.path().join("store"))?;
            Ok(timed(|| Ok(store.digests().of_model(&model)?))?.1)
        }),
        Contender::new("fs::read into a new vector", || Ok(timed(|| Ok(fs::read(&path)?))?.1)),
        Contender::new("reading through one buffer", || {
            Ok(timed(|| Ok(place::read_through(&path, &mut buffer)?))?.1)
        })
        .role(Role::Limit),
        Contender::new("BLAKE3 of the mapped file, one thread", || {
            Ok(timed(|| Ok(place::hash_mapped(&path)?))?.1)
        })
        .role(Role::Limit),
        Contender::new("ours, remembered", || {
            Ok(timed(|| Ok(store.digests().of_model(&model)?))?.1)
        })
        .role(Role::Ours),
    ];
    let title = format!("a model of {} MiB, in the page cache", model.n_bytes() >> 20);
    Contest::run("digest", title, n_rounds, contenders)
}
