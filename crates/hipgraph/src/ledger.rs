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
        Self { budget, accounts: BTreeMap::new(), clock: 0 }
    }

    /// Bytes in all.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes of all accounts.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.accounts.values().map(|account| account.n_bytes).sum()
    }

    /// Bytes of one account.
    #[must_use]
    pub fn bytes_of(&self, key: &K) -> Option<u64> {
        self.accounts.get(key).map(|account| account.n_bytes)
    }

    /// Adds bytes to an account, which is opened for it, and closes others where that makes room. On
    /// an error nothing has changed.
    ///
    /// # Errors
    ///
    /// [`LedgerError`], before any memory is asked of the device.
    pub fn reserve(&mut self, key: &K, n_bytes: u64) -> Result<Reservation<K>, LedgerError> {
        let wanted = self.bytes_of(key).unwrap_or(0).saturating_add(n_bytes);
        let evicted = self.make_room(&[(key.clone(), 0)], wanted)?;
        self.account(key, 0).n_bytes = wanted;
        self.touch(key);
        Ok(Reservation { evicted })
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
        for (key, n_bytes) in wanted {
            self.account(key, *n_bytes).pins += 1;
            self.touch(key);
        }
        Ok(Reservation { evicted })
    }

    fn account(&mut self, key: &K, n_bytes: u64) -> &mut Account {
        let new = Account { n_bytes, last_use: 0, pins: 0 };
        self.accounts.entry(key.clone()).or_insert(new)
    }

    /// Marks an account as used now.
    pub fn touch(&mut self, key: &K) {
        self.clock += 1;
        if let Some(account) = self.accounts.get_mut(key) {
            account.last_use = self.clock;
        }
    }

    /// A run no longer uses an account that it [kept](Self::keep).
    pub fn unpin(&mut self, key: &K) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.pins = account.pins.saturating_sub(1);
        }
    }

    /// Closes an account, and says how many bytes it had.
    pub fn close(&mut self, key: &K) -> u64 {
        self.accounts.remove(key).map_or(0, |account| account.n_bytes)
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
        let (mut others, mut pinned) = (0, 0);
        for (_, account) in self.accounts.iter().filter(|(key, _)| !names(kept, key)) {
            others += account.n_bytes;
            pinned += if account.pins > 0 { account.n_bytes } else { 0 };
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
            assert_eq!(ledger.reserve(&key, 30).unwrap().evicted, [""; 0]);
        }
        ledger.touch(&"a");
        assert_eq!(ledger.reserve(&"d", 40).unwrap().evicted, ["b"]);
        assert_eq!(ledger.used(), 100);
        assert_eq!(ledger.oldest(), Some(&"c"));
    }

    #[test]
    fn an_account_never_makes_room_for_itself() {
        let mut ledger = Ledger::new(100);
        let _ = ledger.reserve(&1, 60).unwrap();
        assert_eq!(ledger.reserve(&1, 40).unwrap().evicted, [0; 0]);
        let error = LedgerError::BeyondBudget { wanted: 101, budget: 100 };
        assert_eq!(ledger.reserve(&1, 1), Err(error));
        assert_eq!(ledger.bytes_of(&1), Some(100));
    }

    #[test]
    fn what_is_in_use_is_kept() {
        let mut ledger = Ledger::new(100);
        assert_eq!(ledger.keep(&[(1, 60)]).unwrap().evicted, [0; 0]);
        let error = LedgerError::InUse { wanted: 50, pinned: 60, budget: 100 };
        assert_eq!(ledger.reserve(&2, 50), Err(error));
        ledger.unpin(&1);
        assert_eq!(ledger.reserve(&2, 50).unwrap().evicted, [1]);
    }

    #[test]
    fn a_run_keeps_all_that_it_needs_or_nothing() {
        let mut ledger = Ledger::new(100);
        let _ = ledger.keep(&[(1, 30)]).unwrap();
        let _ = ledger.reserve(&2, 50).unwrap();
        let error = LedgerError::InUse { wanted: 90, pinned: 30, budget: 100 };
        assert_eq!(ledger.keep(&[(2, 50), (3, 40)]), Err(error));
        assert_eq!((ledger.bytes_of(&2), ledger.bytes_of(&3)), (Some(50), None));
        ledger.unpin(&1);
        // Nothing was pinned by the failure: both can make room now.
        assert_eq!(ledger.reserve(&4, 100).unwrap().evicted, [1, 2]);
        ledger.close(&4);
        let error = LedgerError::BeyondBudget { wanted: 101, budget: 100 };
        assert_eq!(ledger.keep(&[(5, 50), (6, 51)]), Err(error));
        assert_eq!(ledger.keep(&[(5, 50), (6, 50)]).unwrap().evicted, [0; 0]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Reserve(u8, u64),
        Keep([(u8, u64); 2]),
        Touch(u8),
        Unpin(u8),
        Close(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..6, 0_u64..60).prop_map(|(key, bytes)| Step::Reserve(key, bytes)),
            3 => (0_u8..6, 1_u8..6, 0_u64..60, 0_u64..60).prop_map(|(key, other, one, two)| {
                Step::Keep([(key, one), ((key + other) % 6, two)])
            }),
            1 => (0_u8..6).prop_map(Step::Touch),
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
                    Step::Reserve(key, bytes) => {
                        let all = before.bytes_of(&key).unwrap_or(0) + bytes;
                        (vec![(key, all)], ledger.reserve(&key, bytes))
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
                    Step::Touch(key) => {
                        ledger.touch(&key);
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
            }
        }
    }
}
