//! Plans of named workloads, readable as documentation: what runs together, padded to what.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write;

use shapeyard_core::plan::{Plan, PlanOptions, Workload};
use shapeyard_core::{BackendId, plan::Batch};

/// A plan as text: one line a batch, then the totals.
fn plan(lengths: &[usize], token_budget: usize) -> String {
    let workload = Workload::items("batch", "sequence", lengths);
    let backend = BackendId::new("any");
    let plan = Plan::dynamic(backend, &workload, &PlanOptions::tokens(token_budget));
    let mut text = String::new();
    for Batch { items, length } in &plan.batches {
        writeln!(text, "{:>3} rows of {length:>4}: items {items:?}", items.len()).unwrap();
    }
    let totals = plan.totals;
    let share = 100.0 * totals.padding_share();
    write!(
        text,
        "{} items, {} batches, {} tokens, {share:.1}% padding",
        totals.n_items, totals.n_batches, totals.n_padded_tokens
    )
    .unwrap();
    text
}

#[test]
fn all_short() {
    insta::assert_snapshot!(plan(&[7, 3, 5, 6, 4, 7, 3, 5], 32));
}

#[test]
fn all_long() {
    insta::assert_snapshot!(plan(&[512, 509, 511, 510], 1024));
}

#[test]
fn one_giant() {
    insta::assert_snapshot!(plan(&[12, 4000, 9, 10, 11], 64));
}

#[test]
fn bimodal() {
    insta::assert_snapshot!(plan(&[500, 8, 490, 10, 480, 9, 12, 505], 1024));
}

#[test]
fn one_query() {
    insta::assert_snapshot!(plan(&[17], 1024));
}

#[test]
fn an_empty_workload() {
    insta::assert_snapshot!(plan(&[], 1024));
}

#[test]
fn a_budget_that_allows_nothing() {
    insta::assert_snapshot!(plan(&[5, 9, 7], 0));
}
