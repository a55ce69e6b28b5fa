//! The account of one device's memory, and who makes room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hip_sys::{Fault, HipError};
use hipgraph::{Ledger, LedgerError};

use crate::programs::Instance;

/// The account of one device's memory, in bytes.
///
/// Loaded programs have an account each, and are unloaded for others when no run uses them, the one that
/// was used longest ago first. The buffers of a lane have one too, and stay as long as the lane.
#[derive(Debug)]
pub(crate) struct Memory {
    books: Mutex<Books>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger<Account>,
    programs: BTreeMap<u64, Weak<Mutex<Instance>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    Program(u64),
    Lane(u64),
}

/// The account of one loaded program.
#[derive(Debug)]
pub(crate) struct ProgramAccount {
    memory: Arc<Memory>,
    number: u64,
    n_bytes: AtomicU64,
}

/// Memory that nobody else is promised while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    memory: Arc<Memory>,
    number: u64,
}

/// A program that is not unloaded while this lives.
#[derive(Debug)]
pub(crate) struct Resident<'a>(&'a ProgramAccount);

impl Memory {
    pub(super) fn new(budget: u64) -> Arc<Self> {
        let books = Books { ledger: Ledger::new(budget), programs: BTreeMap::new() };
        Arc::new(Self { books: Mutex::new(books), next: AtomicU64::new(0) })
    }

    /// Bytes that are promised, and bytes in all.
    pub(super) fn used(&self) -> (u64, u64) {
        let books = self.books();
        (books.ledger.used(), books.ledger.budget())
    }

    /// Promises memory to a lane.
    pub(crate) fn hold(self: &Arc<Self>, n_bytes: usize) -> Result<Held, LedgerError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut books = self.books();
        books.reserve(Account::Lane(number), n_bytes as u64)?;
        books.ledger.pin(&Account::Lane(number));
        Ok(Held { memory: Arc::clone(self), number })
    }

    /// Opens the account of a program that is about to be loaded and takes so many bytes at least. It stays
    /// until it was [loaded](ProgramAccount::loaded).
    pub(crate) fn open(self: &Arc<Self>, n_bytes: u64) -> Result<ProgramAccount, LedgerError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut books = self.books();
        books.reserve(Account::Program(number), n_bytes)?;
        books.ledger.pin(&Account::Program(number));
        Ok(ProgramAccount { memory: Arc::clone(self), number, n_bytes: AtomicU64::new(n_bytes) })
    }

    /// Allocates; where the device has less than the account says, others make room one by one.
    pub(crate) fn with_room<T>(
        &self,
        mut allocate: impl FnMut() -> Result<T, HipError>,
    ) -> Result<T, HipError> {
        loop {
            match allocate() {
                Err(error) if error.fault == Fault::OutOfMemory && self.evict_oldest() => {}
                answer => return answer,
            }
        }
    }

    fn evict_oldest(&self) -> bool {
        let mut books = self.books();
        let Some(oldest) = books.ledger.oldest().copied() else { return false };
        books.ledger.close(&oldest);
        books.unload(oldest);
        true
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is whole before anything can panic.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn reserve(&mut self, account: Account, n_bytes: u64) -> Result<(), LedgerError> {
        for evicted in self.ledger.reserve(&account, n_bytes)?.evicted {
            self.unload(evicted);
        }
        Ok(())
    }

    /// No run holds the program: its account was not pinned.
    fn unload(&self, account: Account) {
        let Account::Program(number) = account else { return };
        if let Some(instance) = self.programs.get(&number).and_then(Weak::upgrade) {
            instance.lock().unwrap_or_else(PoisonError::into_inner).discard();
        }
    }
}

impl ProgramAccount {
    /// Tells whom to unload, and how much it turned out to take.
    pub(crate) fn loaded(
        &self,
        instance: &Arc<Mutex<Instance>>,
        n_bytes: u64,
    ) -> Result<(), LedgerError> {
        let more = n_bytes.saturating_sub(self.n_bytes.load(Ordering::Relaxed));
        let mut books = self.memory.books();
        books.reserve(Account::Program(self.number), more)?;
        self.n_bytes.fetch_add(more, Ordering::Relaxed);
        books.programs.insert(self.number, Arc::downgrade(instance));
        books.ledger.unpin(&Account::Program(self.number));
        Ok(())
    }

    /// Keeps the program from being unloaded, and finds room for it if it was.
    pub(crate) fn keep(&self) -> Result<Resident<'_>, LedgerError> {
        let mut books = self.memory.books();
        let account = Account::Program(self.number);
        if !books.ledger.pin(&account) {
            books.reserve(account, self.n_bytes.load(Ordering::Relaxed))?;
            books.ledger.pin(&account);
        }
        Ok(Resident(self))
    }
}

impl Drop for Resident<'_> {
    fn drop(&mut self) {
        self.0.memory.books().ledger.unpin(&Account::Program(self.0.number));
    }
}

impl Drop for ProgramAccount {
    fn drop(&mut self) {
        let mut books = self.memory.books();
        books.ledger.close(&Account::Program(self.number));
        books.programs.remove(&self.number);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.books().ledger.close(&Account::Lane(self.number));
    }
}
