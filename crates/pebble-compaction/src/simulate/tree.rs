//! The abstract tree: a version whose tables hold shares of keys in place of records.
//!
//! Threading: plain data.

use std::collections::HashMap;

use pebble_format::manifest::{LAST_LEVEL, LEVEL_COUNT};
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer};
use pebble_manifest::{Edit, NewRun, TableMeta, Version};

use super::{CELLS, LevelShape};
use crate::plan::Input;

/// Bytes of a tombstone's record beside those of a value.
const TOMBSTONE_BYTES: f64 = 32.0;

/// Of a cell's keys: the share whose newest version here is a value, and the share whose newest is a tombstone.
pub(super) type Cell = (f64, f64);

/// The cells of one table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    start: u16,
    cells: Vec<Cell>,
    seqno_min: u64,
    seqno_max: u64,
}

#[derive(Debug)]
pub(super) struct Tree {
    keys_per_cell: f64,
    record_bytes: f64,
    version: Version,
    tables: HashMap<u64, Table>,
    number: u64,
    /// Sequence numbers: up to the last flush, and of the one that is being made.
    flushed: u64,
    newest: u64,
}

impl Tree {
    pub(super) fn new(keys_per_cell: f64, record_bytes: f64) -> Self {
        let (version, tables) = (Version::default(), HashMap::new());
        Self { keys_per_cell, record_bytes, version, tables, number: 0, flushed: 0, newest: 1 }
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    pub(super) fn keys_per_cell(&self) -> f64 {
        self.keys_per_cell
    }

    pub(super) fn newest(&self) -> Seqno {
        Seqno(self.newest)
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.version.len_bytes()
    }

    /// So many writes come with the next flush.
    pub(super) fn advance(&mut self, writes: f64) {
        self.flushed = self.newest;
        self.newest += (writes as u64).max(1);
    }

    fn cell_bytes(&self, (puts, deletes): Cell) -> f64 {
        self.keys_per_cell * (puts * self.record_bytes + deletes * TOMBSTONE_BYTES.min(self.record_bytes))
    }

    pub(super) fn bytes(&self, cells: &[Cell]) -> f64 {
        cells.iter().map(|cell| self.cell_bytes(*cell)).sum()
    }

    /// The cells of a merge's outcome, from which cell on, and the bytes that it reads.
    pub(super) fn merged(&self, inputs: &[Input], bottom: bool) -> (u16, Vec<Cell>, u64) {
        // Newest first.
        let tables =
            || inputs.iter().flat_map(|input| &input.tables).filter_map(|number| self.tables.get(number));
        let start = tables().map(|table| table.start).min().unwrap_or_default();
        let end =
            tables().map(|table| usize::from(table.start) + table.cells.len()).max().unwrap_or_default();
        let mut cells = vec![(0.0, 0.0); end.saturating_sub(usize::from(start))];
        for table in tables() {
            let from = usize::from(table.start - start);
            for (cell, (puts, deletes)) in cells.iter_mut().skip(from).zip(&table.cells) {
                let rest = 1.0 - cell.0 - cell.1;
                *cell = (cell.0 + rest * puts, cell.1 + rest * deletes);
            }
        }
        if bottom {
            cells.iter_mut().for_each(|cell| cell.1 = 0.0);
        }
        (start, cells, tables().map(|table| self.bytes(&table.cells) as u64).sum())
    }

    /// Cells as tables of about one size, at most `table_bytes` each, parted at the cuts.
    pub(super) fn cut(
        &self,
        start: u16,
        cells: Vec<Cell>,
        cuts: &[OwnedKey],
        table_bytes: u64,
    ) -> Vec<Table> {
        let (mut pieces, mut piece): (Vec<(u16, Vec<Cell>)>, Vec<Cell>) = (Vec::new(), Vec::new());
        let mut cuts = cuts.iter().map(cell_of).filter(|cut| *cut > start).peekable();
        let mut at = start;
        for cell in cells {
            if cuts.next_if(|cut| *cut <= at).is_some() && !piece.is_empty() {
                pieces.push((at, std::mem::take(&mut piece)));
            }
            piece.push(cell);
            at += 1;
        }
        pieces.push((at, piece));

        let mut tables = Vec::new();
        for (end, piece) in pieces {
            let bytes = self.bytes(&piece);
            let mut parts = (bytes / table_bytes.max(1) as f64).ceil().max(1.0);
            let part = bytes / parts;
            let start = end - piece.len() as u16;
            let mut table = Table { start, cells: Vec::new(), seqno_min: 0, seqno_max: 0 };
            let mut filled = 0.0;
            for cell in piece {
                // What is left over by rounding is no table of its own.
                if filled >= part * 0.999 && parts > 1.0 {
                    let start = table.start + table.cells.len() as u16;
                    let next = Table { start, cells: Vec::new(), ..table };
                    tables.push(std::mem::replace(&mut table, next));
                    (filled, parts) = (0.0, parts - 1.0);
                }
                filled += self.cell_bytes(cell);
                table.cells.push(cell);
            }
            tables.push(table);
        }
        tables.retain(|table| self.bytes(&table.cells) >= 1.0);
        tables
    }

    /// Removes tables and adds others, whose sequence numbers are those of the removed ones, or of a flush.
    pub(super) fn install(&mut self, level: u8, removed: Vec<u64>, tables: Vec<Table>) {
        let gone: Vec<Table> = removed.iter().filter_map(|number| self.tables.remove(number)).collect();
        let seqno_min = gone.iter().map(|table| table.seqno_min).min().unwrap_or(self.flushed + 1);
        let seqno_max =
            gone.iter().map(|table| table.seqno_max).max().unwrap_or(self.newest.max(self.flushed + 1));
        let mut metas = Vec::with_capacity(tables.len());
        for table in tables {
            self.number += 1;
            let table = Table { seqno_min, seqno_max, ..table };
            metas.push(self.meta(&table));
            self.tables.insert(self.number, table);
        }
        self.edit(level, removed, metas);
    }

    /// Moves tables as they are.
    pub(super) fn relocate(&mut self, tables: &[u64], level: u8) {
        let of_plan = self.version.tables().filter(|table| tables.contains(&table.number));
        let mut metas: Vec<TableMeta> = of_plan.map(|table| (**table).clone()).collect();
        metas.sort_by(|a, b| a.first.cmp(&b.first));
        self.edit(level, tables.to_vec(), metas);
    }

    fn edit(&mut self, level: u8, removed: Vec<u64>, tables: Vec<TableMeta>) {
        let joined = match level {
            0 => None,
            LAST_LEVEL => self.version.level(level).next().map(|run| run.id()),
            _ => {
                let without = self.applied(&Edit { removed: removed.clone(), ..Edit::default() });
                without.place(level, &tables)
            }
        };
        let run = joined.unwrap_or_else(|| {
            self.number += 1;
            self.number
        });
        let added_runs = if tables.is_empty() { Vec::new() } else { vec![NewRun { level, run, tables }] };
        self.version = self.applied(&Edit { removed, added_runs, ..Edit::default() });
    }

    /// A plan never breaks a rule of the tree; one that did would change nothing.
    fn applied(&self, edit: &Edit) -> Version {
        let after = self.version.apply(edit);
        debug_assert!(after.is_ok(), "{after:?}");
        after.unwrap_or_else(|_| self.version.clone())
    }

    fn meta(&self, table: &Table) -> TableMeta {
        let key = |cell: u16| {
            let trailer = Trailer::new(Seqno(table.seqno_max), Kind::Put);
            OwnedKey::new(InternalKey {
                keyspace: KeyspaceId::DEFAULT,
                user_key: &cell.to_be_bytes(),
                trailer,
            })
        };
        let share =
            |of: fn(&Cell) -> f64| (table.cells.iter().map(of).sum::<f64>() * self.keys_per_cell) as u64;
        let (puts, tombstones) = (share(|cell| cell.0), share(|cell| cell.1));
        TableMeta {
            number: self.number,
            len: (self.bytes(&table.cells) as u64).max(1),
            footer_crc: 0,
            count: (puts + tombstones).max(1),
            tombstones,
            first: key(table.start),
            last: key(table.start + (table.cells.len() as u16).saturating_sub(1)),
            reach: None,
            seqno_min: Seqno(table.seqno_min),
            seqno_max: Seqno(table.seqno_max),
            apart: 0,
        }
    }

    /// By level its bytes, and its runs at the cell that has most; over all levels the mean of the cells, and the most.
    pub(super) fn runs(&self) -> ([LevelShape; LEVEL_COUNT as usize], f64, usize) {
        let mut shapes = [LevelShape::default(); LEVEL_COUNT as usize];
        let mut all = vec![0_usize; usize::from(CELLS)];
        for (level, shape) in (0..).zip(&mut shapes) {
            let mut of_level = vec![0_usize; usize::from(CELLS)];
            for meta in self.version.level(level).flat_map(|run| run.tables()) {
                shape.bytes += meta.len;
                let Some(table) = self.tables.get(&meta.number) else { continue };
                let cells = usize::from(table.start)..usize::from(table.start) + table.cells.len();
                of_level.get_mut(cells).into_iter().flatten().for_each(|runs| *runs += 1);
            }
            shape.runs = of_level.iter().copied().max().unwrap_or_default();
            all.iter_mut().zip(of_level).for_each(|(all, of_level)| *all += of_level);
        }
        let mean = all.iter().sum::<usize>() as f64 / f64::from(CELLS);
        (shapes, mean, all.into_iter().max().unwrap_or_default())
    }
}

/// The cell that a border begins at.
fn cell_of(key: &OwnedKey) -> u16 {
    key.as_ref().user_key.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}
