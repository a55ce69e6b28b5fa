//! The account of one device's memory, and who makes room.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hip_sys::{Fault, HipError};
use hipgraph::{Ledger, LedgerError};

/// How long somebody waits for memory that runs are using. A run that holds its programs for longer than
/// this is not expected to end soon.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// The account of one device's memory, in bytes.
///
/// Every loaded program has an account, and so has what each lane keeps for it: its buffers and graphs.
/// What no run uses makes room for others, the one that was used longest ago first, and comes back when
/// it is needed. Whoever needs memory that runs are using waits for them to end, one behind the other.
///
/// Accounts are opened, and make room, only under `taking`, which is held as well while a program is loaded:
/// so that what it takes can be measured, and so that nobody finds what is about to go. Locks are taken in
/// one order: an owner that is kept, `taking`, then `books` or an owner that is not kept.
pub(crate) struct Memory {
    books: Mutex<Books>,
    /// Told whenever [`Books::n_changes`] counts.
    changed: Condvar,
    taking: Mutex<()>,
    /// Bytes of the device that nobody uses, whoever it may be; `None` where it does not say.
    free: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Bytes that buffers have, of which it is known how many.
    buffers: AtomicI64,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger<u64>,
    owners: BTreeMap<u64, Weak<dyn GiveUp>>,
    next: u64,
    /// Who waits, first come first served: otherwise small runs would keep a large one out for ever.
    queue: VecDeque<u64>,
    /// Counts what may let somebody go on who waits.
    n_changes: u64,
    counts: Counts,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Programs that were loaded, the same one again included.
    pub(crate) loads: u64,
    /// Programs and buffers that made room for others.
    pub(crate) evictions: u64,
}

/// Something on a device that others may need the memory of.
pub(crate) trait GiveUp: fmt::Debug + Send + Sync {
    /// Gives its memory back. No run uses it, and none begins before this has returned.
    fn give_up(&self);
}

/// The account of something that takes memory of a device. It is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    memory: Arc<Memory>,
    number: u64,
    /// What it takes when it is opened, in bytes.
    n_bytes: AtomicU64,
}

/// Accounts that do not make room while this lives.
#[derive(Debug)]
pub(crate) struct Kept {
    memory: Arc<Memory>,
    numbers: [Option<u64>; 2],
}

/// Whether to wait for memory that runs are using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// For whoever keeps nothing, which another might be waiting for.
    Wait,
    /// For whoever can end a run of his own first.
    Refuse,
}

impl Memory {
    pub(super) fn new(
        budget: u64,
        free: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let books = Books {
            ledger: Ledger::new(budget),
            owners: BTreeMap::new(),
            next: 0,
            queue: VecDeque::new(),
            n_changes: 0,
            counts: Counts::default(),
        };
        Arc::new(Self {
            books: Mutex::new(books),
            changed: Condvar::new(),
            taking: Mutex::new(()),
            free: Box::new(free),
            buffers: AtomicI64::new(0),
        })
    }

    /// Bytes that are promised, and bytes in all.
    pub(crate) fn used(&self) -> (u64, u64) {
        let books = self.books();
        (books.ledger.used(), books.ledger.budget())
    }

    pub(super) fn counts(&self) -> Counts {
        self.books().counts
    }

    /// An account of so many bytes, which has none of them yet.
    pub(crate) fn account(self: &Arc<Self>, n_bytes: u64) -> Account {
        let number = self.books().number();
        Account { memory: Arc::clone(self), number, n_bytes: AtomicU64::new(n_bytes) }
    }

    /// Lets accounts (two at most) have their bytes, and keep them until the answer is dropped. Others make
    /// room where there is none.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]: they will never fit, or whoever uses the memory did not end in time.
    pub(crate) fn keep(
        self: &Arc<Self>,
        accounts: [Option<&Account>; 2],
        patience: Patience,
    ) -> Result<Kept, LedgerError> {
        let wanted = accounts.map(|account| account.map(Account::wanted));
        match wanted {
            [Some(one), Some(two)] => self.keep_within(&[one, two], patience, MOST_PATIENCE),
            [Some(one), None] | [None, Some(one)] => {
                self.keep_within(&[one], patience, MOST_PATIENCE)
            }
            [None, None] => Ok(()),
        }?;
        let numbers = accounts.map(|account| account.map(|account| account.number));
        Ok(Kept { memory: Arc::clone(self), numbers })
    }

    fn keep_within(
        &self,
        wanted: &[(u64, u64)],
        patience: Patience,
        limit: Duration,
    ) -> Result<(), LedgerError> {
        if self.books().keep_open(wanted) {
            return Ok(());
        }
        let (start, mut place) = (Instant::now(), None);
        let answer = loop {
            let (seen, is_next) = self.books().look(place);
            let left = limit.saturating_sub(start.elapsed());
            // Whoever is late asks once, although others may be before him: the error says why.
            let is_last_try = patience == Patience::Refuse || left.is_zero();
            if is_next || is_last_try {
                let answer = self.try_keep(wanted);
                if is_last_try || !matches!(answer, Err(LedgerError::InUse { .. })) {
                    break answer;
                }
            }
            let mut books = self.books();
            place = Some(place.unwrap_or_else(|| books.enqueue()));
            let nothing_changed = |books: &mut Books| books.n_changes == seen;
            drop(self.changed.wait_timeout_while(books, left, nothing_changed));
        };
        if let Some(place) = place {
            let mut books = self.books();
            books.queue.retain(|other| *other != place);
            self.tell(books);
        }
        answer
    }

    fn try_keep(&self, wanted: &[(u64, u64)]) -> Result<(), LedgerError> {
        let _taking = self.taking();
        let mut books = self.books();
        let evicted = books.ledger.keep(wanted)?.evicted;
        let owners = books.leave(&evicted);
        drop(books);
        owners.iter().for_each(|owner| owner.give_up());
        Ok(())
    }

    /// Asks the device for memory of so many bytes. Where it has less than the account says, others make room
    /// one by one.
    pub(super) fn allocate<T>(
        self: &Arc<Self>,
        n_bytes: usize,
        mut ask: impl FnMut() -> Result<T, HipError>,
    ) -> Result<(T, Allocated), HipError> {
        let is_short = |error: &HipError| error.fault == Fault::OutOfMemory;
        let value = match ask() {
            Err(error) if is_short(&error) => self.evicting(ask, is_short),
            answer => answer,
        }?;
        let n_bytes = i64::try_from(n_bytes).unwrap_or(i64::MAX);
        self.buffers.fetch_add(n_bytes, Ordering::AcqRel);
        Ok((value, Allocated { memory: Arc::clone(self), n_bytes }))
    }

    /// Loads a program that takes so many bytes, as far as that is known, and says how many the device has less
    /// then. Where the device has less than the account says, others make room one by one.
    pub(crate) fn load<T, E>(
        &self,
        expected: u64,
        mut load: impl FnMut() -> Result<T, E>,
    ) -> Result<(T, u64), E> {
        let measured = || {
            let before = self.level();
            let value = load()?;
            self.books().counts.loads += 1;
            let taken = before.zip(self.level()).map_or(0, |(before, after)| before - after);
            Ok((value, u64::try_from(taken).unwrap_or(0)))
        };
        self.evicting(measured, |_| self.is_short_of(expected))
    }

    /// Whether the device has less than so many bytes for anybody. A library that fails for want of memory
    /// does not always say so.
    pub(crate) fn is_short_of(&self, n_bytes: u64) -> bool {
        (self.free)().is_some_and(|free| free < n_bytes)
    }

    fn evicting<T, E>(
        &self,
        mut ask: impl FnMut() -> Result<T, E>,
        is_short: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let _taking = self.taking();
        loop {
            match ask() {
                Err(error) if is_short(&error) && self.evict_oldest() => {}
                answer => return answer,
            }
        }
    }

    fn evict_oldest(&self) -> bool {
        let mut books = self.books();
        let Some(oldest) = books.ledger.oldest().copied() else { return false };
        books.ledger.close(&oldest);
        let owners = books.leave(&[oldest]);
        drop(books);
        owners.iter().for_each(|owner| owner.give_up());
        true
    }

    /// Changes by what others than buffers take or give back.
    fn level(&self) -> Option<i64> {
        let free = i64::try_from((self.free)()?).ok()?;
        Some(free + self.buffers.load(Ordering::Acquire))
    }

    fn tell(&self, mut books: MutexGuard<'_, Books>) {
        books.n_changes += 1;
        let is_awaited = !books.queue.is_empty();
        drop(books);
        if is_awaited {
            self.changed.notify_all();
        }
    }

    fn taking(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is whole before anything can panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("books", &self.books).finish_non_exhaustive()
    }
}

impl Books {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enqueue(&mut self) -> u64 {
        let place = self.number();
        self.queue.push_back(place);
        place
    }

    /// How often something changed so far, and whether it is the turn of whoever has this place in the queue.
    fn look(&self, place: Option<u64>) -> (u64, bool) {
        let is_next = match place {
            None => self.queue.is_empty(),
            Some(_) => self.queue.front().copied() == place,
        };
        (self.n_changes, is_next)
    }

    /// Keeps accounts that are open, where nobody waits.
    fn keep_open(&mut self, wanted: &[(u64, u64)]) -> bool {
        self.queue.is_empty() && self.ledger.keep_open(wanted)
    }

    /// Who has to give up what these accounts were for.
    fn leave(&mut self, numbers: &[u64]) -> Vec<Arc<dyn GiveUp>> {
        self.counts.evictions += numbers.len() as u64;
        numbers.iter().filter_map(|number| self.owners.get(number)?.upgrade()).collect()
    }
}

impl Account {
    /// Tells who gives the memory up.
    pub(crate) fn belongs_to(&self, owner: Weak<dyn GiveUp>) {
        self.memory.books().owners.insert(self.number, owner);
    }

    /// Changes how many bytes an account has that is kept, and what it is opened with from now on. Others make
    /// room, but nobody is waited for.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; the account is as it was.
    pub(crate) fn resize(&self, n_bytes: u64) -> Result<(), LedgerError> {
        if n_bytes == self.n_bytes() {
            return Ok(());
        }
        let memory = &self.memory;
        let _taking = memory.taking();
        let mut books = memory.books();
        let evicted = books.ledger.resize(&self.number, n_bytes)?.evicted;
        let owners = books.leave(&evicted);
        self.expect(n_bytes);
        memory.tell(books);
        owners.iter().for_each(|owner| owner.give_up());
        Ok(())
    }

    /// How many bytes it has when it is opened.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes.load(Ordering::Relaxed)
    }

    /// From the next opening on it has so many bytes.
    pub(crate) fn expect(&self, n_bytes: u64) {
        self.n_bytes.store(n_bytes, Ordering::Relaxed);
    }

    /// Has no bytes any more; what it was for is gone.
    pub(crate) fn close(&self) {
        let mut books = self.memory.books();
        books.ledger.close(&self.number);
        self.memory.tell(books);
    }

    fn wanted(&self) -> (u64, u64) {
        (self.number, self.n_bytes())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.memory.books().owners.remove(&self.number);
        self.close();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut books = self.memory.books();
        for number in self.numbers.into_iter().flatten() {
            books.ledger.unpin(&number);
        }
        self.memory.tell(books);
    }
}

/// Memory of the device that is known to be a buffer's, until this is dropped behind it.
#[derive(Debug)]
pub(crate) struct Allocated {
    memory: Arc<Memory>,
    n_bytes: i64,
}

impl Drop for Allocated {
    fn drop(&mut self) {
        self.memory.buffers.fetch_sub(self.n_bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
