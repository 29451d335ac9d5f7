//! Several shards as one tar file (POSIX ustar), with `manifest.json` at its end.

use serde_json::{Value, json};

use super::{
    manifest::arrays,
    shard::Shard,
    shard_file::{self, Container},
    sink::{Sink, Stop},
};
use residuum_domain::Dtype;
use residuum_engine::questions::export::{CachePages, ExportPlan, Picked};
use residuum_store::Store;

const BLOCK: usize = 512;

/// Writes `first` and all further shards.
///
/// # Errors
/// [`Stop`].
pub async fn write(
    container: Container,
    first: Shard,
    (mut pages, plan): (CachePages, ExportPlan),
    max_bytes: u64,
    sink: &Sink,
    store: &Store,
) -> Result<(), Stop> {
    let sent = container.sent(plan.dtype);
    let (mut next, mut listed) = (Some(first), Vec::new());
    while let Some(shard) = next {
        let name = format!("shard-{:05}.{}", listed.len(), container.extension());
        let file = shard_file::make(container, &shard, &plan, sent);
        let n_bytes = file.len();
        let id = |p: Option<&Picked>| p.map(|p| p.cache.cache.id.to_string());
        listed.push(json!({
            "file": name, "n_bytes": n_bytes, "n_rows": shard.n_rows, "n_caches": shard.caches.len(),
            "first_cache": id(shard.caches.first()), "last_cache": id(shard.caches.last()),
        }));
        drop(shard);
        sink.send(header(&name, n_bytes)).await?;
        file.write(sink, store).await?;
        sink.send(padding(n_bytes)).await?;
        next = Shard::next(&mut pages, &plan, sent, max_bytes).await?;
    }
    let manifest = manifest(&plan, sent, listed).to_string();
    let n_bytes = manifest.len() as u64;
    sink.send(header("manifest.json", n_bytes)).await?;
    sink.send(manifest).await?;
    sink.send(padding(n_bytes)).await?;
    sink.send(vec![0; 2 * BLOCK]).await
}

fn manifest(plan: &ExportPlan, sent: Dtype, shards: Vec<Value>) -> Value {
    let sum = |key: &str| shards.iter().filter_map(|s| s[key].as_u64()).sum::<u64>();
    let (n_rows, n_caches) = (sum("n_rows"), sum("n_caches"));
    let mut head = arrays(plan, sent);
    head["n_rows"] = n_rows.into();
    head["n_caches"] = n_caches.into();
    head["shards"] = shards.into();
    head
}

fn padding(n_bytes: u64) -> Vec<u8> {
    let behind = n_bytes % BLOCK as u64;
    vec![0; if behind == 0 { 0 } else { BLOCK - usize::try_from(behind).unwrap_or(0) }]
}

/// The header block of a file. Sizes from 8 GiB on do not fit the octal field and are written in base 256, as GNU tar
/// does.
fn header(name: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_octal_or_binary_if_they_are_large() {
        let small = header("a", 0o1234);
        assert_eq!(&small[124..136], b"00000001234\0");
        let large = header("a", 1 << 40);
        assert_eq!((large[124], &large[128..136]), (0x80, (1u64 << 40).to_be_bytes().as_slice()));
        for block in [small, large] {
            let sum: u32 =
                block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
            assert_eq!(&block[148..154], format!("{sum:06o}").as_bytes());
        }
        assert_eq!([padding(0).len(), padding(1).len(), padding(512).len()], [0, 511, 0]);
    }
}
