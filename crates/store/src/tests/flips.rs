//! A byte of the index that has changed: `verify` ends, and says so unless no answer is another.

use std::time::Duration;

use super::{directions::direction, *};

/// Bytes that are changed, one at a time.
const FLIPS: u64 = 400;
/// What is far longer than a verification takes.
const SOON: Duration = Duration::from_secs(60);

/// What clients are told of caches and directions.
async fn answers(store: &Store) -> (Everything, Vec<Option<Direction>>) {
    let mut directions = Vec::new();
    for info in store.directions(T, None, 100).await.unwrap() {
        directions.push(store.direction(T, &info.id.to_string()).await.unwrap());
    }
    (everything(store, T).await, directions)
}

#[tokio::test]
async fn a_byte_that_changed_is_reported_or_changes_no_answer() {
    let f = Fixture::new().await;
    f.varied(Dtype::Float32).await;
    f.stored((0..60).map(|t| simple(&[t, t + 1, t + 2])).collect()).await;
    for name in ["one", "two"] {
        assert!(f.store.insert_direction(direction(name, &[0, 2])).await.unwrap());
    }
    let before = answers(&f.store).await;
    let Fixture { dir, store } = f;
    store.close().await;
    let index = dir.path().join("index.sqlite");
    let good = fs::read(&index).unwrap();
    let (mut unnoticed, mut by_checksums, mut state) = (Vec::new(), 0, 7u64);
    for _ in 0..FLIPS {
        // Knuth's generator: the same bytes each time. What is zero is hardly ever in use.
        let mut at = 0;
        for _ in 0..1000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            at = usize::try_from((state >> 33) % good.len() as u64).unwrap();
            if good[at] != 0 {
                break;
            }
        }
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (state >> 60 & 7);
        for log in ["index.sqlite-wal", "index.sqlite-shm"] {
            drop(fs::remove_file(dir.path().join(log)));
        }
        fs::write(&index, &bytes).unwrap();
        let checked = tokio::time::timeout(SOON, async {
            let store = Store::open_read_only(dir.path()).await?;
            let report = store.verify().await?;
            let changed =
                |issue: &Issue| issue.detail.contains("row has changed") || issue.detail.contains("a vector of it");
            let by_checksums = !report.is_clean() && report.issues.iter().all(changed);
            let same = !report.is_clean() || answers(&store).await == before;
            store.close().await;
            Ok::<_, StoreError>((same, by_checksums))
        });
        match checked.await {
            Ok(Ok((true, alone))) => by_checksums += u32::from(alone),
            Ok(Err(_)) => {}
            Ok(Ok((false, _))) => unnoticed.push(at),
            Err(_) => panic!("byte {at}: it does not end"),
        }
    }
    assert_eq!(unnoticed, Vec::<usize>::new());
    println!("{by_checksums} of {FLIPS} were noticed by checksums alone");
    assert!(by_checksums > 0, "this shows nothing of checksums");
}

#[tokio::test]
async fn a_walk_over_rows_out_of_order_ends() {
    let f = Fixture::new().await;
    f.stored((0..40).map(|t| simple(&[t])).collect()).await;
    let Fixture { dir, store } = f;
    store.close().await;
    let index = dir.path().join("index.sqlite");
    let good = fs::read(&index).unwrap();
    // the index of ids: where the last of them lies beside the others, the highest byte of it becomes the lowest
    let store = Store::open_read_only(dir.path()).await.unwrap();
    let newest: Vec<u8> =
        sqlx::query_scalar("SELECT max(id) FROM caches").fetch_one(&mut *store.reader().await.unwrap()).await.unwrap();
    store.close().await;
    let places: Vec<usize> =
        good.windows(16).enumerate().filter(|(_, window)| *window == newest).map(|(at, _)| at).collect();
    assert!(places.len() >= 2, "in the table and its index");
    let mut out_of_order = 0;
    for at in places {
        let mut bytes = good.clone();
        bytes[at] = 0;
        fs::write(&index, &bytes).unwrap();
        let store = Store::open_read_only(dir.path()).await.unwrap();
        let found = tokio::time::timeout(SOON, store.verify()).await.expect("it ends");
        assert!(found.is_err() || !found.unwrap().is_clean());
        // each walk by itself, as where SQLite's own check does not see it
        let walk = tokio::time::timeout(SOON, store.verifier().unreadable_caches(&mut 0)).await.expect("it ends");
        out_of_order += u32::from(matches!(walk, Err(StoreError::IndexDamaged(_))));
        let copies = tempfile::tempdir().unwrap();
        let copied =
            tokio::time::timeout(SOON, store.backup(&copies.path().join("copy"), true)).await.expect("it ends");
        assert!(copied.is_err() || !copied.unwrap().verified.is_clean());
        store.close().await;
    }
    assert!(out_of_order > 0, "no walk came to rows out of order: this shows nothing");
}
