//! Fills a database: every record once, in random order of keys.

use crate::Result;
use crate::data::Records;
use crate::store::Store;

/// Records in one commit.
const BATCH: u64 = 64;

/// Writes version 1 of the records `from..to`.
pub fn load(store: &dyn Store, records: &Records, from: u64, to: u64) -> Result<()> {
    let mut id = from;
    let mut batch = Vec::new();
    while id < to {
        let end = to.min(id + BATCH);
        batch.resize_with((end - id) as usize, Default::default);
        for (id, (key, value)) in (id..end).zip(&mut batch) {
            records.key(id, key);
            records.value(id, 1, value);
        }
        store.batch(&batch)?;
        id = end;
    }
    Ok(())
}
