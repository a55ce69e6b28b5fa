//! That what is served is counted, whoever serves it.

use std::sync::Arc;
use std::thread;

use shapeyard_core::plan::Work;
use shapeyard_core::router::{Router, RouterOptions};
use shapeyard_core::{Executable, Recorder, RunReport};

use crate::double::{Programs, dynamic, run, session, shape};

#[test]
fn sessions_count_together_and_what_they_counted_outlives_them() {
    let programs = Arc::new(Programs::of(vec![shape(4, 8)], true));
    let router = Router::new(programs, dynamic(), RouterOptions::default()).unwrap();
    let recorder = Recorder::new(Arc::new(router), "batch", "width");
    for _ in 0..3 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut lane = session(&recorder);
                    for (batch, width) in [(3, 8), (1, 9), (3, 8)] {
                        run(lane.as_mut(), batch, width);
                    }
                });
            }
        });
    }
    let workload = recorder.workload();
    assert_eq!(workload.work.to_string(), "1x9 12\n3x8 24\n");
    assert_eq!((workload.rows.as_str(), workload.length.as_str()), ("batch", "width"));
    assert_eq!(recorder.backend(), crate::double::PROGRAMS);
}

#[test]
fn no_count_is_missed_while_sessions_end() {
    let recorder = Recorder::new(dynamic(), "batch", "width");
    let n_counted = || match recorder.workload().work {
        Work::Requests(requests) => requests.iter().map(|it| it.count).sum(),
        work => panic!("{work}"),
    };
    thread::scope(|scope| {
        let sessions = scope.spawn(|| (0..5000).for_each(|_| drop(run_once(&recorder))));
        let mut before: u64 = 0;
        while !sessions.is_finished() {
            let counted = n_counted();
            assert!(counted >= before, "{before} were counted before {counted}");
            before = counted;
        }
    });
    assert_eq!(n_counted(), 5000);
}

fn run_once(recorder: &Recorder) -> RunReport {
    run(session(recorder).as_mut(), 1, 8)
}
