//! Records whose rounds are made up, so that the truth is known.

use proptest::prelude::*;

use super::*;

const N_ROUNDS: usize = 15;

/// Rounds in which the machine's pace changes for all alike; `noise` is what each round adds by itself, two
/// of it a round.
fn record(pace: f64, ours: f64, noise: &[f64]) -> Record {
    let rounds = |factor: f64, nth_noise: usize| {
        let round = |nth: usize| {
            let drift = pace * (1.0 + 0.5 * (nth as f64 / 4.0).sin());
            factor * drift * (1.0 + noise[(2 * nth + nth_noise) % noise.len()])
        };
        (0..N_ROUNDS).map(round).collect::<Vec<f64>>()
    };
    let contenders = vec![
        Measured::new("ours", Role::Ours, rounds(ours, 0)),
        Measured::new("rival", Role::Rival, rounds(2.0, 1)),
    ];
    let contest = Contest { name: "work".to_owned(), contenders, ..Contest::default() };
    Record { contests: vec![contest], ..Record::new("suite", "") }
}

fn verdict(before: &Record, after: &Record) -> Verdict {
    let one = std::slice::from_ref;
    let comparison = Comparison::of(one(before), one(after), 0.05);
    assert_eq!(comparison.lines.len(), 1);
    comparison.lines[0].verdict
}

fn noise(most: f64) -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec(-most..most, 2 * N_ROUNDS)
}

proptest! {
    #[test]
    fn equal_runs_are_equal_on_whatever_machine(
        a in noise(0.03),
        b in noise(0.03),
        pace in 0.1_f64..10.0,
    ) {
        prop_assert_eq!(verdict(&record(1.0, 1.0, &a), &record(pace, 1.0, &b)), Verdict::Equal);
    }

    #[test]
    fn a_tenth_slower_is_found_under_noise(
        a in noise(0.02),
        b in noise(0.02),
        pace in 0.1_f64..10.0,
    ) {
        let (before, after) = (record(1.0, 1.0, &a), record(pace, 1.1, &b));
        prop_assert_eq!(verdict(&before, &after), Verdict::Slower);
        prop_assert_eq!(verdict(&after, &before), Verdict::Faster);
    }
}

#[test]
fn rounds_that_differ_wildly_leave_it_open() {
    let wild = |seed: u64| -> Vec<f64> {
        (0..2 * N_ROUNDS as u64).map(|nth| ((nth * 37 + seed) % 17) as f64 / 8.0).collect()
    };
    let (before, after) = (record(1.0, 1.0, &wild(0)), record(1.0, 1.1, &wild(5)));
    assert_ne!(verdict(&before, &after), Verdict::Equal);
    assert_eq!(verdict(&before, &before), Verdict::Unsure);
}

#[test]
fn few_rounds_are_never_enough() {
    let cut = |n: usize, ours: f64| {
        let mut record = record(1.0, ours, &[0.0]);
        record.contests[0].contenders.iter_mut().for_each(|it| it.seconds.truncate(n));
        record
    };
    for (n, found) in [(1, Verdict::Unsure), (3, Verdict::Unsure), (5, Verdict::Slower)] {
        assert_eq!(verdict(&cut(n, 1.0), &cut(n, 1.2)), found, "{n} rounds");
    }
    assert_eq!(verdict(&cut(5, 1.0), &cut(5, 1.0)), Verdict::Equal);
}

#[test]
fn a_rival_of_fewer_rounds_in_one_run_does_not_count() {
    let with_slow = |n_rounds: usize| {
        let mut record = record(1.0, 1.0, &[0.0]);
        let slow = Measured::new("slow rival", Role::Rival, vec![100.0; n_rounds]);
        record.contests[0].contenders.push(slow);
        record
    };
    assert_eq!(verdict(&with_slow(1), &with_slow(N_ROUNDS)), Verdict::Equal);
}

#[test]
fn what_makes_runs_unlike_is_told() {
    let (mut before, mut after) = (record(1.0, 1.0, &[0.0]), record(1.0, 1.0, &[0.0]));
    before.set("threads", 2);
    after.set("threads", 4);
    after.contests[0].title = "other work".to_owned();
    for record in [&mut before, &mut after] {
        record.contests[0].contenders.truncate(1);
    }
    let notes = Comparison::of(&[before], &[after], 0.05).notes.join("\n");
    for told in ["threads: 2 before, 4 after", "`other work` after", "nobody but ours"] {
        assert!(notes.contains(told), "{told}: {notes}");
    }
}

#[test]
fn a_rival_that_only_one_run_has_does_not_count() {
    let (before, mut after) = (record(1.0, 1.0, &[0.0]), record(1.0, 1.0, &[0.0]));
    let slow = Measured::new("new rival", Role::Rival, vec![100.0; N_ROUNDS]);
    after.contests[0].contenders.push(slow);
    assert_eq!(verdict(&before, &after), Verdict::Equal);
}

#[test]
fn one_of_ours_that_only_one_run_has_is_told() {
    let (before, mut after) = (record(1.0, 1.0, &[0.0]), record(1.0, 1.0, &[0.0]));
    after.contests[0].contenders[0].name = "ours, renamed".to_owned();
    let comparison = Comparison::of(&[before], &[after], 0.05);
    assert!(comparison.lines.is_empty());
    assert_eq!((comparison.only_before.len(), comparison.only_after.len()), (1, 1));
    assert!(comparison.to_string().contains("GONE: suite work: ours"), "{comparison}");
}

#[test]
fn more_runs_of_one_suite_count_together() {
    let runs = [record(1.0, 1.0, &[0.0]), record(3.0, 1.0, &[0.0])];
    let comparison = Comparison::of(&runs, &[record(1.0, 1.2, &[0.0])], 0.05);
    assert_eq!(comparison.lines[0].n_rounds, [2 * N_ROUNDS, N_ROUNDS]);
    assert!((comparison.lines[0].change - 0.2).abs() < 1e-9);
    assert!(comparison.to_string().contains("SLOWER   +20.0%"));
}
