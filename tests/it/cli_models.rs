//! `residuum models`: listing, showing, loading and unloading, with the real program.

use serde_json::json;

use crate::{
    cli_support::Served,
    support::{Flags, TestApp, golden},
};

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_shown() {
    let served = Served::new().await;
    let listed = served.run(&["models"]).ok();
    assert_eq!(listed.words()[1][..3], ["tiny", "ready", "llama"]);
    assert_eq!(served.run(&["models", "ls"]).ok().out(), listed.out());
    assert_eq!(served.run(&["models", "--json"]).ok().json(), served.answer("/v1/models").await["items"][0]);
    assert_eq!(served.run(&["models", "ls", "-q"]).ok().out(), "tiny\n");
    let shown = served.run(&["models", "show"]).ok();
    assert!(shown.out().contains("resid_post") && shown.out().contains("0-2"), "{}", shown.out());
    assert_eq!(served.run(&["models", "show", "tiny", "--json"]).ok().json(), served.answer("/v1/models/tiny").await);
    assert!(served.run(&["models", "show", "other"]).failed(3).contains("code model_not_found"));
    assert!(served.run(&["models", "load", "x", "y"]).failed(4).contains("code loading_off"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_loaded_and_unloaded() {
    let flags = Flags { models: Some(Vec::new()), models_dir: Some(golden("llama")), ..Flags::default() };
    let served = Served::of(TestApp::with_flags(flags).await).await;
    assert_eq!(served.run(&["models"]).ok().out(), "the server has no model\n");
    assert!(served.run(&["run", "x"]).failed(2).contains("residuum models load"));
    let loaded = served.run(&["models", "load", "a", "gqa_tied", "--json"]).ok().json();
    assert_eq!((&loaded["id"], &loaded["status"]), (&json!("a"), &json!("ready")));
    // the only model need not be named, one of several must be
    served.run(&["run", "x"]).ok();
    served.run(&["models", "load", "b", "gqa_tied"]).ok();
    assert!(served.run(&["run", "x"]).failed(2).contains("choose one with -m: a, b"));
    served.run(&["run", "x", "-m", "b"]).ok();
    assert_eq!(served.run(&["models", "unload", "b"]).ok().out(), "unloaded b\n");
    assert!(served.run(&["models", "load", "c", "absent"]).failed(3).contains("code unknown_source"));
    assert_eq!(served.run(&["models", "ls", "-q"]).ok().out(), "a\n");
    served.stop().await;
}
