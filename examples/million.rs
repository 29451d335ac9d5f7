//! Measures what it costs to find a cache in a store of a million caches.
//!
//! `million DATA_DIR [CACHES]` fills a new data folder through the store's own writer, with tiny activations in shared
//! packs. Then it requests pages, single caches and counts from a server's routes, and prints one table. The folder is
//! kept; a folder that was filled before is only queried.

use std::{
    env,
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use residuum::{
    api::ApiConfig,
    app::{App, Config},
    connections::ConnectionLimits,
    domain::{
        BosDecision, CacheId, Capture, Dtype, Hook, NewItem, NewRun, PackId, PackLayout, Positions, Priority,
        Provenance, Rows, Site, TenantId,
    },
    engine::Limits,
    model::LoadOptions,
    store::{Completion, Inserted, Maintenance, PackHeader, PackedCache, Store},
};
use serde_json::{Map, Value, json};
use tikv_jemallocator::Jemalloc;
use tower::ServiceExt;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Caches of one run, and of one pack.
const RUN: usize = 10_000;
const WIDTH: usize = 4;
const TOKENS: usize = 12;
/// Requests of each kind in one round. Each round has all kinds, so that other load on the machine affects all of them.
const REQUESTS: usize = 200;
const ROUNDS: usize = 5;
const WORDS: [&str; 24] = [
    "the", "of", "tower", "city", "stone", "river", "light", "seven", "moves", "green", "under", "because", "model",
    "layer", "token", "slowly", "between", "again", "house", "winter", "paper", "north", "signal", "noise",
];

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (folder, n) = match arguments.as_slice() {
        [folder] if !folder.starts_with('-') => (folder.as_str(), 1_000_000),
        [folder, n] if !folder.starts_with('-') => (folder.as_str(), n.parse()?),
        _ => return Err("usage: million DATA_DIR [CACHES]".into()),
    };
    let folder = Path::new(folder);
    println!("| what | figure |\n| --- | ---: |");
    if folder.join("index.sqlite").exists() {
        println!("| caches, there before | {n} |");
    } else {
        fill_both(folder, n).await?;
    }
    let size = |name: &str| folder.join(name).metadata().map_or(0.0, |file| file.len() as f64 / f64::from(1 << 20));
    println!(
        "| index on disk | {:.0} MiB, {:.0} bytes a cache |",
        size("index.sqlite"),
        size("index.sqlite") * 1048576.0 / n as f64
    );
    let started = Instant::now();
    let app = App::start(&config(folder)).await?;
    println!("| start-up, until requests are answered | {:.3} s |", started.elapsed().as_secs_f64());
    ask(&app.router(), n).await?;
    app.stop().await;
    Ok(())
}

/// Fills the folder; and, for comparison, another one with caches without tags, text and metadata.
async fn fill_both(folder: &Path, n: usize) -> Result<(), Failure> {
    let other = tempfile::tempdir_in(folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let plain = fill(other.path(), n.min(10 * RUN), plain_item).await?;
    other.close()?;
    let filled = fill(folder, n, item).await?;
    println!("| caches | {n} |");
    println!("| queued inputs a second | {:.0} |", filled.queued);
    println!("| cache rows inserted a second, with tags, words and metadata | {:.0} |", filled.inserted);
    println!(
        "| cache rows inserted a second, without these, into a store of {} | {:.0} |",
        n.min(10 * RUN),
        plain.inserted
    );
    println!("| caches a second, from the request to the durable cache | {:.0} |", filled.whole);
    println!("| merging FTS5 segments, as upkeep does | {:.1} s |", filled.merging.as_secs_f64());
    Ok(())
}

/// The speed of filling, in caches per second.
struct Filled {
    queued: f64,
    inserted: f64,
    /// From the request to the durable cache.
    whole: f64,
    /// Merging the FTS5 segments, which a server does in the background.
    merging: Duration,
}

async fn fill(folder: &Path, n: usize, item: fn(usize) -> NewItem) -> Result<Filled, Failure> {
    let store = Store::open(folder).await?;
    let (mut queueing, mut writing, mut completing) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for first in (0..n).step_by(RUN) {
        let count = RUN.min(n - first);
        let items: Vec<NewItem> = (first..first + count).map(item).collect();
        let started = Instant::now();
        let new = run(first / RUN, items.clone());
        let Inserted::Created(id) = store.insert_run(new).await? else { return Err("the run is not new".into()) };
        queueing += started.elapsed();
        let started = Instant::now();
        let mut writer = store.begin_pack(header(id, first, items))?;
        writer.write(0, 0..count, &vec![0.5; count * WIDTH])?;
        let pack = writer.finish()?;
        writing += started.elapsed();
        let started = Instant::now();
        store.complete(Completion { pack: Some(pack), ..Completion::default() }).await?;
        completing += started.elapsed();
    }
    let started = Instant::now();
    store.merge_terms().await?;
    let merging = started.elapsed();
    store.close().await;
    let rate = |took: Duration| n as f64 / took.as_secs_f64();
    Ok(Filled {
        queued: rate(queueing),
        inserted: rate(completing),
        whole: rate(queueing + writing + completing),
        merging,
    })
}

/// A number that looks random and is the same in each run.
fn scatter(i: usize, salt: u64) -> usize {
    let x = (i as u64 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as usize
}

/// An input with tags, label, words and metadata. Tags match from one in two to one in a hundred thousand caches,
/// labels one in fifty.
fn item(i: usize) -> NewItem {
    let words: Vec<&str> = (0..8).map(|w| WORDS[scatter(i, w) % WORDS.len()]).collect();
    let mut tags = vec![if i.is_multiple_of(2) { "even" } else { "odd" }.to_owned()];
    if scatter(i, 90).is_multiple_of(100) {
        tags.push("percent".to_owned());
    }
    if i % 100_000 == 99_999 {
        tags.push("rare".to_owned());
    }
    let metadata = json!({"row": i, "split": if scatter(i, 91).is_multiple_of(10) { "test" } else { "train" }, "source": {"page": scatter(i, 92) % 5000}});
    let positions = Positions::Last;
    NewItem {
        token_ids: (0..TOKENS as u32).collect(),
        tokens: words.iter().chain(&["a", "b", "c", "d"]).map(ToString::to_string).collect(),
        text: Some(format!("{} {}", words.join(" "), if i % 50_000 == 777 { "xylophone" } else { "" })),
        capture: Capture { hooks: [hook(i)].into(), positions, dtype: Dtype::Float32 },
        bos: BosDecision { requested: None, present: false, added: false, token_id: None },
        n_truncated: 0,
        tags,
        metadata: metadata.as_object().cloned().unwrap_or_default(),
        label: scatter(i, 93).is_multiple_of(50).then(|| format!("label {}", scatter(i, 94) % 20)),
        generation: None,
        unsettled: None,
        completion: None,
        origin: None,
        interventions: Vec::new(),
    }
}

/// An input without tags, text, label and metadata.
fn plain_item(i: usize) -> NewItem {
    NewItem { text: None, tags: Vec::new(), metadata: Map::new(), label: None, ..item(i) }
}

/// One of six layers; it changes from run to run.
fn hook(i: usize) -> Hook {
    Hook::block(Site::ResidPost, i / RUN % 6)
}

fn model(run: usize) -> String {
    format!("model-{}", run % 4)
}

fn run(number: usize, items: Vec<NewItem>) -> NewRun {
    NewRun {
        tenant: TenantId::DEFAULT,
        model: model(number),
        reuse: false,
        priority: Priority::default(),
        tags: vec![format!("batch {}", number % 10)],
        metadata: Map::new(),
        ttl_seconds: number.is_multiple_of(5).then_some(30 * 24 * 3600),
        items,
        idempotency: None,
        edits: None,
    }
}

fn header(run: residuum::domain::RunId, first: usize, items: Vec<NewItem>) -> PackHeader {
    let capture = items[0].capture.clone();
    let last = Rows::List(vec![TOKENS as u32 - 1]);
    let spans = vec![(TOKENS, &last); items.len()];
    PackHeader {
        id: PackId::generate(),
        tenant: TenantId::DEFAULT,
        model: model(first / RUN),
        n_layers: 6,
        d_model: WIDTH,
        provenance: Provenance {
            model_fingerprint: "synthetic".to_owned(),
            architecture: "synthetic".to_owned(),
            weights_dtype: "float32".to_owned(),
            compute_dtype: "float32".to_owned(),
            device: "cpu".to_owned(),
            residuum_version: env!("CARGO_PKG_VERSION").to_owned(),
            numerics_version: 0,
        },
        layout: PackLayout::new(Arc::clone(&capture.hooks), vec![vec![WIDTH]], Dtype::Float32, &spans),
        capture,
        caches: (0..)
            .zip(items)
            .map(|(item_index, item)| PackedCache {
                cache: CacheId::generate(),
                run,
                item_index,
                item,
                forward_key: Some(*blake3::hash(&(first as u64 + u64::from(item_index)).to_le_bytes()).as_bytes()),
            })
            .collect(),
    }
}

fn config(folder: &Path) -> Config {
    Config {
        models_dir: None,
        allow_hub: false,
        no_restore: true,
        listen: "127.0.0.1:0".parse().expect("an address"),
        data_dir: folder.to_owned(),
        models: Vec::new(),
        saes: Vec::new(),
        load: LoadOptions::default(),
        limits: Limits::default(),
        api: ApiConfig::default(),
        threads: 1,
        connections: ConnectionLimits::default(),
        allow_unauthenticated: false,
        maintenance: Maintenance::default(),
    }
}

async fn ask(router: &Router, n: usize) -> Result<(), Failure> {
    let first = get(router, "/v1/caches?limit=200").await?.1;
    let ids: Vec<String> =
        first["items"].as_array().into_iter().flatten().filter_map(|c| Some(c["id"].as_str()?.to_owned())).collect();
    let run = first["items"][0]["run"].as_str().unwrap_or_default().to_owned();
    let middle = deep(router, n).await?;
    let hook = hook(0);
    let kinds = [
        (
            "one cache",
            Box::new(|i: usize| format!("/v1/caches/{}", ids[i % ids.len()])) as Box<dyn Fn(usize) -> String>,
        ),
        ("page, no filter", fixed("limit=50")),
        ("page of 200", fixed("limit=200")),
        ("page from the middle", fixed(&format!("cursor={middle}"))),
        ("model", fixed("model=model-1")),
        ("run", fixed(&format!("run={run}"))),
        ("tag of half", fixed("tag=even")),
        ("tag of one in 100,000", fixed("tag=rare")),
        ("label", fixed("label=label%203")),
        ("hook", fixed(&format!("hook={hook}"))),
        ("a common word", fixed("text=tower")),
        ("a rare word", fixed("text=xylophone")),
        ("a phrase", fixed("text=%22stone+river%22")),
        ("a word, from the middle", fixed(&format!("text=tower&cursor={middle}"))),
        ("metadata, one of a kind", Box::new(move |i| format!("/v1/caches?metadata.row={}", i * 4001 % n))),
        ("metadata, nine in ten", fixed("metadata.split=train")),
        ("metadata, nested", fixed("metadata.source.page=17")),
        ("created", fixed(&format!("created_to={}", &middle[2..]))),
        ("expires", fixed("expires_from=2026-01-01T00:00:00Z")),
        ("not pinned", fixed("pinned=false")),
        ("model, tag, split", fixed("model=model-1&tag=even&metadata.split=test")),
        ("tag, label, word", fixed("tag=percent&label=label%203&text=tower")),
        ("two common words, tag", fixed("text=tower+stone&tag=odd")),
        ("two tags of half with nothing in common", fixed("tag=even&tag=odd")),
        ("word and tag with little in common", fixed("text=xylophone&tag=percent")),
        ("hook and model with nothing in common", fixed(&format!("hook={hook}&model=model-1"))),
        (
            "all kinds",
            fixed(&format!(
                "hook={hook}&model=model-0&tag=even&metadata.split=train&text=tower&pinned=false&expires_from=2026-01-01T00:00:00Z"
            )),
        ),
        ("page with a count of all", fixed("count=true")),
        ("page with a count of a word and a tag", fixed("count=true&text=tower&tag=even")),
        ("runs", Box::new(|_| "/v1/runs".to_owned())),
        ("metrics", Box::new(|_| "/metrics".to_owned())),
    ];
    let mut asked: Vec<Asked> = kinds.iter().map(|_| Asked::default()).collect();
    for round in 0..ROUNDS {
        for ((_, uri), asked) in kinds.iter().zip(&mut asked) {
            let mut took = Vec::with_capacity(REQUESTS);
            for i in 0..REQUESTS {
                let (time, page) = get(router, &uri(round * REQUESTS + i)).await?;
                took.push(time.as_secs_f64() * 1e3);
                asked.items = page["items"].as_array().map_or(1, Vec::len);
            }
            let [half, most, all] = [0.5, 0.99, 1.0].map(|share| at(&mut took, share));
            asked.p50.push(half);
            asked.p99.push(most);
            asked.max = asked.max.max(all);
        }
    }
    println!("| p50 / p99 of {REQUESTS} requests, medians of {ROUNDS} rounds / max of all, milliseconds | |");
    for ((what, _), mut asked) in kinds.iter().zip(asked) {
        let [half, most] = [&mut asked.p50, &mut asked.p99].map(|times| at(times, 0.5));
        println!("| {what} ({} items) | {half:.2} / {most:.2} / {:.2} |", asked.items, asked.max);
    }
    Ok(())
}

/// The latencies of one kind of request, with one number for every round.
#[derive(Default)]
struct Asked {
    p50: Vec<f64>,
    p99: Vec<f64>,
    max: f64,
    items: usize,
}

/// The quantile `share` of the numbers.
fn at(numbers: &mut [f64], share: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[((numbers.len() - 1) as f64 * share) as usize]
}

fn fixed(query: &str) -> Box<dyn Fn(usize) -> String> {
    let uri = format!("/v1/caches?{query}");
    Box::new(move |_| uri.clone())
}

/// A cursor to the middle of the list.
async fn deep(router: &Router, n: usize) -> Result<String, Failure> {
    let page = get(router, &format!("/v1/caches?metadata.row={}", n / 2)).await?.1;
    Ok(format!("c_{}", page["items"][0]["created_at"].as_str().ok_or("the middle is missing")?))
}

async fn get(router: &Router, uri: &str) -> Result<(Duration, Value), Failure> {
    let started = Instant::now();
    let answer = router.clone().oneshot(Request::get(uri).body(Body::empty())?).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let took = started.elapsed();
    if status != StatusCode::OK {
        return Err(format!("{uri} answered {status}: {body:?}").into());
    }
    Ok((took, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
