//! Many at once: loaders of one entry, and a race for one that is not there yet.

use std::cell::Cell;
use std::fs;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use shapeyard_cache::Store;
use shapeyard_core::Model;

use super::hit;
use super::place::{self, Place};
use super::worker::{Job, PRODUCTION, at_once};
use crate::contest::{Contender, Contest, Role, Sample, timed};

/// Processes that load one entry, beside as many that read its file.
pub(crate) fn processes(place: &Place, n_loaders: usize, n_rounds: usize) -> Result<Contest> {
    let (store, model) = (Store::open(place.root())?, Model::open(place.model())?);
    hit::publish(&store, &place::key(&store, &model, hit::ARTIFACT)?, &place.bytes)?;
    let all = |job| {
        move || {
            let (sample, n_produced) = at_once(n_loaders, job, place.path(), hit::ARTIFACT)?;
            ensure!(n_produced == 0, "a loader found no entry");
            Ok(sample)
        }
    };
    let contenders = vec![
        Contender::new("ours: each opens the store and loads", all(Job::Obtain)),
        Contender::new("each calls fs::read", all(Job::Read)),
    ];
    Contest::run("processes", format!("{n_loaders} processes at once"), n_rounds, contenders)
}

/// Threads that load one entry through one store, beside as many that read its file.
pub(crate) fn threads(place: &Place, n_loaders: usize, n_rounds: usize) -> Result<Contest> {
    let (store, model) = (Store::open(place.root())?, Model::open(place.model())?);
    let entry = hit::publish(&store, &place::key(&store, &model, hit::ARTIFACT)?, &place.bytes)?;
    let contenders = vec![
        Contender::new("ours: each loads from one store", || {
            together(n_loaders, || Ok(timed(|| hit::load(&store, &model))?.1))
        }),
        Contender::new("each calls fs::read", || {
            together(n_loaders, || Ok(timed(|| Ok(fs::read(entry.path())?))?.1))
        }),
    ];
    Contest::run("threads", format!("{n_loaders} threads at once"), n_rounds, contenders)
}

/// Runs `load` on so many threads that start together. Each notes its own times: whoever waits for them
/// may get no processor at the moments that count.
fn together(n_threads: usize, load: impl Fn() -> Result<Duration> + Sync) -> Result<Sample> {
    let barrier = Barrier::new(n_threads);
    let one = || {
        barrier.wait();
        let started = Instant::now();
        load().map(|took| (started, Instant::now(), took))
    };
    let done = std::thread::scope(|scope| {
        let loaders: Vec<_> = (0..n_threads).map(|_| scope.spawn(one)).collect();
        let join = |loader: ScopedJoinHandle<'_, Result<_>>| {
            loader.join().map_err(|_| anyhow!("a loader panicked"))?
        };
        loaders.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let first = done.iter().map(|(started, ..)| *started).min();
    let last = done.iter().map(|(_, ended, _)| *ended).max();
    let wall = first.zip(last).map(|(first, last)| last - first).context("no loader ran")?;
    Ok(Sample { wall, loads: done.into_iter().map(|(.., took)| took).collect() })
}

/// Processes that all want what nobody has made yet, beside one that is alone.
pub(crate) fn race(place: &Place, n_racers: usize, n_rounds: usize) -> Result<Contest> {
    let (store, model) = (Store::open(place.root())?, Model::open(place.model())?);
    let (store, model, nth) = (&store, &model, &Cell::new(0));
    let race = |n_racers| {
        move || {
            nth.set(nth.get() + 1);
            run_race(place, store, model, n_racers, &format!("race {}", nth.get()))
        }
    };
    let contenders = vec![
        Contender::new(format!("ours: {n_racers} processes"), race(n_racers)),
        Contender::new("one process, which produces and publishes", race(1)).role(Role::Limit),
    ];
    let title = format!("a key that is not there, a producer of {} ms", PRODUCTION.as_millis());
    let mut contest = Contest::run("race", title, n_rounds, contenders)?;
    contest.notes.push(format!("in every race exactly one of {n_racers} processes produced"));
    Ok(contest)
}

fn run_race(
    place: &Place,
    store: &Store,
    model: &Model,
    n_racers: usize,
    artifact: &str,
) -> Result<Sample> {
    rustix::fs::sync();
    let (sample, n_produced) = at_once(n_racers, Job::Obtain, place.path(), artifact)?;
    ensure!(n_produced == 1, "{n_produced} of {n_racers} processes produced; one should have");
    fs::remove_dir_all(place.entry(&place::key(store, model, artifact)?))?;
    Ok(sample)
}
