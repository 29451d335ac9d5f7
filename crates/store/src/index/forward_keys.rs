//! The index of forward keys, in two tables: new keys go to a small staging table, which is merged into the large one
//! in the background, one key range after another.

use crate::index::tx::Tx;

/// Ranges that the keys are divided into, by their first byte.
const RANGES: i64 = 32;
/// Extents that are added before the next key range is merged. So the staging table holds some hundred thousand keys at most,
/// and no page of the large one is changed for a single key.
const STEP: i64 = if cfg!(test) { 2 } else { 4096 };

/// Enters the keys of extents `first` to `last`, which were just added, and merges the key ranges that are due.
pub(crate) fn enter(tx: &mut Tx<'_>, first: i64, last: i64) {
    tx.later(
        "INSERT OR IGNORE INTO forward_keys_new (prefix, extent_id) SELECT substr(forward_key, 1, 6) AS prefix, id FROM extents \
         WHERE id BETWEEN ? AND ? AND forward_key IS NOT NULL ORDER BY prefix",
    )
    .bind(first)
    .bind(last);
    let due = (first - 1) / STEP + 1..=last / STEP;
    // a large commit merges each range once
    let due = (*due.start()).max(due.end() - RANGES + 1)..=*due.end();
    for range in due.map(|step| step % RANGES) {
        let [from, to] = [bound(range), bound(range + 1)];
        tx.later(
            "INSERT OR IGNORE INTO forward_keys (prefix, extent_id) \
             SELECT prefix, extent_id FROM forward_keys_new WHERE prefix >= ? AND prefix < ?",
        )
        .bind(from.as_slice())
        .bind(to.as_slice());
        tx.later("DELETE FROM forward_keys_new WHERE prefix >= ? AND prefix < ?")
            .bind(from.as_slice())
            .bind(to.as_slice());
    }
}

/// Where a key range begins.
fn bound(range: i64) -> Vec<u8> {
    match u8::try_from(range * (256 / RANGES)) {
        Ok(byte) => vec![byte],
        // behind every prefix
        Err(_) => vec![u8::MAX; 7],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_key_once() {
        for byte in 0..=255u8 {
            for key in [vec![byte; 6], vec![byte, 0, 0, 0, 0, 0], vec![byte, 255, 255, 255, 255, 255]] {
                let holds = |s: &i64| bound(*s) <= key && key < bound(s + 1);
                assert_eq!((0..RANGES).filter(holds).count(), 1, "{key:?}");
            }
        }
    }
}
