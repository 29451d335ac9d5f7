//! `residuum verify`, `residuum gc` and `residuum backup`: commands that work on a data folder directly.

use std::path::PathBuf;

use clap::Args;

use super::{DataDir, runtime};
use residuum_store::{Store, StoreError};

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    data: DataDir,
    /// Remove what is damaged from the index, keep the rest, and move damaged files to the folder `damaged`. No server
    /// may be running.
    #[arg(long)]
    repair: bool,
    /// Replace a lost or broken index by a new one, made from the blobs alone. No server may be running.
    #[arg(long, conflicts_with = "repair")]
    rebuild_index: bool,
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    #[command(flatten)]
    data: DataDir,
    /// Also delete the blobs in the folder `unknown`, which are not in the index. They may be the only copies of
    /// activations.
    #[arg(long)]
    unknown: bool,
}

#[derive(Debug, Args)]
pub(super) struct Backup {
    #[command(flatten)]
    data: DataDir,
    /// Copy the bytes of blobs even if the file system allows hard links.
    #[arg(long)]
    copy: bool,
    /// Folder for the copy; it must be empty, or not exist.
    target: PathBuf,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), String> {
        let dir = self.data.data_dir;
        let report = runtime(1)?.block_on(async {
            if self.rebuild_index {
                println!("{}", Store::rebuild_index(&dir).await?);
            }
            if !self.repair {
                return Store::open_read_only(&dir).await?.verify().await;
            }
            let store = Store::open(&dir).await?;
            println!("{}", store.repair().await?);
            let report = store.verify().await;
            store.close().await;
            report
        });
        let report = report.map_err(|e| e.to_string())?;
        println!("{report}");
        if report.is_clean() { Ok(()) } else { Err("the data folder is damaged".to_owned()) }
    }
}

impl Backup {
    pub(super) fn run(self) -> Result<(), String> {
        let report = runtime(1)?.block_on(async {
            let store = Store::open_read_only(&self.data.data_dir).await?;
            store.backup(&self.target, !self.copy).await
        });
        let report = report.map_err(|e| e.to_string())?;
        println!("{report}");
        if report.verified.is_clean() { Ok(()) } else { Err("the copy is damaged".to_owned()) }
    }
}

impl Gc {
    pub(super) fn run(self) -> Result<(), String> {
        let done = runtime(1)?.block_on(async {
            let store = Store::open(&self.data.data_dir).await?;
            let report = store.gc().await;
            let removed = if self.unknown { store.remove_unknown_blobs().await } else { Ok((0, 0)) };
            let left = store.n_unknown_blobs();
            store.close().await;
            Ok((report?, removed?, left))
        });
        match done {
            Ok((report, (n, n_bytes), left)) => {
                println!("{report}");
                if n > 0 {
                    println!("removed {n} blobs that were not in the index: {n_bytes} bytes");
                }
                if left > 0 {
                    println!(
                        "the folder `unknown` has {left} blobs that are not in the index (--unknown removes them)"
                    );
                }
                Ok(())
            }
            Err(e @ StoreError::Locked) => Err(format!("{e}. A running server collects garbage itself")),
            Err(e) => Err(e.to_string()),
        }
    }
}
