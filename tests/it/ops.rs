//! Metrics match the list in the documentation, and dashboards and alerts only use metrics that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::support::TestApp;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Kind and help of every metric that a server exposes.
async fn served() -> BTreeMap<String, (String, String)> {
    let app = TestApp::new().await;
    app.run(json!({"input": "the cat"})).await;
    // A request is counted after it is answered.
    let text = String::from_utf8(app.get("/metrics").await.body.to_vec()).unwrap();
    let mut metrics: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().1 = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().0 = kind.to_owned();
        }
    }
    metrics
}

/// The metrics listed in `docs/METRICS.md`.
fn listed() -> BTreeMap<String, (String, String)> {
    let text = std::fs::read_to_string(repository("docs/METRICS.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
        let name = cells.first()?.strip_suffix('`')?;
        Some((name.to_owned(), ((*cells.get(1)?).to_owned(), (*cells.last()?).to_owned())))
    };
    text.lines().filter_map(row).collect()
}

/// The metrics that queries use; histograms without the suffixes of their series.
fn named(text: &str, known: &BTreeMap<String, (String, String)>) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|w| w.starts_with("residuum_") || w.starts_with("process_"));
    let base = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|end| word.strip_suffix(end));
        let histogram = |name: &&str| known.get(*name).is_some_and(|(kind, _)| kind == "histogram");
        parts.into_iter().find(histogram).unwrap_or(word).to_owned()
    };
    ours.map(base).collect()
}

#[tokio::test]
async fn every_metric_is_listed_and_every_listed_one_exists() {
    let (served, listed) = (served().await, listed());
    assert!(listed.len() > 30);
    assert_eq!(served, listed);
}

#[tokio::test]
async fn dashboard_and_alerts_use_metrics_that_exist() {
    let known = listed();
    let dashboard: Value =
        serde_json::from_slice(&std::fs::read(repository("ops/grafana-dashboard.json")).unwrap()).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel:#}");
        for target in targets {
            let names = named(target["expr"].as_str().unwrap(), &known);
            assert!(!names.is_empty(), "{target:#}");
            asked.extend(names);
        }
    }
    // Every metric is on the dashboard.
    assert_eq!(asked, known.keys().cloned().collect::<BTreeSet<_>>());
    let rules = std::fs::read_to_string(repository("ops/prometheus/residuum.rules.yml")).unwrap();
    let expressions: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("expr: ")).collect();
    assert_eq!(expressions.len(), rules.matches("- alert: ").count());
    for name in named(&expressions.join("\n"), &known) {
        assert!(known.contains_key(&name), "an alert uses {name}");
    }
}
