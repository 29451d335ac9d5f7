//! Tests of the whole engine that need an injected fault.

use std::{path::Path, sync::atomic::AtomicBool};

use super::{
    request::{QUICK_BYTES, QUICK_IDS, QUICK_NAMES, is_quick},
    token_cache::Tokenising,
    worker::JobInput,
    *,
};
use residuum_domain::{Code, Layers, Positions, PositionsRequest, RunStatus};
use residuum_model::LoadOptions;

/// A model of this name panics at the token [`POISON`]. It loses its device at [`EVERY_LOSS`] always, at [`LOSS`] once.
const POISONED: &str = "poisoned";
const POISON: u32 = 77;
const LOSS: u32 = 177;
const EVERY_LOSS: u32 = 178;
static LOST: AtomicBool = AtomicBool::new(false);

/// Called by a worker before each forward pass. Returns whether its device is lost.
pub(super) fn inject_fault(model: &Model, inputs: &[JobInput]) -> bool {
    let has = |token| model.info().id == POISONED && inputs.iter().any(|input| input.token_ids.contains(&token));
    assert!(!has(POISON), "a test asked for this panic");
    has(EVERY_LOSS) || (has(LOSS) && !LOST.swap(true, Ordering::Relaxed))
}

async fn engine(folder: &Path, n_workers: usize) -> Engine {
    let store = Store::open(folder).await.unwrap();
    let engine = Engine::start(store, vec![POISONED.to_owned()], Limits::default(), n_workers).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/llama/gqa_tied");
    let source = ModelSource { id: POISONED.to_owned(), path };
    engine.load(vec![source], LoadOptions::default()).await.unwrap();
    engine
}

fn request(inputs: impl IntoIterator<Item = u32>) -> RunRequest {
    let input = |token| InputSpec::new(String::new(), Content::TokenIds(vec![1, token]));
    RunRequest::new(TenantId::DEFAULT, POISONED, inputs.into_iter().map(input).collect())
}

async fn run(engine: &Engine, request: RunRequest) -> Run {
    let id = engine.submit(request).await.unwrap().id();
    engine.wait(TenantId::DEFAULT, id, Duration::from_secs(60)).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_input_that_panics_fails_alone_and_the_worker_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), 1).await;
    let done = run(&engine, request(70..90)).await;
    assert_eq!((done.status, done.n_done, done.n_failed), (RunStatus::Failed, 19, 1));
    assert_eq!(done.error.map(|problem| problem.code), Some(Code::WorkerFailed));
    assert_eq!(done.caches.len(), 19);
    assert!(engine.is_alive() && engine.is_ready());
    let again = run(&engine, request((70..90).filter(|token| *token != POISON))).await;
    assert_eq!((again.status, again.n_done, again.n_reused), (RunStatus::Completed, 19, 19), "the others were stored");
    let report = engine.store().verify().await.unwrap();
    assert!(report.is_clean(), "{report}");
    engine.drain().await;
}

#[tokio::test]
async fn an_item_that_failed_with_its_device_gets_one_more_try() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), 2).await;
    let done = run(&engine, request(170..178)).await;
    assert_eq!((done.status, done.n_done, done.n_failed), (RunStatus::Completed, 8, 0));
    let done = run(&engine, request(EVERY_LOSS..190)).await;
    assert_eq!(
        (done.status, done.n_done, done.n_failed),
        (RunStatus::Failed, 11, 1),
        "a device is lost once for nothing"
    );
    assert_eq!(done.error.map(|problem| problem.code), Some(Code::WorkerFailed));
    engine.drain().await;
}

#[tokio::test]
async fn only_short_known_inputs_are_prepared_without_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), 1).await;
    let model = engine.inner.models.get(POISONED).unwrap();
    let texts = TokenCache::default();
    let ids = |n| Content::TokenIds(vec![1; n]);
    let of = |contents: Vec<Content>| {
        let inputs = contents.into_iter().map(|content| InputSpec::new(String::new(), content)).collect();
        RunRequest::new(TenantId::DEFAULT, POISONED, inputs)
    };
    let with = |change: &dyn Fn(&mut RunRequest)| {
        let mut request = of(vec![ids(3)]);
        change(&mut request);
        request
    };
    let known = |positions| Some(PositionsRequest::Known(positions));
    let names = |n| vec!["x".to_owned(); n];
    let short = "a text".to_owned();
    for (request, quick) in [
        (of(vec![ids(3)]), true),
        (of(vec![ids(QUICK_IDS)]), true),
        (of(vec![ids(QUICK_IDS + 1)]), false),
        (of(vec![ids(3), ids(3)]), false),
        (of(vec![]), false),
        (of(vec![Content::Text(short.clone())]), false),
        (with(&|r| r.tags = names(QUICK_NAMES)), true),
        (with(&|r| r.tags = names(QUICK_NAMES + 1)), false),
        (with(&|r| r.inputs[0].tags = names(QUICK_NAMES + 1)), false),
        (with(&|r| r.capture.hooks = names(QUICK_NAMES)), true),
        (with(&|r| r.capture.hooks = names(QUICK_NAMES + 1)), false),
        (with(&|r| r.capture.layers = Layers::List(vec![0; QUICK_NAMES])), true),
        (with(&|r| r.capture.layers = Layers::List(vec![0; QUICK_NAMES + 1])), false),
        (with(&|r| r.capture.positions = known(Positions::All)), true),
        (with(&|r| r.inputs[0].positions = known(Positions::List(vec![0]))), false),
    ] {
        assert_eq!(is_quick(&request, &model, &texts), quick, "{request:?}");
    }
    // a text is quick once its tokens are kept: for its tenant, and tokenised in the same way
    let long = "word ".repeat(QUICK_BYTES / 5 + 1);
    let plain = Tokenising { prepend_bos: None, chat: false };
    for text in [&short, &long] {
        texts.encode(TenantId::DEFAULT, &model, text, plain).unwrap();
    }
    let text = of(vec![Content::Text(short)]);
    assert!(is_quick(&text, &model, &texts));
    assert!(!is_quick(&RunRequest { tenant: TenantId(7), ..text.clone() }, &model, &texts));
    assert!(!is_quick(&RunRequest { prepend_bos: Some(true), ..text }, &model, &texts));
    assert!(!is_quick(&of(vec![Content::Text(long)]), &model, &texts));
    engine.drain().await;
}
