//! `shapeyard bench`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, Ran, model, run, shapeyard};

fn bench(words: &[&str]) -> Ran {
    run(shapeyard().arg("bench").args(words))
}

/// A record of one contest whose rounds of ours take so long each.
fn record(seconds: f64) -> String {
    let percentiles = r#"{"n":9,"least":1,"p10":1,"median":1,"p90":1,"p99":1,"most":1}"#;
    let contender = |name: &str, role: &str, seconds: f64| {
        let rounds = vec![seconds.to_string(); 9].join(",");
        format!(
            r#"{{"name":"{name}","role":"{role}","seconds":[{rounds}],"rounds":{percentiles},"facts":{{}}}}"#
        )
    };
    let contenders = [contender("ours", "ours", seconds), contender("theirs", "rival", 1.0)];
    let contest = format!(
        r#"{{"name":"work","title":"work","n_warm_up":0,"n_rounds":9,"contenders":[{}],"goals":[],"notes":[]}}"#,
        contenders.join(",")
    );
    let machine = r#"{"host":"","system":"","kernel":"","processor":"","n_processors":1,
        "memory_bytes":null,"gpus":[],"gpu_driver":null}"#
        .replace('\n', "");
    format!(
        r#"{{"schema":2,"suite":"encode","command":"it","revision":null,"dirty":false,"began":0,"machine":{machine},"libraries":{{}},"settings":{{}},"noise":{{"load_before":null,"load_after":null,"steal_share":null,"others_share":null}},"peak_memory_bytes":null,"contests":[{contest}]}}"#
    )
}

#[test]
fn a_slowdown_ends_with_1_and_nothing_with_0() {
    let folder = Folder::new();
    let before = folder.write("before.jsonl", record(1.0));
    let after = folder.write("after.jsonl", record(1.1));
    let [before, after] = [&before, &after].map(|path| path.to_str().unwrap());
    let slower = bench(&["--compare", before, after, "--fail-over", "5%"]);
    assert_eq!(slower.code, 1, "{slower:?}");
    assert!(slower.stdout.contains("SLOWER   +10.0%"), "{slower:?}");
    bench(&["compare", before, before]).done();
    let json = bench(&["compare", after, before, "--format", "json"]).done().json();
    assert_eq!(json["lines"][0]["verdict"], "faster");
}

#[test]
fn a_page_is_made_of_records_alone() {
    let folder = Folder::new();
    let records = folder.write("a.jsonl", record(0.5));
    let out = folder.path("page");
    let words = ["report", records.to_str().unwrap(), "--out", out.to_str().unwrap()];
    bench(&words).done();
    let page = std::fs::read_to_string(out.join("performance.md")).unwrap();
    assert!(page.contains("### work") && page.contains("plots/overview.svg"), "{page}");
    bench(&[&words[..], &["--check"]].concat()).done();
    std::fs::write(out.join("performance.md"), "edited").unwrap();
    let checked = bench(&[&words[..], &["--check"]].concat());
    assert!(!checked.stderr.is_empty() && checked.code == 1, "{checked:?}");
}

#[test]
fn what_makes_no_sense_is_refused_with_2() {
    let encoder = model("encoder.onnx");
    let encoder = encoder.to_str().unwrap();
    for words in [
        &["compare", "nowhere.jsonl", "nowhere.jsonl"][..],
        &["compare", encoder, encoder],
        &["report", "nowhere.jsonl", "--out", "page"],
        &["serve-mix", "--model", encoder, "--rows", "0"],
        &["serve-mix", "--lengths", "9..3"],
        &["coldstart", "--answers", "1"],
    ] {
        let ran = bench(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{words:?}: {ran:?}");
    }
}
