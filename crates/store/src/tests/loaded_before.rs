//! What was loaded while the server ran: kept in order, across crashes, and its uploaded files.

use super::*;

fn model(id: &str, source: &str) -> ServedRecord {
    ServedRecord::Model { id: id.to_owned(), source: source.to_owned() }
}

fn sae(id: &str, source: Option<&str>) -> ServedRecord {
    ServedRecord::Sae { id: id.to_owned(), model: "b".to_owned(), source: source.map(str::to_owned) }
}

#[tokio::test]
async fn what_was_loaded_is_kept_in_order_until_it_is_forgotten() {
    let f = Fixture::new().await;
    let records = [model("b", "x"), sae("b", None), model("a", "org/a"), sae("s", Some("saes/s"))];
    for record in &records {
        f.store.keep_served(record.clone()).await.unwrap();
    }
    let f = f.after_crash().await;
    assert_eq!(f.store.served().await.unwrap(), records);
    f.store.keep_served(model("b", "y")).await.unwrap();
    f.store.forget_served_model("a").await.unwrap();
    f.store.forget_served_sae("s").await.unwrap();
    f.store.forget_served_model("s").await.unwrap();
    assert_eq!(f.after_crash().await.store.served().await.unwrap(), [model("b", "y"), sae("b", None)]);
}

#[tokio::test]
async fn an_upload_is_whole_or_not_there() {
    let f = Fixture::new().await;
    let receive = async |text: &'static [u8]| {
        let upload = f.store.receive_sae().await.unwrap();
        let mut file = upload.file("cfg.json").unwrap();
        file.append(text).unwrap();
        assert_eq!(file.len(), text.len() as u64);
        file.finish().unwrap();
        upload
    };
    let names = |f: &Fixture| fs::read_dir(f.dir.path().join("saes")).unwrap().count();
    let unfinished = receive(b"one").await;
    assert_eq!((names(&f), names(&f.after_crash().await)), (1, 0), "a start removes what was not published");
    drop(unfinished);
    assert_eq!(names(&f), 0);
    for text in [b"one", b"two"] {
        let folder = receive(text).await.publish("s").unwrap();
        assert_eq!((fs::read(folder.join("cfg.json")).unwrap(), folder), (text.to_vec(), f.store.sae_folder("s")));
    }
    let after = f.after_crash().await;
    assert_eq!((names(&f), names(&after)), (1, 1));
    assert!(after.store.verify().await.unwrap().is_clean());
    after.store.forget_served_sae("s").await.unwrap();
    assert_eq!(names(&after), 0);
}

#[tokio::test]
async fn the_unfinished_runs_of_a_model_are_found() {
    let f = Fixture::new().await;
    let waiting = f.submit(vec![simple(&[1]), simple(&[2])]).await;
    f.stored(vec![simple(&[3])]).await;
    let name = f.run(waiting).await.model;
    let pending = f.store.pending_of(&name).await.unwrap();
    assert_eq!(pending, f.store.pending().await.unwrap());
    assert_eq!((pending[0].id, &pending[0].items[..]), (waiting, &[0, 1][..]));
    assert_eq!(f.store.unfinished_of(&name).await.unwrap(), [(T, waiting)]);
    assert_eq!(f.store.pending_of("other").await.unwrap(), []);
    assert_eq!(f.store.unfinished_of("other").await.unwrap(), []);
}
