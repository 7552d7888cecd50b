//! `cargo xtask audit`: whether the system calls of a busy database keep the order that its promises stand on.
//!
//! ```text
//!     sync_heavy (an example of pebble-db) ── strace ──► transcript ──► events ──► rules ──► violations
//! ```
//!
//! - **acknowledged**: between the mark before a sync commit and the mark behind it lies a whole successful sync of a
//!   log, begun after what the thread wrote to that log, whose name was synced before.
//! - **named**: a table that a manifest names was synced after its last write, and so was the directory after its
//!   creation, before the manifest was written to.
//! - **switched**: a manifest that `CURRENT` comes to name was synced, and so was `CURRENT.tmp`, before the rename.
//! - **removed**: a table or a manifest is unlinked only when the manifest in force, as far as it is synced, does not
//!   name it.
//!
//! Stores into a mapped log are no calls; there the first rule takes the mark before the commit for the write. Without
//! strace the audit is left out, and says so. The rules are pure; one thread.

mod strace;

use std::collections::BTreeSet;
use std::path::Path;

use self::strace::{Call, Event};
use crate::process::Command;

const TRACED: &str =
    "trace=openat,open,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";

/// The least that a transcript must hold to prove anything: acknowledged commits, tables named, files removed.
const LEAST: Seen = Seen { acknowledged: 100, named: 20, switched: 3, removed: 20 };

/// Runs the workload with each kind of log and judges what it did.
pub fn run(root: &Path) -> Result<(), String> {
    if let Err(why) = Command::new(&["strace", "--version"]).output(root) {
        eprintln!("   SKIPPED: no strace ({})", why.lines().next().unwrap_or_default());
        return Ok(());
    }
    Command::cargo(&["build", "--locked", "--quiet", "-p", "pebble-db", "--example", "sync_heavy"])
        .with_env("CARGO_TARGET_DIR", "target")
        .run(root)?;
    for mode in ["map", "write"] {
        let directory = format!("target/audit-{mode}");
        let transcript = format!("target/audit-{mode}.strace");
        let home = root.join(&directory);
        match std::fs::remove_dir_all(&home) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{directory}: {error}"));
            }
            _ => {}
        }
        std::fs::create_dir_all(&home).map_err(|error| format!("{directory}: {error}"))?;
        let workload = ["target/debug/examples/sync_heavy", &directory, mode];
        let strace = ["strace", "-f", "-y", "-x", "-s", "4000000", "-o", &transcript, "-e", TRACED];
        Command::new(&[&strace[..], &workload].concat()).run(root)?;
        let text = std::fs::read(root.join(&transcript)).map_err(|error| format!("{transcript}: {error}"))?;
        let events = strace::parse(&String::from_utf8_lossy(&text))?;
        let (seen, violations) = judge(&events);
        println!(
            "audit, {mode}: {} calls; {} commits acknowledged, {} tables named, {} switches, {} files removed",
            events.len(),
            seen.acknowledged,
            seen.named,
            seen.switched,
            seen.removed
        );
        if !violations.is_empty() {
            return Err(format!("audit, {transcript}:\n  {}", violations.join("\n  ")));
        }
        if !seen.reaches(&LEAST) {
            return Err(format!("audit, {transcript}: too little happened to prove anything: {seen:?}"));
        }
    }
    Ok(())
}

/// How much there was to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    acknowledged: usize,
    named: usize,
    switched: usize,
    removed: usize,
}

impl Seen {
    fn reaches(&self, least: &Self) -> bool {
        self.acknowledged >= least.acknowledged
            && self.named >= least.named
            && self.switched >= least.switched
            && self.removed >= least.removed
    }
}

/// The events in the order of their ends, and every violation in words.
fn judge(events: &[Event]) -> (Seen, Vec<String>) {
    let audit = Audit { events };
    let (mut seen, mut violations) = (Seen::default(), Vec::new());
    for event in events {
        let told = match &event.call {
            Call::Write { path, bytes } if name(path) == "marks" && bytes.starts_with(b"ack ") => {
                seen.acknowledged += 1;
                audit.acknowledged(event, bytes)
            }
            Call::Write { path, bytes } if name(path).starts_with("MANIFEST-") => {
                let edit = Edit::of(bytes);
                seen.named += edit.added.len();
                edit.added.iter().try_for_each(|table| audit.named(event, path, *table))
            }
            Call::Rename { from, to } if name(to) == "CURRENT" => {
                seen.switched += 1;
                audit.switched(event, from)
            }
            Call::Unlink { path } => {
                seen.removed += 1;
                audit.removed(event, path)
            }
            _ => Ok(()),
        };
        if let Err(what) = told {
            violations.push(format!("line {}: {what}", event.begin));
        }
    }
    (seen, violations)
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

struct Audit<'a> {
    events: &'a [Event],
}

impl Audit<'_> {
    /// Whether there is a sync of `path` that began after line `after` and ended before line `before`.
    fn synced(&self, path: &str, after: usize, before: usize) -> bool {
        self.events.iter().any(|event| {
            let matching = matches!(&event.call, Call::Sync { path: synced } if same(synced, path));
            matching && event.begin > after && event.end < before
        })
    }

    /// The line on which the last call of a kind ended before `before`; 0 if there was none.
    fn last(&self, before: usize, which: impl Fn(&Event) -> bool) -> usize {
        let earlier = self.events.iter().filter(|event| event.end < before && which(event));
        earlier.map(|event| event.end).max().unwrap_or(0)
    }

    fn last_write(&self, path: &str, before: usize) -> usize {
        self.last(
            before,
            |event| matches!(&event.call, Call::Write { path: written, .. } if same(written, path)),
        )
    }

    /// When the file got its name, by creation or by a rename.
    fn last_birth(&self, path: &str, before: usize) -> usize {
        self.last(before, |event| match &event.call {
            Call::Create { path: created } => same(created, path),
            Call::Rename { to, .. } => same(to, path),
            _ => false,
        })
    }

    fn acknowledged(&self, ack: &Event, mark: &[u8]) -> Result<(), String> {
        let mark = String::from_utf8_lossy(mark);
        let begin = mark.replace("ack ", "begin ");
        let begun = self.last(ack.begin, |event| {
            let marked = matches!(&event.call, Call::Write { path, bytes }
                if name(path) == "marks" && bytes == begin.as_bytes());
            marked && event.thread == ack.thread
        });
        if begun == 0 {
            return Err(format!("{} without its {}", mark.trim(), begin.trim()));
        }
        let own = self.events.iter().rfind(|event| {
            let to_log = matches!(&event.call, Call::Write { path, .. } if path.ends_with(".log"));
            to_log && event.thread == ack.thread && event.begin > begun && event.end < ack.begin
        });
        let covered = self.events.iter().any(|event| {
            let Call::Sync { path } = &event.call else { return false };
            let (path_fits, after) = match own {
                Some(Event { call: Call::Write { path: written, .. }, end, .. }) => {
                    (same(path, written), *end)
                }
                _ => (path.ends_with(".log"), begun),
            };
            let name_is_durable = || {
                let born = self.last_birth(path, event.begin);
                born == 0 || self.synced(parent(path), born, ack.begin)
            };
            path_fits && event.begin > after && event.end < ack.begin && name_is_durable()
        });
        if covered { Ok(()) } else { Err(format!("{} is not covered by a sync of its log", mark.trim())) }
    }

    fn named(&self, write: &Event, manifest: &str, table: u64) -> Result<(), String> {
        let path = format!("{}/{table:06}.sst", parent(manifest));
        let born = self.last_birth(&path, write.begin);
        let told = |what: &str| Err(format!("{} names table {table}, {what}", name(manifest)));
        if born == 0 {
            return told("which is not there");
        }
        if !self.synced(&path, self.last_write(&path, write.begin), write.begin) {
            return told("which was not synced after its last write");
        }
        if !self.synced(parent(manifest), born, write.begin) {
            return told("whose name was not synced");
        }
        Ok(())
    }

    fn switched(&self, rename: &Event, from: &str) -> Result<(), String> {
        let manifest = self.target(rename).ok_or("CURRENT comes to name nothing")?;
        for path in [from, &manifest] {
            if !self.synced(path, self.last_write(path, rename.begin), rename.begin) {
                return Err(format!(
                    "CURRENT comes to name {} before {} is synced",
                    name(&manifest),
                    name(path)
                ));
            }
        }
        if !self.synced(parent(from), self.last_birth(&manifest, rename.begin), rename.begin) {
            return Err(format!("CURRENT comes to name {}, whose name was not synced", name(&manifest)));
        }
        Ok(())
    }

    /// The manifest that a rename to `CURRENT` puts in force: what was written to `CURRENT.tmp` last.
    fn target(&self, rename: &Event) -> Option<String> {
        let Call::Rename { from, .. } = &rename.call else { return None };
        let mut written = self.events.iter().filter(|event| event.end < rename.begin);
        written.rfind(|event| matches!(&event.call, Call::Write { path, .. } if same(path, from))).and_then(
            |event| {
                let Call::Write { bytes, .. } = &event.call else { return None };
                Some(format!("{}/{}", parent(from), String::from_utf8_lossy(bytes).trim()))
            },
        )
    }

    fn removed(&self, unlink: &Event, path: &str) -> Result<(), String> {
        let in_force = self.events.iter().rfind(|event| {
            let switch = matches!(&event.call, Call::Rename { to, .. } if name(to) == "CURRENT");
            switch && event.end < unlink.begin && self.synced(parent(path), event.end, unlink.begin)
        });
        let Some(manifest) = in_force.and_then(|rename| self.target(rename)) else { return Ok(()) };
        if same(path, &manifest) {
            return Err(format!("{} is removed, and is in force", name(path)));
        }
        let Some(table) = name(path).strip_suffix(".sst").and_then(|number| number.parse().ok()) else {
            return Ok(());
        };
        if self.tables(&manifest, unlink.begin).contains(&table) {
            return Err(format!("table {table} is removed, and {} still names it", name(&manifest)));
        }
        Ok(())
    }

    /// The tables that a manifest names, by what of it is synced before a line.
    fn tables(&self, manifest: &str, before: usize) -> BTreeSet<u64> {
        let mut tables = BTreeSet::new();
        for event in self.events {
            let Call::Write { path, bytes } = &event.call else { continue };
            if same(path, manifest) && self.synced(manifest, event.end, before) {
                let Edit { added, removed } = Edit::of(bytes);
                tables.retain(|table| !removed.contains(table));
                tables.extend(added);
            }
        }
        tables
    }
}

/// Whether two paths are one, though one of them may be relative to where the workload was started.
fn same(one: &str, other: &str) -> bool {
    let (long, short) = if one.len() >= other.len() { (one, other) } else { (other, one) };
    long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// The tables that the frames of one write to a manifest name and take away (`docs/format/manifest.md`).
#[derive(Debug, Default, PartialEq, Eq)]
struct Edit {
    added: Vec<u64>,
    removed: Vec<u64>,
}

impl Edit {
    fn of(bytes: &[u8]) -> Self {
        let mut edit = Self::default();
        let mut rest =
            if bytes.starts_with(b"pebl\0man") { bytes.get(48..).unwrap_or_default() } else { bytes };
        while let Some((fields, next)) =
            number(rest, 8, 4).and_then(|len| rest.get(12..)?.split_at_checked(len))
        {
            edit.read_fields(fields);
            rest = next;
        }
        edit
    }

    fn read_fields(&mut self, mut fields: &[u8]) {
        while let (Some(tag), Some(len)) = (number(fields, 0, 2), number(fields, 4, 4)) {
            let table = number(fields, 8, 8).and_then(|number| u64::try_from(number).ok());
            match tag {
                7 => self.removed.extend(table),
                9 | 10 => self.added.extend(table),
                _ => {}
            }
            fields = fields.get(8 + len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A little-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let mut wide = [0; 8];
    wide.get_mut(..len)?.copy_from_slice(bytes.get(at..at + len)?);
    usize::try_from(u64::from_le_bytes(wide)).ok()
}

#[cfg(test)]
mod tests;
