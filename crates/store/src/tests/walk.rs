//! A random walk through everything that can happen to runs, with the store's invariants checked at each step.

use super::*;

/// xorshift64: the same walk every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }
}

struct Walk {
    f: Fixture,
    dice: Dice,
    runs: Vec<RunId>,
    /// Finished packs that wait for their completion, as those of a worker do.
    packs: Vec<FinishedPack>,
}

impl Walk {
    /// Few different inputs, so that reuse happens.
    fn input(&mut self) -> NewItem {
        let tokens: Vec<u32> = (0..1 + self.dice.below(3) as u32).collect();
        let hooks = [[RESID].as_slice(), &[QUERY, RESID], &[PATTERN, QUERY, RESID]][self.dice.below(3)];
        item(&tokens, capture(hooks, Positions::All, Dtype::Float16))
    }

    async fn step(&mut self) {
        let run = self.dice.pick(&self.runs);
        match (self.dice.below(14), run) {
            (0 | 1, _) | (_, None) => {
                let items = (0..1 + self.dice.below(4)).map(|_| self.input()).collect();
                let id = self.f.submit(items).await;
                self.runs.push(id);
            }
            (2 | 3, Some(run)) => {
                let units: Vec<(RunId, u32)> = (0..4).map(|i| (run, i)).collect();
                self.f.store.claim(&units).await.unwrap();
                // all items of a pack capture the same hooks
                let items = self.f.store.items(run, &[0, 1, 2, 3]).await.unwrap();
                let Some(hooks) = items.first().map(|(_, item)| item.capture.hooks.clone()) else { return };
                let same: Vec<(u32, NewItem)> = items.into_iter().filter(|(_, i)| i.capture.hooks == hooks).collect();
                self.packs.push(self.f.pack(run, same).0);
            }
            (4 | 5, _) if !self.packs.is_empty() => {
                let pack = self.packs.swap_remove(self.dice.below(self.packs.len()));
                self.f.complete(pack).await;
            }
            (4..=6, Some(run)) => self.reuse(run).await,
            (7, Some(run)) => {
                let problem = Problem::new(Code::Internal, "no luck");
                let failed = vec![(run, self.dice.below(4) as u32, problem)];
                self.f.store.complete(Completion { failed, ..Completion::default() }).await.unwrap();
            }
            (8, Some(run)) => drop(self.f.store.cancel_run(T, run, &[]).await.unwrap()),
            (9, Some(run)) if self.runs.len() > 6 => {
                assert!(self.f.store.delete_run(T, run).await.unwrap());
                self.runs.retain(|r| *r != run);
            }
            (10, Some(run)) => {
                let caches = self.f.run(run).await.caches;
                if let Some(cache) = self.dice.pick(&caches) {
                    assert!(self.f.store.delete_cache(T, cache).await.unwrap());
                }
            }
            (11, _) => drop(self.f.store.merge(&Compaction::thorough()).await.unwrap()),
            (12, _) => drop(self.f.store.gc().await.unwrap()),
            _ => {
                // what was not completed is lost
                self.packs.clear();
                self.f = self.f.after_crash().await;
                self.f.store.pending().await.unwrap();
            }
        }
    }

    async fn reuse(&mut self, run: RunId) {
        let items = self.f.store.items(run, &[0, 1, 2, 3]).await.unwrap();
        let wanted: Vec<Wanted> = items
            .iter()
            .map(|(_, i)| Wanted { forward_key: key(i), capture: i.capture.clone(), n_tokens: i.token_ids.len() })
            .collect();
        let found = self.f.store.find_reusable(T, &wanted).await.unwrap();
        let reused = found
            .into_iter()
            .zip(items)
            .filter_map(|(found, (item_index, item))| match found {
                Some(Reusable::Extent(extent)) => {
                    Some(ReusedCache { extent, cache: CacheId::generate(), run, item_index, item })
                }
                _ => None,
            })
            .collect();
        self.f.store.complete(Completion { reused, ..Completion::default() }).await.unwrap();
    }

    async fn check(&self) {
        for wrong in [
            // a run has something pending exactly as long as it has not ended
            "SELECT count(*) FROM runs r WHERE (finished_at IS NULL) <> \
                 EXISTS (SELECT 1 FROM run_items i WHERE i.run_id = r.id AND i.status = 'pending')",
            "SELECT count(*) FROM runs r WHERE n_done <> \
                 (SELECT count(*) FROM run_items i WHERE i.run_id = r.id AND i.status = 'done')",
            "SELECT count(*) FROM runs r WHERE n_failed <> \
                 (SELECT count(*) FROM run_items i WHERE i.run_id = r.id AND i.status = 'failed')",
            "SELECT count(*) FROM runs WHERE (status = 'failed' AND n_failed = 0) \
                 OR (status = 'completed' AND n_done <> n_items)",
            "SELECT count(*) FROM caches c LEFT JOIN run_items i USING (run_id, item_index) \
                 WHERE i.status IS NOT 'done'",
            "SELECT count(*) FROM extents e WHERE NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = e.id)",
            "SELECT count(*) FROM packs p WHERE NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = p.id)",
        ] {
            let n: i64 = sqlx::query_scalar(wrong).fetch_one(&mut *self.f.store.reader().await.unwrap()).await.unwrap();
            assert_eq!(n, 0, "{wrong}");
        }
        let stats = self.f.store.stats().await.unwrap();
        assert_eq!(stats.n_packs as usize + self.packs.len(), self.f.files().len());
    }
}

#[tokio::test]
async fn whatever_happens_the_index_and_the_files_agree() {
    for seed in [1, 2] {
        let f = Fixture::new().await;
        let mut walk = Walk { f, dice: Dice(seed << 32 | 12345), runs: Vec::new(), packs: Vec::new() };
        let (mut most_reused, mut most_caches) = (0, 0);
        for _ in 0..180 {
            walk.step().await;
            walk.check().await;
            let stats = walk.f.store.stats().await.unwrap();
            most_reused = most_reused.max(stats.n_caches - stats.n_extents);
            most_caches = most_caches.max(stats.n_caches);
        }
        assert!(most_reused > 0 && most_caches > 4, "got nowhere: {most_reused} of {most_caches}");
        let report = walk.f.store.verify().await.unwrap();
        assert!(report.is_clean(), "{report}");
        // every cache reads, and all of it
        for cache in walk.f.store.caches(T, &CacheFilter::default(), None, 1_000).await.unwrap() {
            let stored = walk.f.store.stored(T, &[cache.id]).await.unwrap().remove(0).unwrap();
            for h in 0..cache.capture.hooks.len() {
                let elements = stored.elements(h);
                assert_eq!(stored.read(&walk.f.store, h, 0..elements).await.unwrap().len(), elements * 2);
            }
        }
        walk.packs.clear();
        for run in walk.runs {
            assert!(walk.f.store.delete_run(T, run).await.unwrap());
        }
        walk.f.store.gc().await.unwrap();
        assert_eq!(walk.f.files().len(), 0);
        assert_eq!(walk.f.store.stats().await.unwrap(), StoreStats::default());
    }
}
