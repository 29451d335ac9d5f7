//! Blobs: what is written is what is read, by this store and by the safetensors crate.

use std::{collections::BTreeMap, ops::Range};

use safetensors::SafeTensors;

use super::*;

#[tokio::test]
async fn every_dtype_comes_back_bit_for_bit() {
    let f = Fixture::new().await;
    for dtype in Dtype::ALL {
        let with = |tokens: &[u32], positions| item(tokens, capture(&[QUERY, PATTERN, RESID], positions, dtype));
        let items = vec![
            with(&[1, 2, 3], Positions::All),
            with(&[4, 5, 6, 7], Positions::List(vec![-1, 0])),
            with(&[8], Positions::Last),
        ];
        let run = f.submit(items.clone()).await;
        let head = header(run, (0..).zip(items.clone()).collect());
        let (layout, ids): (_, Vec<CacheId>) = (head.layout.clone(), head.caches.iter().map(|c| c.cache).collect());
        let pack = write(&f.store, head);
        assert_eq!(f.complete(pack).await, [run]);
        let stored = f.store.stored(T, &[ids[2], ids[0], CacheId::generate(), ids[1]]).await.unwrap();
        assert!(stored[2].is_none());
        for (i, s) in [(2, &stored[0]), (0, &stored[1]), (1, &stored[3])] {
            let s = s.as_ref().unwrap();
            assert_eq!(s.cache.id, ids[i]);
            let mut hasher = blake3::Hasher::new();
            for h in 0..3 {
                let expected: Vec<f32> = layout.elements(h, i..i + 1).map(|e| value(h, e)).collect();
                let (shape, _) = s.cache.shape_of(h).unwrap();
                assert_eq!(shape.iter().product::<usize>(), s.elements(h));
                assert_eq!(s.elements(h), expected.len());
                assert_eq!(s.byte_len(h), (expected.len() * dtype.size()) as u64);
                let bytes = s.read(&f.store, h, 0..expected.len()).await.unwrap();
                assert_eq!(dtype.decode(&bytes), expected);
                let part = s.read_blocking(&f.store, h, 1..expected.len() - 1).unwrap();
                assert_eq!(dtype.decode(&part), expected[1..expected.len() - 1]);
                hasher.update(&bytes);
            }
            assert_eq!(s.cache.content_hash, hasher.finalize().to_hex().as_str());
            assert_eq!(s.cache.n_bytes, layout.item_bytes(i));
            let many = s.read_many(&f.store, &[(2, 0..2), (0, 3..5)]).await.unwrap();
            let at = |h: usize, e: usize| value(h, layout.elements(h, i..i + 1).start + e);
            assert_eq!(dtype.decode(&many[0]), [at(2, 0), at(2, 1)]);
            assert_eq!(dtype.decode(&many[1]), [at(0, 3), at(0, 4)]);
            for (hook, range) in [(3, 0..1), (0, 0..s.elements(0) + 1)] {
                let refused = s.read(&f.store, hook, range).await;
                assert!(matches!(refused, Err(StoreError::Misuse(_))), "{refused:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_pack_is_a_safetensors_file() {
    let f = Fixture::new().await;
    let with = |tokens: &[u32]| item(tokens, capture(&[PATTERN, RESID], Positions::All, Dtype::BFloat16));
    let items = vec![with(&[1, 2, 3]), with(&[4, 5])];
    let run = f.submit(items.clone()).await;
    let (pack, ids) = f.pack(run, (0..).zip(items).collect());
    let (layout, n_bytes) = (pack.header.layout.clone(), pack.n_bytes());
    let bytes = fs::read(&f.files()[0]).unwrap();
    assert_eq!(bytes.len() as u64, n_bytes);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (h, hook) in layout.hooks.iter().enumerate() {
        let tensor = file.tensor(&hook.to_string()).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::BF16);
        assert_eq!(tensor.shape(), layout.tensor_shape(h));
        let expected: Vec<f32> = layout.elements(h, 0..2).map(|e| value(h, e)).collect();
        assert_eq!(Dtype::BFloat16.decode(tensor.data()), expected);
    }
    let (front, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(front % 8, 0);
    let metadata: BTreeMap<String, String> = metadata.metadata().clone().unwrap().into_iter().collect();
    assert_eq!(metadata["format"], "residuum-pack-1");
    let caches: Value = serde_json::from_str(&metadata["caches"]).unwrap();
    assert_eq!(caches[1]["id"], ids[1].to_string());
    assert_eq!(caches[1]["token_ids"], serde_json::json!([4, 5]));
    assert_eq!(caches[1]["row_start"], 3);
    assert_eq!(caches[1]["map_start"], 9);
    let origin: Provenance = serde_json::from_str(&metadata["provenance"]).unwrap();
    assert_eq!(origin, provenance());
}

#[tokio::test]
async fn values_that_are_not_finite_are_counted_as_stored() {
    let f = Fixture::new().await;
    let scores = "blocks.0.attn.hook_attn_scores";
    let cap = capture(&[scores, RESID], Positions::Last, Dtype::Float16);
    let items = vec![item(&[1, 2], cap.clone()), item(&[3], cap)];
    let run = f.submit(items.clone()).await;
    let header = header(run, (0..).zip(items).collect());
    let ids: Vec<CacheId> = header.caches.iter().map(|c| c.cache).collect();
    let mut writer = f.store.begin_pack(header).unwrap();
    // scores: two heads of two keys, then two heads of one key
    writer.write(0, 0..1, &[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, f32::INFINITY]).unwrap();
    writer.write(0, 1..2, &[f32::NAN, 0.0]).unwrap();
    // 70,000 is more than float16 holds
    writer.write(1, 0..2, &[70_000.0, f32::NAN, f32::NEG_INFINITY, 1.0, 0.0, 1.0, 2.0, 3.0]).unwrap();
    f.complete(writer.finish().unwrap()).await;
    assert_eq!(f.cache(ids[0]).await.stats, TensorStats { n_nan: 1, n_inf: 3 });
    assert_eq!(f.cache(ids[1]).await.stats, TensorStats { n_nan: 1, n_inf: 0 });
}

#[tokio::test]
async fn writes_larger_than_a_chunk_reach_their_items() {
    let f = Fixture::new().await;
    let cap = capture(&[RESID], Positions::All, Dtype::Float32);
    let items = vec![item(&[1, 2, 3], cap.clone()), item(&[4], cap.clone()), item(&[5, 6], cap)];
    let run = f.submit(items.clone()).await;
    let mut header = header(run, (0..).zip(items).collect());
    header.layout.row_shapes = vec![vec![100_003]];
    let (layout, ids): (_, Vec<CacheId>) = (header.layout.clone(), header.caches.iter().map(|c| c.cache).collect());
    let values: Vec<f32> = layout.elements(0, 0..3).map(|e| value(0, e)).collect();
    let mut writer = f.store.begin_pack(header).unwrap();
    writer.write(0, 0..1, &values[..300_000]).unwrap();
    writer.write(0, 0..1, &values[300_000..300_009]).unwrap();
    writer.write(0, 1..3, &values[300_009..]).unwrap();
    f.complete(writer.finish().unwrap()).await;
    for (i, stored) in f.store.stored(T, &ids).await.unwrap().into_iter().enumerate() {
        let stored = stored.unwrap();
        let bytes = stored.read(&f.store, 0, 0..stored.elements(0)).await.unwrap();
        assert_eq!(Dtype::Float32.decode(&bytes), values[layout.elements(0, i..i + 1)]);
        assert_eq!(stored.cache.content_hash, blake3::hash(&bytes).to_hex().as_str());
    }
    assert!(f.store.verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn sub_batches_write_what_the_whole_would_side_by_side() {
    let f = Fixture::new().await;
    for dtype in Dtype::ALL {
        let cap = |positions| capture(&[PATTERN, QUERY, RESID], positions, dtype);
        let items = vec![
            item(&[1, 2, 3], cap(Positions::All)),
            item(&[4], cap(Positions::Last)),
            item(&[5, 6], cap(Positions::Mean)),
            item(&[7, 8, 9, 10], cap(Positions::All)),
            item(&[11, 12], cap(Positions::Last)),
        ];
        let run = f.submit(items.clone()).await;
        let header = header(run, (0..).zip(items).collect());
        let (layout, ids): (_, Vec<CacheId>) = (header.layout.clone(), header.caches.iter().map(|c| c.cache).collect());
        let values = |hook, items: Range<usize>| {
            let at = |item: usize| layout.elements(hook, item..item + 1);
            // in each item another number of values that are not finite, and these at its end
            let special = |item: usize, e| (e >= at(item).end - item.min(at(item).len())).then_some(f32::NAN);
            items.flat_map(|i| at(i).map(move |e| special(i, e).unwrap_or(value(hook, e)))).collect::<Vec<f32>>()
        };
        let mut writer = f.store.begin_pack(header).unwrap();
        let [mut first, mut second] = <[SubBatchWriter<'_>; 2]>::try_from(writer.sub_batches(&[0..2, 2..5])).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for hook in 0..3 {
                    first.write(hook, 0..2, &values(hook, 0..2)).unwrap();
                }
            });
            for hook in 0..3 {
                second.write(hook, 0..1, &values(hook, 2..3)).unwrap();
                let pieces = values(hook, 3..4);
                second.write(hook, 1..2, &pieces[..5]).unwrap();
                second.write(hook, 1..2, &pieces[5..]).unwrap();
                second.write(hook, 2..3, &values(hook, 4..5)).unwrap();
            }
        });
        f.complete(writer.finish().unwrap()).await;
        for (i, stored) in f.store.stored(T, &ids).await.unwrap().into_iter().enumerate() {
            let stored = stored.unwrap();
            let mut hasher = blake3::Hasher::new();
            let mut n_nan = 0;
            for hook in 0..3 {
                let bytes = stored.read(&f.store, hook, 0..stored.elements(hook)).await.unwrap();
                let (have, expected) = (dtype.decode(&bytes), values(hook, i..i + 1));
                assert!(have.iter().zip(&expected).all(|(a, b)| a == b || a.is_nan() && b.is_nan()), "{i}: {have:?}");
                assert_eq!(have.len(), expected.len());
                n_nan += expected.iter().filter(|v| v.is_nan()).count() as u64;
                hasher.update(&bytes);
            }
            assert_eq!(stored.cache.stats, TensorStats { n_nan, n_inf: 0 });
            assert_eq!(n_nan > 0, i > 0);
            assert_eq!(stored.cache.content_hash, hasher.finalize().to_hex().as_str());
        }
    }
    assert!(f.store.verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn what_is_out_of_order_or_missing_is_refused_and_leaves_nothing() {
    let f = Fixture::new().await;
    let cap = capture(&[QUERY, RESID], Positions::Last, Dtype::Float32);
    let items = vec![item(&[1], cap.clone()), item(&[2], cap)];
    let run = f.submit(items.clone()).await;
    let header = header(run, (0..).zip(items).collect());
    let mut writer = f.store.begin_pack(header.clone()).unwrap();
    let misuse = |r: Result<(), StoreError>| assert!(matches!(r, Err(StoreError::Misuse(_))), "{r:?}");
    misuse(writer.write(1, 0..1, &[0.0; 4]));
    misuse(writer.write(0, 0..1, &[0.0; 7]));
    misuse(writer.write(0, 0..2, &[0.0; 11]));
    misuse(writer.write(0, 0..3, &[0.0; 18]));
    misuse(writer.write(0, 0..0, &[]));
    writer.write(0, 0..1, &[0.0; 4]).unwrap();
    misuse(writer.write(0, 0..2, &[0.0; 12]));
    misuse(writer.write(1, 0..1, &[0.0; 4]));
    // the items of a pack need not wait for each other
    writer.write(0, 1..2, &[0.0; 6]).unwrap();
    writer.write(1, 1..2, &[0.0; 4]).unwrap();
    misuse(writer.write(0, 1..2, &[0.0; 6]));
    misuse(writer.write(2, 1..2, &[]));
    misuse(writer.write(0, 0..2, &[0.0; 8]));
    writer.write(0, 0..1, &[0.0; 2]).unwrap();
    misuse(writer.write(0, 0..1, &[0.0; 6]));
    assert_eq!(f.files().len(), 1);
    misuse(writer.finish().map(drop));
    assert_eq!(f.files().len(), 0);
    let mut other = header.clone();
    other.caches.pop();
    misuse(f.store.begin_pack(other).map(drop));
    let mut other = header.clone();
    other.caches[0].item.capture.dtype = Dtype::Float16;
    misuse(f.store.begin_pack(other).map(drop));
    let mut other = header;
    other.caches[0].item.capture.hooks = capture(&[PATTERN], Positions::Last, Dtype::Float32).hooks;
    misuse(f.store.begin_pack(other).map(drop));
    assert_eq!(f.files().len(), 0);
}

#[tokio::test]
async fn an_item_may_ask_for_less_than_its_pack_holds() {
    let f = Fixture::new().await;
    let all = capture(&[QUERY, PATTERN, RESID], Positions::All, Dtype::Float32);
    let less = item(&[1, 2], capture(&[PATTERN], Positions::All, Dtype::Float32));
    let run = f.submit(vec![less.clone(), item(&[3], all.clone())]).await;
    let mut header = header(run, vec![(0, item(&[1, 2], all.clone())), (1, item(&[3], all))]);
    header.caches[0].item = less.clone();
    let (layout, id) = (header.layout.clone(), header.caches[0].cache);
    f.complete(write(&f.store, header)).await;
    let stored = f.store.stored(T, &[id]).await.unwrap().remove(0).unwrap();
    assert_eq!(stored.cache.capture, less.capture);
    assert_eq!(stored.cache.row_shapes, [[2]]);
    let expected: Vec<f32> = layout.elements(1, 0..1).map(|e| value(1, e)).collect();
    assert_eq!(stored.cache.n_bytes, expected.len() as u64 * 4);
    let bytes = stored.read(&f.store, 0, 0..expected.len()).await.unwrap();
    assert_eq!(Dtype::Float32.decode(&bytes), expected);
}
