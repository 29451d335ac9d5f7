//! Stores vectors in a new data folder through the store's own writer, as caches of one row each, for
//! `bench/search.py`.
//!
//! `pack_vectors DATA_DIR VECTORS WIDTH`: the file VECTORS holds little-endian float32 rows. The caches have the hook
//! `blocks.0.hook_resid_post`, and their metadata has the index of the row.

use std::{env, error::Error, fs::File, io::Read, path::Path, sync::Arc};

use residuum::{
    domain::{
        BosDecision, CacheId, Capture, Dtype, Hook, NewItem, NewRun, PackId, PackLayout, Positions, Priority,
        Provenance, Rows, Site, TenantId,
    },
    store::{Completion, Inserted, PackHeader, PackedCache, Store},
};
use serde_json::{Map, json};

/// Caches of one pack.
const PACK: usize = 10_000;
const MODEL: &str = "synthetic";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, vectors, width] = arguments.as_slice() else {
        return Err("usage: pack_vectors DATA_DIR VECTORS WIDTH".into());
    };
    let width: usize = width.parse()?;
    let store = Store::open(Path::new(folder)).await?;
    let mut file = File::open(vectors)?;
    let n = usize::try_from(file.metadata()?.len())? / (width * size_of::<f32>());
    let mut first = 0;
    while first < n {
        let rows = PACK.min(n - first);
        let mut bytes = vec![0; rows * width * size_of::<f32>()];
        file.read_exact(&mut bytes)?;
        add(&store, first, rows, width, &Dtype::Float32.decode(&bytes)).await?;
        first += rows;
    }
    store.close().await;
    Ok(())
}

/// Stores `rows` vectors, `[rows, width]`, as the caches of one run in one pack.
async fn add(store: &Store, first: usize, rows: usize, width: usize, values: &[f32]) -> Result<(), Box<dyn Error>> {
    let hooks: Arc<[Hook]> = [Hook::block(Site::ResidPost, 0)].into();
    let capture = Capture { hooks: Arc::clone(&hooks), positions: Positions::Last, dtype: Dtype::Float32 };
    let items: Vec<NewItem> = (first..first + rows).map(|row| item(row, &capture)).collect();
    let run = NewRun {
        priority: Priority::Normal,
        tenant: TenantId::DEFAULT,
        model: MODEL.to_owned(),
        reuse: false,
        tags: Vec::new(),
        metadata: Map::new(),
        ttl_seconds: None,
        items: items.clone(),
        idempotency: None,
        edits: None,
    };
    let Inserted::Created(run) = store.insert_run(run).await? else { return Err("the run is not new".into()) };
    let last = Rows::List(vec![0]);
    let spans = vec![(1, &last); rows];
    let header = PackHeader {
        id: PackId::generate(),
        tenant: TenantId::DEFAULT,
        model: MODEL.to_owned(),
        n_layers: 1,
        d_model: width,
        provenance: Provenance {
            model_fingerprint: MODEL.to_owned(),
            architecture: MODEL.to_owned(),
            weights_dtype: "float32".to_owned(),
            compute_dtype: "float32".to_owned(),
            device: "cpu".to_owned(),
            residuum_version: env!("CARGO_PKG_VERSION").to_owned(),
            numerics_version: 0,
        },
        layout: PackLayout::new(hooks, vec![vec![width]], Dtype::Float32, &spans),
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
    };
    let mut writer = store.begin_pack(header)?;
    writer.write(0, 0..rows, values)?;
    store.complete(Completion { pack: Some(writer.finish()?), ..Completion::default() }).await?;
    Ok(())
}

fn item(row: usize, capture: &Capture) -> NewItem {
    let metadata = json!({"row": row}).as_object().cloned().unwrap_or_default();
    NewItem {
        token_ids: vec![0],
        tokens: vec!["<row>".to_owned()],
        text: None,
        capture: capture.clone(),
        bos: BosDecision { requested: None, present: false, added: false, token_id: None },
        n_truncated: 0,
        tags: Vec::new(),
        metadata,
        label: None,
        generation: None,
        unsettled: None,
        completion: None,
        origin: None,
        interventions: Vec::new(),
    }
}
