//! Edits as bytes: fields behind one another, each with its tag and length. See `docs/format/manifest.md`.
//!
//! What is decoded is as long as the bytes say, and never longer than they are. Threading: pure functions.

use pebble_format::limits::KEY_LEN_MAX;
use pebble_format::log::LogPosition;
use pebble_format::manifest::{
    FIELD_HEADER_LEN, FieldHeader, KeyspaceField, MANIFEST_ALIGN, RunField, TABLE_HAS_REACH, TABLE_REFERS,
    TableField, Tag,
};
use pebble_format::{Corruption, Error, InternalKey, KeyspaceId, OwnedKey, Result, Seqno, Trailer};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::edit::{Edit, NewRun};
use crate::table::TableMeta;

/// The fields of `edit`. Errors: `InvalidArgument` when a part is longer than its length field can say.
pub(crate) fn encode(edit: &Edit) -> Result<Vec<u8>> {
    let mut to = Vec::new();
    if let Some(number) = edit.next_file {
        field(&mut to, Tag::NextFile, &[&number.to_le_bytes()])?;
    }
    if let Some(segment) = edit.log_first {
        field(&mut to, Tag::LogFirst, &[&segment.to_le_bytes()])?;
    }
    if let Some(position) = edit.log_floor {
        field(&mut to, Tag::LogFloor, &[&position.0.to_le_bytes()])?;
    }
    if let Some(seqno) = edit.flushed_seqno {
        field(&mut to, Tag::FlushedSeqno, &[&seqno.0.to_le_bytes()])?;
    }
    for id in &edit.dropped_keyspaces {
        field(&mut to, Tag::DroppedKeyspace, &[keyspace_field(*id).as_bytes()])?;
    }
    for (id, name) in &edit.keyspaces {
        field(&mut to, Tag::Keyspace, &[keyspace_field(*id).as_bytes(), name.as_bytes()])?;
    }
    for number in &edit.removed {
        field(&mut to, Tag::RemovedTable, &[&number.to_le_bytes()])?;
    }
    for table in &edit.added_values {
        encode_table(&mut to, Tag::ValueTable, table)?;
    }
    for run in &edit.added_runs {
        encode_run(&mut to, run)?;
    }
    Ok(to)
}

fn keyspace_field(id: KeyspaceId) -> KeyspaceField {
    KeyspaceField { id: id.0.into(), reserved: 0.into() }
}

fn encode_run(to: &mut Vec<u8>, run: &NewRun) -> Result<()> {
    let tables = u32::try_from(run.tables.len()).map_err(|_| Error::invalid("too many tables in a run"))?;
    let head = RunField { run: run.run.into(), tables: tables.into(), level: run.level, reserved: [0; 3] };
    field(to, Tag::Run, &[head.as_bytes()])?;
    run.tables.iter().try_for_each(|table| encode_table(to, Tag::Table, table))
}

fn encode_table(to: &mut Vec<u8>, tag: Tag, table: &TableMeta) -> Result<()> {
    let (first, last) = (table.first.as_ref(), table.last.as_ref());
    let reach = table.reach.as_deref();
    let body = TableField {
        number: table.number.into(),
        len: table.len.into(),
        count: table.count.into(),
        tombstones: table.tombstones.into(),
        seqno_min: table.seqno_min.0.into(),
        seqno_max: table.seqno_max.0.into(),
        first_trailer: first.trailer.0.into(),
        last_trailer: last.trailer.0.into(),
        footer_crc: table.footer_crc.into(),
        first_keyspace: first.keyspace.0.into(),
        last_keyspace: last.keyspace.0.into(),
        first_len: key_len(first.user_key)?.into(),
        last_len: key_len(last.user_key)?.into(),
        reach_len: key_len(reach.unwrap_or_default())?.into(),
        flags: (reach.map_or(0, |_| TABLE_HAS_REACH) | if table.apart > 0 { TABLE_REFERS } else { 0 }).into(),
    };
    let apart = table.apart.to_le_bytes();
    let apart = if table.apart > 0 { &apart[..] } else { &[] };
    field(to, tag, &[body.as_bytes(), first.user_key, last.user_key, reach.unwrap_or_default(), apart])
}

fn key_len(user_key: &[u8]) -> Result<u16> {
    let len = user_key.len();
    u16::try_from(len).map_err(|_| Error::invalid(format!("key of {len} bytes; at most {KEY_LEN_MAX}")))
}

fn field(to: &mut Vec<u8>, tag: Tag, parts: &[&[u8]]) -> Result<()> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).map_err(|_| Error::invalid("a field of an edit is too long"))?;
    let header = FieldHeader { tag: (tag as u16).into(), reserved: 0.into(), len: len.into() };
    to.extend_from_slice(header.as_bytes());
    for part in parts {
        to.extend_from_slice(part);
    }
    to.resize(to.len().next_multiple_of(MANIFEST_ALIGN), 0);
    Ok(())
}

/// The edit that `bytes` hold. Offsets in the error are relative to them.
pub(crate) fn decode(bytes: &[u8]) -> Result<Edit, Corruption> {
    let mut edit = Edit::default();
    let mut fields = Fields { bytes, offset: 0 };
    while let Some(field) = fields.next()? {
        match field.tag {
            Tag::NextFile => once(&mut edit.next_file, field.whole::<U64>()?.get(), &field)?,
            Tag::LogFirst => once(&mut edit.log_first, field.whole::<U32>()?.get(), &field)?,
            Tag::LogFloor => once(&mut edit.log_floor, LogPosition(field.whole::<U64>()?.get()), &field)?,
            Tag::FlushedSeqno => once(&mut edit.flushed_seqno, Seqno(field.whole::<U64>()?.get()), &field)?,
            Tag::Keyspace => {
                let (id, name) = field.keyspace()?;
                let name = std::str::from_utf8(name).map_err(|error| {
                    Corruption::new(
                        "keyspace name",
                        field.offset,
                        name.len() as u64,
                        error.valid_up_to() as u64,
                    )
                })?;
                edit.keyspaces.push((id, name.into()));
            }
            Tag::DroppedKeyspace => {
                let (id, rest) = field.keyspace()?;
                field.end(rest)?;
                edit.dropped_keyspaces.push(id);
            }
            Tag::RemovedTable => edit.removed.push(field.whole::<U64>()?.get()),
            Tag::Run => {
                let run = decode_run(&mut fields, &field)?;
                edit.added_runs.push(run);
            }
            Tag::ValueTable => edit.added_values.push(decode_table(&field)?),
            Tag::Table => return Err(field.damaged("table outside a run", 0, 1)),
        }
    }
    Ok(edit)
}

fn decode_run(fields: &mut Fields<'_>, field: &Field<'_>) -> Result<NewRun, Corruption> {
    let head = field.whole::<RunField>()?;
    field.zero(head.reserved == [0; 3])?;
    let mut run = NewRun { level: head.level, run: head.run.get(), tables: Vec::new() };
    for index in 0..head.tables.get() {
        match fields.next()? {
            Some(field) if field.tag == Tag::Table => run.tables.push(decode_table(&field)?),
            _ => {
                return Err(field.damaged("tables of a run", u64::from(head.tables.get()), u64::from(index)));
            }
        }
    }
    Ok(run)
}

fn decode_table(field: &Field<'_>) -> Result<TableMeta, Corruption> {
    let (body, rest) = field.split::<TableField>()?;
    let flags = body.flags.get();
    let (keys, apart) = match flags & TABLE_REFERS {
        0 => (rest, 0),
        _ => match rest.split_last_chunk() {
            Some((keys, apart)) => (keys, u64::from_le_bytes(*apart)),
            None => return Err(field.damaged("bytes of values of a table", 8, rest.len() as u64)),
        },
    };
    if flags & TABLE_REFERS != 0 && apart == 0 {
        return Err(field.damaged("bytes of values of a table", 1, 0));
    }
    let lens = [body.first_len, body.last_len, body.reach_len].map(|len| usize::from(len.get()));
    let [first_len, last_len, reach_len] = lens;
    let keys_len = first_len + last_len + reach_len;
    let parts = keys.split_at_checked(first_len).filter(|_| keys.len() == keys_len);
    let parts = parts.and_then(|(first, rest)| Some((first, rest.split_at_checked(last_len)?)));
    let Some((first, (last, reach))) = parts else {
        return Err(field.damaged("keys of a table", keys_len as u64, keys.len() as u64));
    };
    let has_reach = match flags & !TABLE_REFERS {
        0 if reach.is_empty() => false,
        TABLE_HAS_REACH => true,
        _ => return Err(field.damaged("flags of a table", u64::from(TABLE_HAS_REACH), u64::from(flags))),
    };
    let key = |keyspace: u16, user_key, trailer| {
        OwnedKey::new(InternalKey { keyspace: KeyspaceId(keyspace), user_key, trailer: Trailer(trailer) })
    };
    Ok(TableMeta {
        number: body.number.get(),
        len: body.len.get(),
        footer_crc: body.footer_crc.get(),
        count: body.count.get(),
        tombstones: body.tombstones.get(),
        first: key(body.first_keyspace.get(), first, body.first_trailer.get()),
        last: key(body.last_keyspace.get(), last, body.last_trailer.get()),
        reach: has_reach.then(|| reach.into()),
        seqno_min: Seqno(body.seqno_min.get()),
        seqno_max: Seqno(body.seqno_max.get()),
        apart,
    })
}

fn once<T>(to: &mut Option<T>, value: T, field: &Field<'_>) -> Result<(), Corruption> {
    if to.replace(value).is_some() {
        return Err(field.damaged("field given twice", 1, 2));
    }
    Ok(())
}

/// Reads fields one after another.
struct Fields<'a> {
    bytes: &'a [u8],
    offset: usize,
}

struct Field<'a> {
    offset: u64,
    tag: Tag,
    body: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<Field<'a>>, Corruption> {
        let offset = self.offset as u64;
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let damaged = |what, expected: usize, got: usize| {
            Err(Corruption::new(what, offset, expected as u64, got as u64))
        };
        let Ok((header, body)) = FieldHeader::ref_from_prefix(rest) else {
            return damaged("field header", FIELD_HEADER_LEN, rest.len());
        };
        let len = usize::try_from(header.len.get()).unwrap_or(usize::MAX);
        let padded = len.checked_next_multiple_of(MANIFEST_ALIGN).unwrap_or(usize::MAX);
        let Some((body, padding)) = body.get(..padded).and_then(|body| body.split_at_checked(len)) else {
            return damaged("field length", body.len(), len);
        };
        let Some(tag) = Tag::from_u16(header.tag.get()) else {
            return damaged("field tag", usize::from(Tag::ValueTable as u16), usize::from(header.tag.get()));
        };
        self.offset += FIELD_HEADER_LEN + padded;
        let field = Field { offset, tag, body };
        field.zero(header.reserved.get() == 0 && padding.iter().all(|byte| *byte == 0))?;
        Ok(Some(field))
    }
}

impl<'a> Field<'a> {
    fn damaged(&self, what: &'static str, expected: u64, got: u64) -> Corruption {
        Corruption::new(what, self.offset, expected, got)
    }

    /// Fails unless bytes that must be zero are.
    fn zero(&self, is_zero: bool) -> Result<(), Corruption> {
        if is_zero { Ok(()) } else { Err(self.damaged("reserved bytes", 0, 1)) }
    }

    /// Fails unless nothing is left of the body.
    fn end(&self, rest: &[u8]) -> Result<(), Corruption> {
        if rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("length of a field's body", 0, rest.len() as u64))
        }
    }

    fn split<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        &self,
    ) -> Result<(&'a T, &'a [u8]), Corruption> {
        T::ref_from_prefix(self.body).map_err(|_| {
            self.damaged("length of a field's body", size_of::<T>() as u64, self.body.len() as u64)
        })
    }

    fn whole<T: FromBytes + Immutable + KnownLayout + Unaligned>(&self) -> Result<&'a T, Corruption> {
        let (body, rest) = self.split()?;
        self.end(rest)?;
        Ok(body)
    }

    fn keyspace(&self) -> Result<(KeyspaceId, &'a [u8]), Corruption> {
        let (body, name) = self.split::<KeyspaceField>()?;
        self.zero(body.reserved.get() == 0)?;
        Ok((KeyspaceId(body.id.get()), name))
    }
}
