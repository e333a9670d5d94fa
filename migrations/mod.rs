//! The steps that bring a store of an older schema to the present one, in their order.
//!
//! Each step is one numbered file, compiled into the program, working on bytes through [`RawStore`]: neither the engine
//! below nor the records of today are known here. `README.md` has the rules, and `step` what a step is.

#[path = "0001_first.rs"]
mod m0001_first;
#[path = "0002_roots.rs"]
mod m0002_roots;
mod step;

use std::io;

pub use step::{CHANGES_MAX, RawChange, RawStore, SchemaRecord, Step, Visit};

/// The schema that this program reads and writes: the number of the last step.
pub const SCHEMA: u32 = 2;

/// All steps, in the order of their numbers.
pub const STEPS: &[Step] = &[m0001_first::STEP, m0002_roots::STEP];

const _: () = assert!(STEPS.len() == SCHEMA as usize, "one step per schema");

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
