use proptest::prelude::*;

use super::*;

/// A graph of the tests: what it was captured for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Captured {
    key: u8,
    mode: BindingMode,
    addresses: Vec<usize>,
}

const OURS: [usize; 1] = [7];

/// Does what is decided, with captures that fail when told to.
struct Driver {
    cache: Cache<u8, Captured>,
    capture_fails: bool,
    may_capture: bool,
}

impl Driver {
    fn new(settings: Settings) -> Self {
        Self { cache: Cache::new(settings), capture_fails: false, may_capture: true }
    }

    fn run(&mut self, key: u8, direct: Option<&[usize]>) -> Decision {
        self.run_at(key, direct, &OURS)
    }

    fn run_at(&mut self, key: u8, direct: Option<&[usize]>, staged: &[usize]) -> Decision {
        let (decision, _) =
            self.cache.decide(Request { key: &key, direct, staged }, || self.may_capture);
        let mode = decision.mode;
        let addresses = match mode {
            BindingMode::DirectBind => direct.expect("direct binding needs the caller's addresses"),
            BindingMode::Staged => staged,
        };
        let wanted = Captured { key, mode, addresses: addresses.to_vec() };
        match decision.action {
            Action::Eager(_) => (),
            Action::Capture if self.capture_fails => {
                assert_eq!(self.cache.failed(&key, mode), None);
            }
            Action::Capture => {
                self.cache.captured(&key, mode, addresses, wanted);
            }
            Action::Replay | Action::Check => {
                assert_eq!(self.cache.graph(&key, mode), Some(&wanted));
            }
        }
        decision
    }

    fn actions(&mut self, runs: usize, direct: Option<&[usize]>) -> Vec<Action> {
        (0..runs).map(|_| self.run(0, direct).action).collect()
    }
}

const WARMING: Action = Action::Eager(EagerReason::Warming);
const RESTING: Action = Action::Eager(EagerReason::Resting);

#[test]
fn two_eager_runs_come_before_a_capture() {
    let mut driver = Driver::new(Settings::default());
    let expected = [WARMING, WARMING, Action::Capture, Action::Replay, Action::Replay];
    assert_eq!(driver.actions(5, Some(&[1, 2])), expected);
    assert_eq!(driver.actions(5, None), expected, "the other mode has its own");
}

#[test]
fn a_failed_capture_is_tried_again_after_a_rest_that_grows() {
    let settings = Settings { rest_runs: 2, longest_rest: 4, ..Settings::default() };
    let mut driver = Driver::new(settings);
    driver.capture_fails = true;
    driver.actions(2, None);
    for rest in [2, 4, 4] {
        let mut expected = vec![Action::Capture];
        expected.resize(rest + 1, RESTING);
        assert_eq!(driver.actions(rest + 1, None), expected);
    }
    driver.capture_fails = false;
    assert_eq!(driver.actions(2, None), [Action::Capture, Action::Replay]);
}

#[test]
fn addresses_that_move_once_every_thousand_of_a_million_runs_cost_a_capture_each() {
    let mut driver = Driver::new(Settings::default());
    for run in 0..1_000_000_usize {
        let addresses = [run / 1000, 5];
        let decision = driver.run(0, Some(&addresses));
        assert_eq!(decision.mode, BindingMode::DirectBind, "run {run}");
    }
    let statistics = driver.cache.statistics();
    assert_eq!((statistics.captures, statistics.misses, statistics.falls), (1000, 999, 0));
    assert_eq!(statistics.replays, 1_000_000 - 1000 - 2);
}

#[test]
fn addresses_that_move_every_run_fall_to_staged_and_are_tried_again() {
    let settings = Settings { probation_runs: 4, ..Settings::default() };
    let mut driver = Driver::new(settings);
    let modes: Vec<BindingMode> = (0..10).map(|run| driver.run(0, Some(&[run])).mode).collect();
    let (direct, staged) = (BindingMode::DirectBind, BindingMode::Staged);
    // Two warm runs and a capture; two misses are captured anew, and the third falls.
    assert_eq!(modes[..5], [direct; 5]);
    assert_eq!(modes[5..9], [staged; 4]);
    assert_eq!(modes[9], direct, "the probation is over");
    assert_eq!(driver.cache.statistics().falls, 1);
}

#[test]
fn a_second_fall_without_a_match_lasts_longer_and_a_match_forgives() {
    let settings = Settings { probation_runs: 4, ..Settings::default() };
    let mut driver = Driver::new(settings);
    let mut address = 0;
    let mut staged_until_direct = |driver: &mut Driver, steady: bool| {
        let mut staged = 0;
        while driver.cache.statistics().falls == 0 || staged == 0 {
            address += usize::from(!steady);
            staged += usize::from(driver.run(0, Some(&[address])).mode == BindingMode::Staged);
        }
        loop {
            address += usize::from(!steady);
            if driver.run(0, Some(&[address])).mode == BindingMode::DirectBind {
                return staged;
            }
            staged += 1;
        }
    };
    assert_eq!(staged_until_direct(&mut driver, false), 4);
    assert_eq!(staged_until_direct(&mut driver, false), 8);
    for _ in 0..3 {
        driver.run(0, Some(&[usize::MAX]));
    }
    assert_eq!(staged_until_direct(&mut driver, false), 4);
}

#[test]
fn one_match_between_misses_keeps_direct_binding() {
    let mut driver = Driver::new(Settings::default());
    for run in 0..10_000_usize {
        // Two misses, then a match, again and again.
        let address = run - usize::from(run % 3 == 2);
        assert_eq!(driver.run(0, Some(&[address])).mode, BindingMode::DirectBind, "run {run}");
    }
    assert_eq!(driver.cache.statistics().falls, 0);
}

#[test]
fn our_own_buffers_that_move_are_captured_anew_without_a_miss() {
    let mut driver = Driver::new(Settings::default());
    for _ in 0..4 {
        driver.run_at(0, None, &[1]);
    }
    assert_eq!(driver.run_at(0, None, &[2]).action, Action::Capture);
    assert_eq!(driver.run_at(0, None, &[2]).action, Action::Replay);
    assert_eq!(driver.cache.statistics().misses, 0);
}

#[test]
fn a_graph_is_checked_before_it_serves_and_condemned_for_another_answer() {
    let mut driver = Driver::new(Settings { checks: 2, ..Settings::default() });
    let expected = [WARMING, WARMING, Action::Capture, Action::Check];
    assert_eq!(driver.actions(4, None), expected);
    assert_eq!(driver.cache.checked(&0, BindingMode::Staged, true), None);
    assert_eq!(driver.actions(1, None), [Action::Check]);
    assert_eq!(driver.cache.checked(&0, BindingMode::Staged, true), None);
    assert_eq!(driver.actions(1, None), [Action::Replay]);
    let mut driver = Driver::new(Settings { checks: 1, ..Settings::default() });
    driver.actions(4, None);
    assert!(driver.cache.checked(&0, BindingMode::Staged, false).is_some());
    assert_eq!(driver.actions(2, None), [Action::Eager(EagerReason::Condemned); 2]);
    assert_eq!(driver.run(1, None).action, WARMING, "only that key");
}

#[test]
fn a_failed_launch_rests_and_gives_the_graph_back() {
    let mut driver = Driver::new(Settings { rest_runs: 1, ..Settings::default() });
    driver.actions(4, None);
    assert!(driver.cache.failed(&0, BindingMode::Staged).is_some());
    assert_eq!(driver.actions(3, None), [RESTING, Action::Capture, Action::Replay]);
}

#[test]
fn the_graph_used_longest_ago_makes_room() {
    let mut driver = Driver::new(Settings { capacity: 2, ..Settings::default() });
    for key in [0, 1] {
        for _ in 0..3 {
            driver.run(key, None);
        }
    }
    driver.run(0, None);
    for _ in 0..3 {
        driver.run(2, None);
    }
    assert_eq!(driver.cache.n_graphs(), 2);
    assert_eq!(driver.run(0, None).action, Action::Replay);
    assert_eq!(driver.run(1, None).action, Action::Capture, "it is still warm");
}

#[test]
fn what_is_turned_off_is_eager_and_what_is_removed_starts_anew() {
    let mut driver = Driver::new(Settings::default());
    driver.actions(4, None);
    driver.cache.set_enabled(false);
    assert_eq!(driver.actions(1, None), [Action::Eager(EagerReason::Disabled)]);
    driver.cache.set_enabled(true);
    assert_eq!(driver.actions(1, None), [Action::Replay]);
    assert_eq!(driver.cache.remove(&0).len(), 1);
    assert_eq!(driver.actions(1, None), [WARMING]);
}

#[test]
fn what_may_not_be_captured_just_now_is_captured_next_time() {
    let mut driver = Driver::new(Settings::default());
    driver.may_capture = false;
    let held_off = Action::Eager(EagerReason::HeldOff);
    assert_eq!(driver.actions(4, None), [WARMING, WARMING, held_off, held_off]);
    driver.may_capture = true;
    assert_eq!(driver.actions(2, None), [Action::Capture, Action::Replay]);
    assert_eq!(driver.cache.statistics().failures, 0);
}

#[test]
fn what_is_made_anew_runs_eagerly_first_and_keeps_its_rest() {
    let settings = Settings { rest_runs: 4, ..Settings::default() };
    let mut driver = Driver::new(settings);
    driver.actions(4, None);
    driver.actions(4, Some(&[1, 2]));
    assert_eq!(driver.cache.forget_graphs(&0).len(), 2);
    let expected = [WARMING, WARMING, Action::Capture, Action::Replay];
    assert_eq!(driver.actions(4, None), expected);
    assert_eq!(driver.actions(4, Some(&[3, 4])), expected, "other addresses are no miss then");
    assert_eq!(driver.cache.statistics().misses, 0);

    // A program that cannot be captured is loaded anew after each try: that is no reason to try sooner.
    let mut driver = Driver::new(settings);
    driver.capture_fails = true;
    let mut tries = 0;
    for _ in 0..100 {
        if driver.run(0, None).action == Action::Capture {
            tries += 1;
            assert_eq!(driver.cache.forget_graphs(&0), []);
        }
    }
    assert_eq!(tries, 5, "after 2 runs, and then after rests of 4, 8, 16, 32");
}

#[derive(Debug, Clone)]
struct Step {
    key: u8,
    address: Option<usize>,
    ours: usize,
    capture_fails: bool,
    launch_fails: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let address = proptest::option::weighted(0.7, 0_usize..3);
    (0_u8..3, address, 0_usize..2, proptest::bool::weighted(0.2), proptest::bool::weighted(0.05))
        .prop_map(|(key, address, ours, capture_fails, launch_fails)| Step {
            key,
            address,
            ours,
            capture_fails,
            launch_fails,
        })
}

proptest! {
    /// The driver asserts on every replay that the graph is of the request's key, mode and addresses.
    #[test]
    fn a_replay_never_crosses_keys_modes_or_addresses(
        steps in proptest::collection::vec(step(), 1..400),
        capacity in 1_usize..4,
        probation_runs in 0_u32..6,
        rest_runs in 0_u32..4,
    ) {
        let settings = Settings { capacity, probation_runs, rest_runs, ..Settings::default() };
        let mut driver = Driver::new(settings);
        let mut eager_runs = HashMap::new();
        for step in &steps {
            driver.capture_fails = step.capture_fails;
            let address = step.address.map(|address| [address]);
            let direct = address.as_ref().map(<[usize; 1]>::as_slice);
            let decision = driver.run_at(step.key, direct, &[step.ours]);
            let runs = eager_runs.entry((step.key, decision.mode)).or_insert(0);
            match decision.action {
                Action::Eager(_) => *runs += 1,
                _ => prop_assert!(*runs >= 2, "captured before it was warm"),
            }
            if decision.action == Action::Replay && step.launch_fails {
                prop_assert!(driver.cache.failed(&step.key, decision.mode).is_some());
            }
            prop_assert!(driver.cache.n_graphs() <= capacity);
        }
        let counts = driver.cache.statistics();
        let total = counts.eager + counts.captures + counts.replays + counts.checks;
        prop_assert_eq!(total, steps.len() as u64);
    }

    /// However a key was treated before, steady addresses bring it back to direct replays.
    #[test]
    fn steady_requests_always_come_back_to_direct_replay(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let settings = Settings {
            probation_runs: 4,
            longest_probation: 32,
            rest_runs: 2,
            longest_rest: 16,
            ..Settings::default()
        };
        let mut driver = Driver::new(settings);
        for step in &steps {
            driver.capture_fails = step.capture_fails;
            let address = step.address.map(|address| [address]);
            driver.run_at(step.key, address.as_ref().map(<[usize; 1]>::as_slice), &[step.ours]);
        }
        driver.capture_fails = false;
        for _ in 0..32 + 16 + 3 {
            driver.run(0, Some(&[9]));
        }
        let last = driver.run(0, Some(&[9]));
        let expected = Decision { mode: BindingMode::DirectBind, action: Action::Replay };
        prop_assert_eq!(last, expected);
    }
}
