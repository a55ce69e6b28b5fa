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
        &["coldstart", "--model", "nowhere.onnx"],
        &["serve-mix", "--model", "nowhere.onnx"],
        &["encode", "--model", "nowhere.onnx"],
        &["encode", "--model", encoder, "--record", "nowhere/a.jsonl"],
    ] {
        let ran = bench(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{words:?}: {ran:?}");
    }
}

/// A suite on a tiny encoder, with what it keeps; MIGraphX and libraries that are not here are left out.
fn measured(folder: &Folder, words: &[&str]) -> serde_json::Value {
    let file = folder.path("a.jsonl");
    let record = ["--record", file.to_str().unwrap()];
    bench(&[words, &record].concat()).done();
    serde_json::from_str(std::fs::read_to_string(&file).unwrap().trim()).unwrap()
}

fn names(contest: &serde_json::Value) -> Vec<&str> {
    let contenders = contest["contenders"].as_array().unwrap();
    contenders.iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[test]
fn an_encoder_is_measured_and_what_cannot_take_part_is_named() {
    let folder = Folder::new();
    folder.write("texts/a.md", "# One\n\nsome words here\n\n# Two\n\nand others there, too\n");
    let [encoder, tokenizer] = ["encoder.onnx", "tiny_tokenizer.json"].map(model);
    let words = ["encode", "--rounds", "2", "--query-rounds", "1", "--query-lengths", "4,400"];
    let [encoder, tokenizer] = [&encoder, &tokenizer].map(|path| path.to_str().unwrap());
    let texts = folder.path("texts");
    let files = ["--model", encoder, "--tokenizer", tokenizer, "--corpus", texts.to_str().unwrap()];
    let record = measured(&folder, &[&words[..], &files, &["--backend", "rten,nobody"]].concat());
    let contest = &record["contests"][0];
    assert_eq!(names(contest)[0], "ours, rten", "{contest}");
    let notes = contest["notes"].to_string();
    assert!(notes.contains("left out: nobody: "), "{notes}");
    assert!(notes.contains("queries of 400 tokens: the longest"), "{notes}");
    assert_eq!(record["settings"]["encoder: ours, rten"]["backend"], "rten");
}

#[test]
fn a_cold_start_and_a_mix_are_measured() {
    let folder = Folder::new();
    let encoder = model("encoder.onnx");
    let encoder = encoder.to_str().unwrap();
    let words = ["coldstart", "--model", encoder, "--static-model", encoder, "--rounds", "1"];
    let more = ["--answers", "6", "--extents", "batch=1,sequence=4"];
    let record = measured(&folder, &[&words[..], &more].concat());
    assert!(names(&record["contests"][0]).contains(&"rten"), "{record}");
    let folder = Folder::new();
    let words = ["serve-mix", "--model", encoder, "--rounds", "1", "--seconds", "1"];
    let more = ["--backends", "rten", "--threads", "2", "--lengths", "2..4", "--rows", "2"];
    let record = measured(&folder, &[&words[..], &more].concat());
    assert!(names(&record["contests"][0])[0].starts_with("ours, rten"), "{record}");
}
