use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::*;

/// Something that takes memory of a device that is not there.
#[derive(Debug, Default)]
struct Owner {
    is_there: AtomicBool,
}

impl GiveUp for Owner {
    fn give_up(&self) {
        assert!(self.is_there.swap(false, Ordering::SeqCst), "it was given up before");
    }
}

/// A device of so many bytes, of which owners take nothing by themselves.
fn memory(budget: u64) -> Arc<Memory> {
    Memory::new(budget, move || Some(budget))
}

fn owner(memory: &Arc<Memory>, n_bytes: u64) -> (Account, Arc<Owner>) {
    let (account, owner) = (memory.account(n_bytes), Arc::<Owner>::default());
    let shared: Arc<dyn GiveUp> = Arc::<Owner>::clone(&owner);
    account.belongs_to(Arc::downgrade(&shared));
    (account, owner)
}

/// Keeps an account as a run does, and has what it is for.
fn keep(memory: &Arc<Memory>, (account, owner): &(Account, Arc<Owner>)) -> Kept {
    let kept = memory.keep([Some(account), None], Patience::Wait).unwrap();
    owner.is_there.store(true, Ordering::SeqCst);
    kept
}

fn is_there(owner: &(Account, Arc<Owner>)) -> bool {
    owner.1.is_there.load(Ordering::SeqCst)
}

fn n_waiting(memory: &Memory) -> usize {
    memory.books().queue.len()
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never was");
        thread::yield_now();
    }
}

#[test]
fn what_no_run_keeps_makes_room_and_comes_back() {
    let memory = memory(100);
    let owners = [40, 40, 40].map(|n_bytes| owner(&memory, n_bytes));
    owners.iter().for_each(|owner| drop(keep(&memory, owner)));
    assert_eq!([0, 1, 2].map(|at| is_there(&owners[at])), [false, true, true]);
    drop(keep(&memory, &owners[0]));
    assert_eq!([0, 1, 2].map(|at| is_there(&owners[at])), [true, false, true]);
    assert_eq!((memory.used(), memory.counts().evictions), ((80, 100), 2));
    drop(owners);
    assert_eq!(memory.used(), (0, 100));
}

#[test]
fn whoever_keeps_something_is_refused_and_whoever_keeps_nothing_waits() {
    let memory = memory(100);
    let (one, two) = (owner(&memory, 60), owner(&memory, 60));
    let kept = keep(&memory, &one);
    let refused = memory.keep([Some(&two.0), None], Patience::Refuse);
    assert!(matches!(refused, Err(LedgerError::InUse { .. })));
    let never = owner(&memory, 101);
    let never = memory.keep([Some(&never.0), None], Patience::Wait);
    assert!(matches!(never, Err(LedgerError::BeyondBudget { .. })));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| drop(keep(&memory, &two)));
        wait_until(|| n_waiting(&memory) == 1);
        assert!(!waiting.is_finished() && is_there(&one));
        drop(kept);
        waiting.join().unwrap();
    });
    assert!(is_there(&two) && !is_there(&one));
    assert_eq!(n_waiting(&memory), 0);
}

#[test]
fn whoever_waits_too_long_is_told_what_is_in_use() {
    let memory = memory(100);
    let (one, two) = (owner(&memory, 60), owner(&memory, 50));
    let _kept = keep(&memory, &one);
    let wanted = [two.0.wanted()];
    let late = memory.keep_within(&wanted, Patience::Wait, Duration::from_millis(30));
    assert!(matches!(late, Err(LedgerError::InUse { wanted: 50, pinned: 60, .. })), "{late:?}");
    assert_eq!(n_waiting(&memory), 0);
}

/// Two small runs that always overlap leave no moment in which a large one would fit.
#[test]
fn small_runs_do_not_keep_a_large_one_out_for_ever() {
    let memory = memory(100);
    let small = [30, 30].map(|n_bytes| owner(&memory, n_bytes));
    let large = owner(&memory, 80);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut kept = vec![keep(&memory, &small[0])];
        let waiting = scope.spawn(|| {
            let _kept = keep(&memory, &large);
            is_over.store(true, Ordering::SeqCst);
        });
        wait_until(|| n_waiting(&memory) == 1);
        // Each is kept anew before the other is let go, but whoever comes now comes behind the large one.
        let (next, done) = (mpsc::channel::<()>(), mpsc::channel());
        let (memory, small) = (&memory, &small);
        scope.spawn(move || {
            for () in next.1 {
                done.0.send(keep(memory, &small[1])).unwrap();
            }
        });
        next.0.send(()).unwrap();
        wait_until(|| n_waiting(memory) == 2);
        assert!(!is_over.load(Ordering::SeqCst));
        kept.clear();
        let after = done.1.recv().unwrap();
        assert!(is_over.load(Ordering::SeqCst), "the large one came first");
        drop((after, next.0));
        waiting.join().unwrap();
    });
}

#[test]
fn an_account_has_what_it_was_last_given() {
    let memory = memory(100);
    let (one, two) = (owner(&memory, 30), owner(&memory, 50));
    drop(keep(&memory, &two));
    let kept = keep(&memory, &one);
    for n_bytes in [45, 31, 45, 30, 40, 40] {
        one.0.resize(n_bytes).unwrap();
        assert_eq!(memory.used().0, 50 + n_bytes);
    }
    one.0.resize(60).unwrap();
    assert!(!is_there(&two), "it made room");
    assert!(one.0.resize(101).is_err());
    assert_eq!(memory.used().0, 60);
    drop(kept);
    assert_eq!(one.0.n_bytes(), 60);
}

/// What a load takes is told from what buffers take at the same time.
#[test]
fn a_load_is_measured_beside_buffers_that_come_and_go() {
    let free = Arc::new(AtomicU64::new(1000));
    let shown = Arc::clone(&free);
    let memory = Memory::new(1000, move || Some(shown.load(Ordering::SeqCst)));
    let take = |n_bytes: usize| {
        let ask = || {
            free.fetch_sub(n_bytes as u64, Ordering::SeqCst);
            Ok::<(), HipError>(())
        };
        memory.allocate(n_bytes, ask).unwrap().1
    };
    let early = take(100);
    let (late, taken) = memory
        .load(1, || {
            let late = take(30);
            free.fetch_sub(200, Ordering::SeqCst);
            Ok::<_, ()>(late)
        })
        .unwrap();
    assert_eq!((taken, memory.counts().loads), (200, 1));
    let (_, taken) = memory
        .load(1, || {
            free.fetch_add(100, Ordering::SeqCst);
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(taken, 0, "somebody else gave more back than was taken");
    drop((early, late));
}

#[test]
fn a_load_that_fails_for_want_of_memory_is_tried_again_with_more_and_others_are_not() {
    let free = Arc::new(AtomicU64::new(5));
    let shown = Arc::clone(&free);
    let memory = Memory::new(100, move || Some(shown.load(Ordering::SeqCst)));
    let owners = [30, 30].map(|n_bytes| owner(&memory, n_bytes));
    owners.iter().for_each(|owner| drop(keep(&memory, owner)));
    let mut n_tries = 0;
    let loaded = memory.load(20, || {
        n_tries += 1;
        if n_tries == 2 {
            free.store(40, Ordering::SeqCst);
        }
        if n_tries < 3 { Err("no") } else { Ok(()) }
    });
    // The second failure had memory enough: it has another reason.
    assert_eq!((loaded.err(), n_tries), (Some("no"), 2));
    assert!(!is_there(&owners[0]) && is_there(&owners[1]));
}
