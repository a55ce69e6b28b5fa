//! The account of one device's memory, and who makes room.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hip_sys::{Fault, HipError};
use hipgraph::{Device, Ledger, LedgerError};

/// How long somebody waits for memory that runs are using. A run that holds its programs for longer than
/// this is not expected to end soon.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// The account of one device's memory, in bytes.
///
/// Every loaded program has an account, and so has what each lane keeps for it: its buffers and graphs.
/// Who is not in use makes room for others, the one that was used longest ago first, and comes back
/// when it is needed. Whoever needs memory that runs are using waits for them to end.
///
/// Locks are taken in one order: an owner that is kept, `taking`, `books`, an owner that is not kept.
#[derive(Debug)]
pub(crate) struct Memory {
    device: Device,
    books: Mutex<Books>,
    /// Told when a run has ended that kept something.
    released: Condvar,
    /// Held while the device is asked for memory, so that what somebody takes can be measured.
    taking: Mutex<()>,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger<u64>,
    owners: BTreeMap<u64, Weak<dyn GiveUp>>,
    next: u64,
    n_waiting: usize,
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
    pub(super) fn new(device: &Device, budget: u64) -> Arc<Self> {
        let books = Books {
            ledger: Ledger::new(budget),
            owners: BTreeMap::new(),
            next: 0,
            n_waiting: 0,
            counts: Counts::default(),
        };
        Arc::new(Self {
            device: device.clone(),
            books: Mutex::new(books),
            released: Condvar::new(),
            taking: Mutex::new(()),
        })
    }

    /// Bytes that are promised, and bytes in all.
    pub(super) fn used(&self) -> (u64, u64) {
        let books = self.books();
        (books.ledger.used(), books.ledger.budget())
    }

    pub(super) fn counts(&self) -> Counts {
        self.books().counts
    }

    /// An account of so many bytes, which has none of them yet.
    pub(crate) fn account(self: &Arc<Self>, n_bytes: u64) -> Account {
        let mut books = self.books();
        books.next += 1;
        Account { memory: Arc::clone(self), number: books.next, n_bytes: AtomicU64::new(n_bytes) }
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
        let mut books = self.books();
        let mut deadline = None;
        loop {
            let error = match books.keep(accounts) {
                Ok(()) => break,
                Err(error) => error,
            };
            let now = Instant::now();
            let until = *deadline.get_or_insert(now + MOST_PATIENCE);
            let is_hopeless = !matches!(error, LedgerError::InUse { .. });
            if is_hopeless || patience == Patience::Refuse || now >= until {
                return Err(error);
            }
            books.n_waiting += 1;
            let woken = self.released.wait_timeout(books, until - now);
            books = woken.unwrap_or_else(PoisonError::into_inner).0;
            books.n_waiting -= 1;
        }
        let numbers = accounts.map(|account| account.map(|account| account.number));
        Ok(Kept { memory: Arc::clone(self), numbers })
    }

    /// Asks the device for memory. Where it has less than the account says, others make room one by one as
    /// long as `is_short` finds that this is why it failed.
    pub(crate) fn take<T, E>(
        &self,
        mut ask: impl FnMut() -> Result<T, E>,
        is_short: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let _alone = self.alone();
        loop {
            match ask() {
                Err(error) if is_short(&error) && self.books().evict_oldest() => {}
                answer => return answer,
            }
        }
    }

    /// What somebody does that takes memory, and how many bytes less the device has then. Nobody else of
    /// this process takes any meanwhile.
    pub(crate) fn measured<T>(&self, act: impl FnOnce() -> T) -> Result<(T, u64), HipError> {
        let _alone = self.alone();
        let before = self.free()?;
        let value = act();
        Ok((value, before.saturating_sub(self.free()?)))
    }

    /// Bytes that nobody uses, whoever it may be.
    pub(crate) fn free(&self) -> Result<u64, HipError> {
        self.device.memory().map(|(free, _)| free as u64)
    }

    /// Counts a program that was loaded.
    pub(crate) fn count_load(&self) {
        self.books().counts.loads += 1;
    }

    /// Tells whoever waits that there may be room now.
    fn tell(&self, books: MutexGuard<'_, Books>) {
        let is_awaited = books.n_waiting > 0;
        drop(books);
        if is_awaited {
            self.released.notify_all();
        }
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is whole before anything can panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an allocation failed for want of memory.
pub(crate) fn is_out_of_memory(error: &HipError) -> bool {
    error.fault == Fault::OutOfMemory
}

impl Books {
    fn keep(&mut self, accounts: [Option<&Account>; 2]) -> Result<(), LedgerError> {
        let wanted = |account: &Account| (account.number, account.n_bytes.load(Ordering::Relaxed));
        let evicted = match accounts {
            [Some(one), Some(two)] => self.ledger.keep(&[wanted(one), wanted(two)]),
            [Some(one), None] | [None, Some(one)] => self.ledger.keep(&[wanted(one)]),
            [None, None] => return Ok(()),
        }?;
        self.evict(&evicted.evicted);
        Ok(())
    }

    fn evict(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.counts.evictions += 1;
            if let Some(owner) = self.owners.get(number).and_then(Weak::upgrade) {
                owner.give_up();
            }
        }
    }

    fn evict_oldest(&mut self) -> bool {
        let Some(oldest) = self.ledger.oldest().copied() else { return false };
        self.ledger.close(&oldest);
        self.evict(&[oldest]);
        true
    }
}

impl Account {
    /// Tells who gives the memory up.
    pub(crate) fn belongs_to(&self, owner: Weak<dyn GiveUp>) {
        self.memory.books().owners.insert(self.number, owner);
    }

    /// Adds bytes to an account that is kept. Others make room, but nobody is waited for.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; the account is as it was.
    pub(crate) fn grow(&self, n_bytes: u64) -> Result<(), LedgerError> {
        let mut books = self.memory.books();
        let reservation = books.ledger.reserve(&self.number, n_bytes)?;
        books.evict(&reservation.evicted);
        Ok(())
    }

    /// How many bytes it has when it is opened.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes.load(Ordering::Relaxed)
    }

    /// From the next opening on it has so many bytes.
    pub(crate) fn set_n_bytes(&self, n_bytes: u64) {
        self.n_bytes.store(n_bytes, Ordering::Relaxed);
    }

    /// Has no bytes any more; what it was for is gone.
    pub(crate) fn close(&self) {
        let mut books = self.memory.books();
        books.ledger.close(&self.number);
        self.memory.tell(books);
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
