//! The steps that bring a store of an older schema to the present one, in their order.
//!
//! Each step is one numbered file, compiled into the program, working on bytes through [`RawStore`]: neither the engine
//! below nor the records of today are known here. `README.md` has the rules. Frozen for all schemas, since every
//! syncq has to be able to refuse a store that is too new for it: the key and the form of the schema record
//! ([`SchemaRecord`]).

#[path = "0001_first.rs"]
mod m0001_first;
#[path = "0002_roots.rs"]
mod m0002_roots;

use std::io;

/// The schema that this program reads and writes: the number of the last step.
pub const SCHEMA: u32 = 2;

/// All steps, in the order of their numbers.
pub const STEPS: &[Step] = &[m0001_first::STEP, m0002_roots::STEP];

const _: () = assert!(STEPS.len() == SCHEMA as usize, "one step per schema");

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

/// Runs each of `steps` above the store's schema and returns how many that were.
pub fn migrate(store: &dyn RawStore, steps: &[Step], writer: &str) -> io::Result<usize> {
    let from = SchemaRecord::read(store)?.map_or(0, |record| record.schema);
    let mut ran = 0;
    for step in steps.iter().filter(|step| step.number > from) {
        (step.run)(store, writer)?;
        log::debug!("store schema {}: {}", step.number, step.name);
        ran += 1;
    }
    Ok(ran)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    /// A store for the tests of the steps.
    #[derive(Debug, Default)]
    pub(super) struct Memory(pub RefCell<BTreeMap<Vec<u8>, Vec<u8>>>);

    impl RawStore for Memory {
        fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.borrow().get(key).cloned())
        }

        fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
            self.0
                .borrow()
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .try_for_each(|(key, value)| visit(key, value))
        }

        fn apply(&self, changes: Vec<RawChange>) -> io::Result<()> {
            for (key, value) in changes {
                match value {
                    Some(value) => self.0.borrow_mut().insert(key, value),
                    None => self.0.borrow_mut().remove(&key),
                };
            }
            Ok(())
        }
    }

    #[test]
    fn steps_are_numbered_without_gaps_up_to_the_schema() {
        let numbers: Vec<_> = STEPS.iter().map(|step| step.number).collect();
        assert_eq!(numbers, (1..=SCHEMA).collect::<Vec<_>>());
    }

    #[test]
    fn every_step_leaves_its_number_and_may_run_twice() {
        let store = Memory::default();
        for step in STEPS {
            (step.run)(&store, "0.1.0").expect("memory does not fail");
            let once = store.0.borrow().clone();
            (step.run)(&store, "0.1.0").expect("memory does not fail");
            assert_eq!(*store.0.borrow(), once, "step {} is not idempotent", step.number);
            let record = SchemaRecord::read(&store).expect("readable").expect("there");
            assert_eq!(record, SchemaRecord { schema: step.number, writer: "0.1.0".into() });
        }
        assert_eq!(migrate(&store, STEPS, "0.1.0").expect("memory does not fail"), 0);
    }

    #[test]
    fn the_schema_record_never_changes_its_form() {
        let (key, value) = SchemaRecord { schema: 1, writer: "0.1.0".into() }.put();
        assert_eq!(key, b"\x00schema");
        assert_eq!(value.as_deref(), Some(&b"\0\0\0\x010.1.0\xc4\xee\x11\xa7"[..]));
    }

    #[test]
    fn a_damaged_schema_record_is_an_error() {
        let (key, value) = SchemaRecord { schema: 1, writer: "0.1.0".into() }.put();
        let mut value = value.expect("a value");
        value[3] ^= 2;
        let store = Memory(RefCell::new([(key, value)].into()));
        assert!(SchemaRecord::read(&store).is_err());
    }
}
