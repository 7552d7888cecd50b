//! A sorted run of tables as the children of a [`Concat`](pebble_cursor::Concat).
//!
//! Threading: plain data, shared.

use std::sync::Arc;

use pebble_cursor::Source;
use pebble_format::{InternalKey, Result};

use crate::cursor::TableCursor;
use crate::table::Table;

/// Tables in ascending order, without overlap: read side by side by `Concat::new(TableRun(tables))`.
#[derive(Clone, Debug)]
pub struct TableRun(pub Arc<[Arc<Table>]>);

impl Source for TableRun {
    type Cursor = TableCursor;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn first_key(&self, index: usize) -> InternalKey<'_> {
        self.0[index].first().as_ref()
    }

    fn last_key(&self, index: usize) -> InternalKey<'_> {
        self.0[index].last().as_ref()
    }

    fn prefetch(&self, index: usize, target: InternalKey<'_>) {
        self.0[index].prefetch_seek(target);
    }

    fn open(&self, index: usize) -> Result<TableCursor> {
        Ok(self.0[index].cursor())
    }
}
