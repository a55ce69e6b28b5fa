//! A publication, and plain writing to the same file system.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shapeyard_cache::{Place as Layer, Store};
use shapeyard_core::Model;

use super::hit;
use super::place::{self, Place};
use crate::contest::{Contender, Contest, Role, timed};

/// What a plain writer does after the file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Done,
    ReadBack,
    /// As the store does: what memory holds says nothing about the disk.
    ReadBackFromDisk,
}

pub(crate) fn measure(place: &Place, n_rounds: usize) -> Result<Contest> {
    let (store, model) = (Store::open(place.root())?, Model::open(place.model())?);
    let folder = place.path().join("plainly");
    fs::create_dir(&folder)?;
    let mut nth = 0;
    let ours = || {
        nth += 1;
        publish(&store, &model, &format!("publish {nth}"), &place.bytes)
    };
    let plain = |then| {
        let path = folder.join("file");
        let bytes = &place.bytes;
        move || write(&path, bytes, then)
    };
    let contenders = vec![
        Contender::new("ours: get_or_produce", ours),
        Contender::new("write, sync of file and folder", plain(Then::Done)).role(Role::Limit),
        Contender::new("write, sync, read back", plain(Then::ReadBack)).role(Role::Limit),
        Contender::new("write, sync, read back from the disk", plain(Then::ReadBackFromDisk)),
    ];
    Contest::run("publish", "a payload to be kept", n_rounds, contenders)
}

fn publish(store: &Store, model: &Model, artifact: &str, bytes: &[u8]) -> Result<Duration> {
    rustix::fs::sync();
    let (entry, took) = timed(|| hit::publish(store, &place::key(store, model, artifact)?, bytes))?;
    ensure!(entry.place() == Layer::Writable, "the payload was not kept in the store");
    let folder = entry.path().parent().context("an entry lies in a folder")?.to_owned();
    drop(entry);
    fs::remove_dir_all(folder)?;
    Ok(took)
}

fn write(path: &Path, bytes: &[u8], then: Then) -> Result<Duration> {
    rustix::fs::sync();
    let mut buffer = place::buffer();
    let ((), took) = timed(|| {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if then == Then::ReadBackFromDisk {
            forget_cached_pages(&file);
        }
        if then != Then::Done {
            file.rewind()?;
            let n_bytes = place::read_all(&mut file, &mut buffer)?;
            ensure!(n_bytes == bytes.len(), "the file reads shorter than it was written");
        }
        let folder = path.parent().context("a file lies in a folder")?;
        Ok(File::open(folder)?.sync_all()?)
    })?;
    fs::remove_file(path)?;
    Ok(took)
}

fn forget_cached_pages(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}
