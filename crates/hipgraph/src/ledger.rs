//! An account of device memory: who has how much, and who makes room. Pure.

use std::collections::BTreeMap;

/// Who has how much of a budget, in bytes.
///
/// An account is what is given back at once: a bucket with its weights, scratch, arenas and graphs.
/// Accounts that are pinned (a run is using them) never make room.
#[derive(Debug, Clone)]
pub struct Ledger<K> {
    budget: u64,
    accounts: BTreeMap<K, Account>,
    /// Bytes of all accounts.
    used: u64,
    /// Bytes of those that are pinned.
    pinned: u64,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    n_bytes: u64,
    last_use: u64,
    pins: u32,
}

/// What a reservation asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the evicted accounts have to give their memory back"]
pub struct Reservation<K> {
    /// Accounts that were closed to make room, the one used longest ago first. Their memory has to be
    /// given back before the new is taken.
    pub evicted: Vec<K>,
}

/// Why memory cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It would not fit even if everything else made room.
    #[error("{wanted} bytes do not fit into a budget of {budget}")]
    #[non_exhaustive]
    BeyondBudget {
        /// Bytes that were asked for, with what the account has.
        wanted: u64,
        /// Bytes in all.
        budget: u64,
    },
    /// It would fit if what is in use were not.
    #[error("{wanted} bytes do not fit beside {pinned} in use, in a budget of {budget}")]
    #[non_exhaustive]
    InUse {
        /// Bytes that were asked for, with what the account has.
        wanted: u64,
        /// Bytes of other accounts that a run is using.
        pinned: u64,
        /// Bytes in all.
        budget: u64,
    },
}

impl<K: Ord + Clone> Ledger<K> {
    /// A budget in bytes, none of it used.
    #[must_use]
    pub fn new(budget: u64) -> Self {
        Self { budget, accounts: BTreeMap::new(), used: 0, pinned: 0, clock: 0 }
    }

    /// Bytes in all.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes of all accounts.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Bytes of one account.
    #[must_use]
    pub fn bytes_of(&self, key: &K) -> Option<u64> {
        self.accounts.get(key).map(|account| account.n_bytes)
    }

    /// Gives an account so many bytes, more or less than it has. It is opened for that, and others are closed
    /// where that makes room. On an error nothing has changed.
    ///
    /// # Errors
    ///
    /// [`LedgerError`], before any memory is asked of the device.
    pub fn resize(&mut self, key: &K, n_bytes: u64) -> Result<Reservation<K>, LedgerError> {
        let evicted = self.make_room(&[(key.clone(), n_bytes)], n_bytes)?;
        let account = self.open(key, 0);
        let before = std::mem::replace(&mut account.n_bytes, n_bytes);
        let is_pinned = account.pins > 0;
        self.used = self.used - before + n_bytes;
        if is_pinned {
            self.pinned = self.pinned - before + n_bytes;
        }
        Ok(Reservation { evicted })
    }

    /// Pins all of these accounts for one run if all of them are open.
    pub fn keep_open(&mut self, wanted: &[(K, u64)]) -> bool {
        let is_open = wanted.iter().all(|(key, _)| self.accounts.contains_key(key));
        if is_open {
            wanted.iter().for_each(|(key, n_bytes)| self.pin(key, *n_bytes));
        }
        is_open
    }

    /// Pins all of these accounts for one run, and opens those that are closed with so many bytes. On an
    /// error none is pinned and nothing has changed: a run that waits holds nothing that another waits
    /// for.
    ///
    /// # Errors
    ///
    /// [`LedgerError`], before any memory is asked of the device.
    pub fn keep(&mut self, wanted: &[(K, u64)]) -> Result<Reservation<K>, LedgerError> {
        let bytes = wanted.iter().map(|(key, n_bytes)| self.bytes_of(key).unwrap_or(*n_bytes));
        let evicted = self.make_room(wanted, bytes.fold(0, u64::saturating_add))?;
        wanted.iter().for_each(|(key, n_bytes)| self.pin(key, *n_bytes));
        Ok(Reservation { evicted })
    }

    /// The account, opened if it was not, and used now.
    fn open(&mut self, key: &K, n_bytes: u64) -> &mut Account {
        self.clock += 1;
        let (used, clock) = (&mut self.used, self.clock);
        let account = self.accounts.entry(key.clone()).or_insert_with(|| {
            *used += n_bytes;
            Account { n_bytes, last_use: 0, pins: 0 }
        });
        account.last_use = clock;
        account
    }

    fn pin(&mut self, key: &K, n_bytes: u64) {
        let account = self.open(key, n_bytes);
        account.pins += 1;
        if account.pins == 1 {
            let n_bytes = account.n_bytes;
            self.pinned += n_bytes;
        }
    }

    /// A run no longer uses an account that it [kept](Self::keep).
    pub fn unpin(&mut self, key: &K) {
        let Some(account) = self.accounts.get_mut(key).filter(|account| account.pins > 0) else {
            return;
        };
        account.pins -= 1;
        if account.pins == 0 {
            self.pinned -= account.n_bytes;
        }
    }

    /// Closes an account, and says how many bytes it had.
    pub fn close(&mut self, key: &K) -> u64 {
        let Some(account) = self.accounts.remove(key) else { return 0 };
        self.used -= account.n_bytes;
        if account.pins > 0 {
            self.pinned -= account.n_bytes;
        }
        account.n_bytes
    }

    /// The account that would make room next.
    #[must_use]
    pub fn oldest(&self) -> Option<&K> {
        self.oldest_but(&[])
    }

    fn oldest_but(&self, kept: &[(K, u64)]) -> Option<&K> {
        let accounts = self.accounts.iter();
        let free = accounts.filter(|(key, account)| account.pins == 0 && !names(kept, key));
        free.min_by_key(|(_, account)| account.last_use).map(|(key, _)| key)
    }

    /// Closes others until `wanted` bytes are left for the accounts `kept`.
    fn make_room(&mut self, kept: &[(K, u64)], wanted: u64) -> Result<Vec<K>, LedgerError> {
        let budget = self.budget;
        if wanted > budget {
            return Err(LedgerError::BeyondBudget { wanted, budget });
        }
        let (mut others, mut pinned) = (self.used, self.pinned);
        for account in kept.iter().filter_map(|(key, _)| self.accounts.get(key)) {
            others = others.saturating_sub(account.n_bytes);
            pinned = pinned.saturating_sub(if account.pins > 0 { account.n_bytes } else { 0 });
        }
        let room = budget - wanted;
        if pinned > room {
            return Err(LedgerError::InUse { wanted, pinned, budget });
        }
        let mut evicted = Vec::new();
        while others > room {
            let Some(key) = self.oldest_but(kept).cloned() else { break };
            others -= self.close(&key);
            evicted.push(key);
        }
        Ok(evicted)
    }
}

fn names<K: Eq>(list: &[(K, u64)], key: &K) -> bool {
    list.iter().any(|(other, _)| other == key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_account_used_longest_ago_makes_room() {
        let mut ledger = Ledger::new(100);
        for key in ["a", "b", "c"] {
            assert_eq!(ledger.resize(&key, 30).unwrap().evicted, [""; 0]);
        }
        assert!(ledger.keep_open(&[("a", 30)]));
        ledger.unpin(&"a");
        assert_eq!(ledger.resize(&"d", 40).unwrap().evicted, ["b"]);
        assert_eq!(ledger.used(), 100);
        assert_eq!(ledger.oldest(), Some(&"c"));
    }

    #[test]
    fn an_account_never_makes_room_for_itself() {
        let mut ledger = Ledger::new(100);
        let _ = ledger.resize(&1, 60).unwrap();
        assert_eq!(ledger.resize(&1, 100).unwrap().evicted, [0; 0]);
        let error = LedgerError::BeyondBudget { wanted: 101, budget: 100 };
        assert_eq!(ledger.resize(&1, 101), Err(error));
        assert_eq!(ledger.bytes_of(&1), Some(100));
        assert_eq!(ledger.resize(&1, 7).unwrap().evicted, [0; 0]);
        assert_eq!(ledger.used(), 7);
    }

    #[test]
    fn what_is_in_use_is_kept() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.keep(&[(1, 60)]).unwrap().evicted, [0; 0]);
        let error = LedgerError::InUse { wanted: 50, pinned: 60, budget: 100 };
        assert_eq!(ledger.resize(&2, 50), Err(error));
        ledger.unpin(&1);
        assert_eq!(ledger.resize(&2, 50).unwrap().evicted, [1]);
    }

    #[test]
    fn a_run_keeps_all_that_it_needs_or_nothing() {
        let mut ledger = Ledger::new(100);
        assert!(!ledger.keep_open(&[(1, 30)]));
        let _ = ledger.keep(&[(1, 30)]).unwrap();
        let _ = ledger.resize(&2, 50).unwrap();
        let error = LedgerError::InUse { wanted: 90, pinned: 30, budget: 100 };
        assert_eq!(ledger.keep(&[(2, 50), (3, 40)]), Err(error));
        assert_eq!((ledger.bytes_of(&2), ledger.bytes_of(&3)), (Some(50), None));
        ledger.unpin(&1);
        // Nothing was pinned by the failure: both can make room now.
        assert_eq!(ledger.resize(&4, 100).unwrap().evicted, [1, 2]);
        ledger.close(&4);
        let error = LedgerError::BeyondBudget { wanted: 101, budget: 100 };
        assert_eq!(ledger.keep(&[(5, 50), (6, 51)]), Err(error));
        assert_eq!(ledger.keep(&[(5, 50), (6, 50)]).unwrap().evicted, [0; 0]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Resize(u8, u64),
        Keep([(u8, u64); 2]),
        KeepOpen([(u8, u64); 2]),
        Unpin(u8),
        Close(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..6, 0_u64..60).prop_map(|(key, bytes)| Step::Resize(key, bytes)),
            3 => (0_u8..6, 1_u8..6, 0_u64..60, 0_u64..60).prop_map(|(key, other, one, two)| {
                Step::Keep([(key, one), ((key + other) % 6, two)])
            }),
            2 => (0_u8..6, 1_u8..6).prop_map(|(key, other)| {
                Step::KeepOpen([(key, 1), ((key + other) % 6, 1)])
            }),
            3 => (0_u8..6).prop_map(Step::Unpin),
            1 => (0_u8..6).prop_map(Step::Close),
        ]
    }

    proptest! {
        #[test]
        fn the_budget_is_kept_and_so_is_what_is_in_use(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut ledger = Ledger::new(100);
            let mut pins = BTreeMap::<u8, u32>::new();
            for step in steps {
                let before = ledger.clone();
                let (wanted, answer) = match step {
                    Step::Resize(key, bytes) => {
                        (vec![(key, bytes)], ledger.resize(&key, bytes))
                    }
                    Step::Keep(wanted) => {
                        let all = wanted.map(|(key, bytes)| {
                            (key, before.bytes_of(&key).unwrap_or(bytes))
                        });
                        let answer = ledger.keep(&wanted);
                        if answer.is_ok() {
                            wanted.iter().for_each(|(key, _)| *pins.entry(*key).or_default() += 1);
                        }
                        (all.to_vec(), answer)
                    }
                    Step::KeepOpen(wanted) => {
                        let are_open = wanted.iter().all(|(key, _)| before.bytes_of(key).is_some());
                        prop_assert_eq!(ledger.keep_open(&wanted), are_open);
                        if are_open {
                            wanted.iter().for_each(|(key, _)| *pins.entry(*key).or_default() += 1);
                        }
                        prop_assert_eq!(ledger.used(), before.used());
                        continue;
                    }
                    Step::Unpin(key) => {
                        ledger.unpin(&key);
                        pins.entry(key).and_modify(|count| *count = count.saturating_sub(1));
                        continue;
                    }
                    Step::Close(key) => {
                        ledger.close(&key);
                        pins.remove(&key);
                        continue;
                    }
                };
                match answer {
                    Ok(reservation) => {
                        for evicted in reservation.evicted {
                            prop_assert!(!names(&wanted, &evicted));
                            prop_assert_eq!(pins.get(&evicted).copied().unwrap_or(0), 0);
                            prop_assert_eq!(ledger.bytes_of(&evicted), None);
                            pins.remove(&evicted);
                        }
                        for (key, n_bytes) in wanted {
                            prop_assert_eq!(ledger.bytes_of(&key), Some(n_bytes));
                        }
                    }
                    Err(_) => {
                        prop_assert_eq!(before.used(), ledger.used());
                        for key in 0..6 {
                            prop_assert_eq!(before.bytes_of(&key), ledger.bytes_of(&key));
                        }
                    }
                }
                prop_assert!(ledger.used() <= ledger.budget());
                let all = (0..6).filter_map(|key| ledger.bytes_of(&key)).sum::<u64>();
                prop_assert_eq!(ledger.used(), all);
                let pinned = (0..6).filter(|key| pins.get(key).is_some_and(|n| *n > 0));
                let pinned = pinned.filter_map(|key| ledger.bytes_of(&key)).sum::<u64>();
                prop_assert_eq!(ledger.pinned, pinned);
            }
        }
    }
}
