//! What a step is and works with: a store as bytes under bytes, and the record of its schema. Which steps there are is not
//! known here.
//!
//! Frozen for all schemas, since every syncq has to be able to refuse a store that is too new for it: the key and the form
//! of the schema record ([`SchemaRecord`]).

use std::io;

/// Where the schema record lies.
pub const SCHEMA_KEY: &[u8] = b"\x00schema";

/// One way from a schema to the next.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The schema that the store has afterwards.
    pub number: u32,
    /// What it does, for the log.
    pub name: &'static str,
    /// Does the work. The last of its batches holds [`SchemaRecord::put`] with the step's number. Run again after
    /// being killed anywhere it comes to the same result.
    pub run: fn(store: &dyn RawStore, writer: &str) -> io::Result<()>,
}

/// Is given a key and its value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<()> + 'a;

/// A key with its new value, or with none to remove it.
pub type RawChange = (Vec<u8>, Option<Vec<u8>>);

/// A store as steps see it: bytes under bytes.
pub trait RawStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Calls `visit` with each key that starts with `prefix`, in the order of bytes, and its value.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> io::Result<()>;

    /// Makes all of `changes`, or none, and makes them durable. A large migration applies several batches of at most
    /// [`CHANGES_MAX`] and has to bear being killed between them.
    fn apply(&self, changes: Vec<RawChange>) -> io::Result<()>;
}

/// At most this many changes in one batch, since the engine's memory grows with it.
pub const CHANGES_MAX: usize = 1_000;

/// A store's schema and the version of the syncq that last wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaRecord {
    pub schema: u32,
    pub writer: String,
}

impl SchemaRecord {
    /// The change that stores the record: the number, big-endian, then the version as text, then the CRC-32 of both.
    pub fn put(&self) -> RawChange {
        let mut value = self.schema.to_be_bytes().to_vec();
        value.extend_from_slice(self.writer.as_bytes());
        let sum = crc32fast::hash(&value);
        value.extend_from_slice(&sum.to_be_bytes());
        (SCHEMA_KEY.to_vec(), Some(value))
    }

    /// Reads the record; `None` in a store that was never written.
    pub fn read(store: &dyn RawStore) -> io::Result<Option<Self>> {
        let Some(value) = store.get(SCHEMA_KEY)? else { return Ok(None) };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the schema record is damaged");
        let (body, sum) = value.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
            return Err(damaged());
        }
        let (schema, writer) = body.split_first_chunk::<4>().ok_or_else(damaged)?;
        Ok(Some(Self { schema: u32::from_be_bytes(*schema), writer: String::from_utf8_lossy(writer).into_owned() }))
    }
}
