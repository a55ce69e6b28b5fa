//! That a router asks for no memory once it knows a shape.

use std::sync::Arc;

use shapeyard_core::plan::PaddingLimit;
use shapeyard_core::router::{Router, RouterOptions};
use shapeyard_core::{Outputs, Request, Route, Session, Tensor, TensorView};

use crate::double::{Programs, dynamic, inputs, session, shape, signature};
use crate::routing::PRICES;

/// Calls of the allocator by one run of a request of a shape that came before.
fn n_allocations(lane: &mut dyn Session, batch: usize) -> (u64, Route) {
    let (inputs, signature) = (inputs(batch, 8), signature());
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let request = Request::bind(&signature, &views).unwrap();
    let mut outputs = Outputs::new();
    lane.run(&request, &mut outputs).unwrap();
    let mut route = None;
    let counted = allocation_counter::measure(|| {
        route = Some(lane.run(&request, &mut outputs).unwrap().route);
    });
    (counted.count_total, route.unwrap())
}

#[test]
fn a_router_asks_for_no_memory_for_a_shape_that_it_knows() {
    let programs = Programs::of(vec![shape(32, 8)], true);
    let options =
        RouterOptions { prices: Some(PRICES), padding: PaddingLimit::NONE, background: None };
    let router = Router::new(Arc::new(programs), dynamic(), options).unwrap();
    let mut lane = session(&router);
    // The double that runs programs works its cover out each time; the router itself does not.
    let own = n_allocations(session(router.preferred().as_ref()).as_mut(), 32).0;
    for (batch, route, n) in
        [(32, Route::Exact, own), (1, Route::Fallback, 0), (33, Route::Hybrid, own)]
    {
        assert_eq!(n_allocations(lane.as_mut(), batch), (n, route), "{batch} rows");
    }
}
