//! Checks what an engine gives back. A wrong value fails the run.

use crate::Result;
use crate::data::{Random, Records};
use crate::store::Store;

/// Keys that are read one by one.
const READS: u64 = 10_000;
/// Keys that are deleted then.
const DELETES: u64 = 100;

/// Checks every record by a scan, some by point reads, and that some more are gone once deleted. `versions` holds
/// the version of each record; there must be one.
pub fn check(store: &dyn Store, records: &Records, versions: &[u32]) -> Result<()> {
    check_scan(store, records, versions)?;
    let mut random = Random::new(3);
    let count = versions.len() as u64;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for _ in 0..READS {
        let id = random.below(count);
        records.key(id, &mut key);
        records.value(id, version_of(id, versions)?, &mut value);
        let mut right = false;
        if !store.get(&key, &mut |found| right = found == value)? || !right {
            return Err(format!("a read of record {id} gave a wrong value or none").into());
        }
    }
    for _ in 0..DELETES {
        let id = random.below(count);
        records.key(id, &mut key);
        store.delete(&key)?;
        if store.get(&key, &mut |_| {})? {
            return Err(format!("record {id} is there after its delete").into());
        }
    }
    Ok(())
}

/// A value names its record, so each entry can be checked as it comes.
fn check_scan(store: &dyn Store, records: &Records, versions: &[u32]) -> Result<()> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let (mut count, mut wrong) = (0, 0);
    store.scan(&mut |found_key, found_value| {
        count += 1;
        let id = records.names(found_value).map_or(u64::MAX, |(id, _)| id);
        let Ok(version) = version_of(id, versions) else {
            wrong += 1;
            return;
        };
        records.key(id, &mut key);
        records.value(id, version, &mut value);
        wrong += usize::from(found_key != key || found_value != value);
    })?;
    // Keys of a scan ascend, so no record came twice.
    match (count == versions.len(), wrong) {
        (true, 0) => Ok(()),
        _ => Err(format!("a scan gave {count} entries of {}, {wrong} of them wrong", versions.len()).into()),
    }
}

fn version_of(id: u64, versions: &[u32]) -> Result<u32> {
    let version = usize::try_from(id).ok().and_then(|id| versions.get(id));
    Ok(*version.ok_or("a value names a record that was never written")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Content;
    use crate::load::load;
    use crate::store::{Compression, Config, EngineName};

    #[test]
    fn what_is_old_missing_or_too_much_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(8 << 20, Compression::None);
        let store = EngineName::Pebble.open(dir.path(), &config).unwrap();
        let records = Records::new(16, 100, Content::Random).unwrap();
        load(store.as_ref(), &records, 0, 100_000).unwrap();

        let mut versions = vec![1; 100_000];
        versions[77_777] = 2;
        let told = check(store.as_ref(), &records, &versions).unwrap_err().to_string();
        assert!(told.contains("100000 entries of 100000, 1 of them wrong"), "{told}");
        versions[77_777] = 1;
        let told = check(store.as_ref(), &records, &versions[1..]).unwrap_err().to_string();
        assert!(told.contains("100000 entries of 99999, 1 of them wrong"), "{told}");
        versions.push(1);
        let told = check(store.as_ref(), &records, &versions).unwrap_err().to_string();
        assert!(told.contains("100000 entries of 100001, 0 of them wrong"), "{told}");
        versions.pop();
        check(store.as_ref(), &records, &versions).unwrap();
    }
}
