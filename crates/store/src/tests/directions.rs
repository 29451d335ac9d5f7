//! Directions: what is put in comes out, names are taken once, nobody sees another tenant's.

use sqlx::Row;

use super::*;

pub(super) fn direction(name: &str, layers: &[usize]) -> Direction {
    let info = DirectionInfo {
        id: DirectionId::generate(),
        tenant: T,
        name: name.to_owned(),
        method: DirectionMethod::Probe,
        model: Some("tiny".to_owned()),
        site: Site::ResidPost,
        layers: layers.to_vec(),
        n_components: 2,
        d: 3,
        metadata: object(serde_json::json!({"a": {"b": 1, "c": 2}})),
        provenance: object(serde_json::json!({"position": "last"})),
        created_at: jiff::Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
    };
    let vector = |(layer, component): (usize, usize)| DirectionVector {
        layer: Some(layer),
        component,
        values: vec![layer as f32, component as f32, -0.0],
        metrics: object(serde_json::json!({"norm": 0.1, "auroc": null})),
    };
    let vectors = layers.iter().flat_map(|l| [(*l, 0), (*l, 1)]).map(vector).collect();
    Direction { info, vectors }
}

#[tokio::test]
async fn directions_come_back_as_they_were_also_after_a_crash() {
    let f = Fixture::new().await;
    let made = direction("sentiment", &[0, 7, 12]);
    assert!(f.store.insert_direction(made.clone()).await.unwrap());
    let mut outside = direction("embedding", &[]);
    outside.info.site = Site::Embed;
    outside.info.n_components = 1;
    outside.vectors =
        vec![DirectionVector { layer: None, component: 0, values: vec![1.0, 2.0, 3.0], metrics: Map::new() }];
    assert!(f.store.insert_direction(outside.clone()).await.unwrap());
    let f = f.after_crash().await;
    for made in [made, outside] {
        for key in [made.info.name.clone(), made.info.id.to_string()] {
            assert_eq!(f.store.direction(T, &key).await.unwrap(), Some(made.clone()));
            assert_eq!(f.store.direction(TenantId(2), &key).await.unwrap(), None);
        }
    }
    let found = f.store.direction(T, "sentiment").await.unwrap().unwrap();
    assert_eq!(found.vector(Some(7), 1), Some([7.0, 1.0, -0.0].as_slice()));
    assert_eq!((found.vector(None, 0), found.vector(Some(1), 0)), (None, None));
}

#[tokio::test]
async fn names_are_taken_once_and_free_again() {
    let f = Fixture::new().await;
    let (first, second) = (direction("d", &[0]), direction("d", &[1]));
    assert!(f.store.insert_direction(first.clone()).await.unwrap());
    assert!(!f.store.insert_direction(second.clone()).await.unwrap());
    assert_eq!(f.store.direction(T, "d").await.unwrap().unwrap(), first);
    assert!(!f.store.delete_direction(TenantId(2), first.info.id).await.unwrap());
    assert!(f.store.delete_direction(T, first.info.id).await.unwrap());
    assert!(!f.store.delete_direction(T, first.info.id).await.unwrap());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM direction_vectors")
        .fetch_one(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(left, 0, "vectors go with their direction");
    assert!(f.store.insert_direction(second).await.unwrap());
}

#[tokio::test]
async fn metadata_is_merged() {
    let f = Fixture::new().await;
    let made = direction("d", &[0]);
    f.store.insert_direction(made.clone()).await.unwrap();
    let patch = object(serde_json::json!({"a": {"b": null}, "new": [1]}));
    assert!(!f.store.patch_direction(TenantId(2), made.info.id, patch.clone()).await.unwrap());
    assert!(f.store.patch_direction(T, made.info.id, patch).await.unwrap());
    let info = f.store.direction_info(T, "d").await.unwrap().unwrap();
    assert_eq!(Value::from(info.metadata), serde_json::json!({"a": {"c": 2}, "new": [1]}));
}

#[tokio::test]
async fn pages_are_newest_first_and_nothing_scans() {
    let f = Fixture::new().await;
    let mut ids = Vec::new();
    for i in 0..5 {
        let made = direction(&format!("d{i}"), &[0]);
        ids.insert(0, made.info.id);
        f.store.insert_direction(made).await.unwrap();
    }
    let page = f.store.directions(T, None, 3).await.unwrap();
    let rest = f.store.directions(T, Some(page[2].id), 3).await.unwrap();
    assert_eq!(page.iter().chain(&rest).map(|d| d.id).collect::<Vec<_>>(), ids);
    assert_eq!(f.store.directions(TenantId(2), None, 3).await.unwrap(), []);
    const EXPLAIN: &str = "EXPLAIN QUERY PLAN ";
    use crate::directions::{listing, one, vectors};
    for mut query in [
        listing(EXPLAIN, T, None, 10),
        listing(EXPLAIN, T, Some(ids[0]), 10),
        one(EXPLAIN, T, "d1"),
        one(EXPLAIN, T, &ids[0].to_string()),
        vectors(EXPLAIN, ids[0]),
    ] {
        let rows = query.build().fetch_all(&mut *f.store.reader().await.unwrap()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|r| r.get("detail")).collect();
        assert!(!plan.is_empty() && plan.iter().all(|l| l.starts_with("SEARCH")), "{plan:#?}");
    }
}

#[tokio::test]
async fn a_direction_that_changed_by_itself_is_found_and_older_ones_get_a_checksum() {
    let f = Fixture::new().await;
    let made = direction("sentiment", &[0, 7]);
    assert!(f.store.insert_direction(made.clone()).await.unwrap());
    let patch = object(serde_json::json!({"a": null, "more": 1}));
    assert!(f.store.patch_direction(T, made.info.id, patch).await.unwrap());
    assert!(f.store.verify().await.unwrap().is_clean());
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    for change in [
        "UPDATE direction_vectors SET vector = x'000000000000000000000041' WHERE layer = 7 AND component = 1",
        "UPDATE directions SET created_at = created_at + 1",
        "UPDATE directions SET hook = 'hook_resid_mid'",
    ] {
        sqlx::query(change).execute(&mut conn).await.unwrap();
        let found = f.store.verify().await.unwrap();
        assert!(found.issues.iter().any(|issue| issue.detail.contains("has changed")), "{change}: {found}");
        // as an earlier version left it; what it is now is what counts
        sqlx::query("UPDATE directions SET checksum = NULL").execute(&mut conn).await.unwrap();
        assert!(f.store.verify().await.unwrap().is_clean());
        f.store.index().enter_missing_checksums().await.unwrap();
        assert!(f.store.verify().await.unwrap().is_clean());
        let none = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM directions WHERE checksum IS NULL");
        assert_eq!(none.fetch_one(&mut conn).await.unwrap(), 0);
    }
}
