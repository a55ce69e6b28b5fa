//! One production a key in this process: the first caller leads, the others wait and share what came
//! of it, success and failure alike.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use shapeyard_core::model::Digest;

use crate::error::CacheError;
use crate::lock::Holder;
use crate::patience::Patience;

/// What is being made in this process.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    running: DashMap<Digest, Arc<Flight<T>>>,
}

/// One production.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
    leader: Holder,
}

#[derive(Debug)]
enum State<T> {
    Running,
    Landed(T),
    /// The leader gave up: whoever still wants it starts again.
    Abandoned,
}

#[derive(Debug)]
pub(crate) enum Ticket<'a, T> {
    Leader(Leader<'a, T>),
    Follower(Arc<Flight<T>>),
}

/// The duty to land. Dropped without, as in a panic, the flight counts as abandoned.
#[derive(Debug)]
pub(crate) struct Leader<'a, T> {
    flights: &'a Flights<T>,
    flight: Arc<Flight<T>>,
    digest: Digest,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { running: DashMap::new() }
    }
}

impl<T: Clone> Flights<T> {
    pub(crate) fn join(&self, digest: Digest) -> Ticket<'_, T> {
        match self.running.entry(digest) {
            Entry::Occupied(running) => Ticket::Follower(Arc::clone(running.get())),
            Entry::Vacant(place) => {
                let flight = Arc::new(Flight {
                    state: Mutex::new(State::Running),
                    ended: Condvar::new(),
                    leader: Holder::this_process(),
                });
                place.insert(Arc::clone(&flight));
                Ticket::Leader(Leader { flights: self, flight, digest })
            }
        }
    }
}

impl<T: Clone> Flight<T> {
    /// Waits for the leader. `None` when it gave up.
    pub(crate) fn wait(&self, patience: &mut Patience<'_>) -> Result<Option<T>, CacheError> {
        loop {
            match &*self.lock() {
                State::Landed(landed) => return Ok(Some(landed.clone())),
                State::Abandoned => return Ok(None),
                State::Running => {}
            }
            patience.pause(
                || Some(self.leader.clone()),
                |pause| {
                    let state = self.lock();
                    if matches!(*state, State::Running) {
                        drop(self.ended.wait_timeout(state, pause));
                    }
                },
            )?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing is ever half written under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Leader<'_, T> {
    pub(crate) fn land(self, landed: T) {
        self.end(State::Landed(landed));
    }
}

impl<T> Leader<'_, T> {
    fn end(&self, state: State<T>) {
        // Out of the map first: who comes now looks at the disk again.
        let flight = &self.flight;
        self.flights.running.remove_if(&self.digest, |_, running| Arc::ptr_eq(running, flight));
        let mut place = self.flight.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, State::Running) {
            *place = state;
        }
        drop(place);
        self.flight.ended.notify_all();
    }
}

impl<T> Drop for Leader<'_, T> {
    fn drop(&mut self) {
        self.end(State::Abandoned);
    }
}
