//! Keys: recorded beside an open store and seen by it at once, durable, and never in the clear.

use jiff::Timestamp;
use sqlx::{Connection, migrate::Migrator};

use super::*;
use crate::{
    blobs::LocalBlobs,
    index::connect::{MIGRATIONS, connect_options},
};

fn new(tenant: &str, scopes: &[Scope]) -> NewKey {
    let key = ApiKey::generate().unwrap();
    NewKey { key, name: "k".to_owned(), tenant: tenant.to_owned(), scopes: scopes.to_vec(), expires_at: None }
}

#[tokio::test]
async fn another_handle_records_keys_and_the_store_sees_them() {
    let f = Fixture::new().await;
    assert_eq!(f.store.keys().await.unwrap(), []);
    let mut keys = KeyStore::open(f.dir.path()).await.unwrap();
    let first = new("default", &[Scope::Read, Scope::Metrics]);
    let second =
        NewKey { expires_at: Some(Timestamp::from_second(4_000_000_000).unwrap()), ..new("lab", &[Scope::Write]) };
    let (a, b) = (keys.create(&first).await.unwrap(), keys.create(&second).await.unwrap());
    assert_eq!((a.tenant, a.secret_hash, a.scopes.as_slice()), (T, first.key.secret_hash(), first.scopes.as_slice()));
    assert_ne!(b.tenant, T);
    assert_eq!(f.store.tenant("lab").await.unwrap(), Some(b.tenant));
    assert_eq!(f.store.tenant("other").await.unwrap(), None);
    assert_eq!(keys.create(&new("lab", &[Scope::Read])).await.unwrap().tenant, b.tenant, "a tenant is made once");
    assert_eq!(f.store.keys().await.unwrap(), keys.list().await.unwrap());
    // the store's own writer goes on beside it
    f.stored(vec![simple(&[1])]).await;
    f.store.touch_key(a.id, Timestamp::from_second(1_800_000_000).unwrap()).await.unwrap();

    assert_eq!(keys.revoke(a.id).await.unwrap().unwrap().revoked_at, None);
    let revoked = keys.revoke(a.id).await.unwrap().unwrap().revoked_at.unwrap();
    assert_eq!(keys.revoke(ApiKey::generate().unwrap().id()).await.unwrap(), None);
    let f = f.after_crash().await;
    let kept = f.store.keys().await.unwrap();
    assert_eq!(kept.len(), 3);
    let kept = kept.iter().find(|k| k.id == a.id).unwrap();
    assert_eq!((kept.revoked_at, kept.last_used_at.is_some()), (Some(revoked), true));
}

#[tokio::test]
async fn keys_are_forgotten_only_when_none_opens_anything() {
    let f = Fixture::new().await;
    let mut keys = KeyStore::open(f.dir.path()).await.unwrap();
    let over = NewKey { expires_at: Some(Timestamp::from_second(1).unwrap()), ..new("default", &[Scope::Read]) };
    keys.create(&over).await.unwrap();
    let active = keys.create(&new("default", &[Scope::Read])).await.unwrap();
    assert_eq!(keys.forget_all().await.unwrap(), std::slice::from_ref(&active));
    assert_eq!(keys.list().await.unwrap().len(), 2);
    keys.revoke(active.id).await.unwrap();
    assert_eq!(keys.forget_all().await.unwrap(), []);
    assert_eq!(f.store.keys().await.unwrap(), []);
}

#[tokio::test]
async fn an_older_index_is_brought_up_to_date_only_where_the_folder_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(dir.path()).unwrap();
    let mut conn = connect_options(&blobs).create_if_missing(true).connect().await.unwrap();
    let older: Vec<_> = MIGRATIONS.iter().filter(|m| m.version < 5).cloned().collect();
    Migrator { migrations: older.into(), ..Migrator::DEFAULT }.run(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let refused = KeyStore::open_or_make(dir.path()).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Older { .. })), "{refused:?}");
    drop(blobs);
    let mut keys = KeyStore::open_or_make(dir.path()).await.unwrap();
    keys.create(&new("default", &[Scope::Read])).await.unwrap();
    assert!(matches!(KeyStore::open(&dir.path().join("none")).await.map(|_| ()), Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn a_probe_changes_nothing_and_notices_a_folder_that_takes_no_files() {
    let f = Fixture::new().await;
    let commits = f.store.commits();
    f.store.probe().await.unwrap();
    assert_eq!(f.store.commits(), commits);
    fs::remove_dir_all(f.dir.path().join("blobs")).unwrap();
    assert!(matches!(f.store.probe().await, Err(StoreError::Io { .. })));
}
