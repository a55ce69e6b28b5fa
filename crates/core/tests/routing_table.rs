//! Routing a request allocates nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use shapeyard_core::plan::cover::Freedom;
use shapeyard_core::plan::{Bucket, RoutingTable};

#[test]
fn routing_allocates_nothing() {
    let shape =
        |(rows, length): (usize, usize)| Bucket::from_iter([("batch", rows), ("sequence", length)]);
    let rows = [1, 2, 4, 8, 16, 32, 64];
    let ready: Vec<Bucket> = rows
        .into_iter()
        .flat_map(|rows| [64, 128, 512].map(|length| shape((rows, length))))
        .collect();
    let freedom = Freedom { rows: Some("batch"), rigid: &[] };
    let table = RoutingTable::new(&["batch", "sequence"], &ready, &freedom).unwrap();
    let mut n_pieces = 0;
    let allocated = allocation_counter::measure(|| {
        for rows in [1, 3, 64, 100, 10_000] {
            for length in [1, 64, 300, 513] {
                n_pieces += table.route(&[rows, length]).into_iter().flatten().count();
            }
        }
    });
    assert!(n_pieces > 100);
    assert_eq!(allocated.count_total, 0);
}
