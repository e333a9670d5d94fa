//! One number for all that a target's content depends on beside the source. The store keeps it with the watermark. If the
//! number has changed at the next start, the target is compared in full.
//!
//! The number has to be the same for every build of syncq. So its bytes are written here one by one, and not by a derived
//! `Hash`, which may change with the compiler. A changed golden value in the test below means that all targets of all
//! installations are compared in full after an upgrade.

use std::os::unix::ffi::OsStrExt;

use crate::model::{EventSwitches, Root, Target, TargetId};

/// A target, with the fingerprint of everything but the source that its content depends on.
pub type Fingerprint = (TargetId, u64);

/// The fingerprint of a target of `root`.
pub fn fingerprint(root: &Root, target: &Target) -> u64 {
    let mut fields = Fields::default();
    let EventSwitches { delete, create_folder, create_file, close_write, move_from, move_to, attrib, modify } =
        root.events;
    fields.list(root.excludes.iter().map(String::as_bytes));
    fields.switches(&[root.legacy_hidden]);
    fields.switches(&[delete, create_folder, create_file, close_write, move_from, move_to, attrib, modify]);
    fields.list(target.options.params.iter().map(|word| word.as_bytes()));
    fields.switches(&[target.options.delete]);
    // Another port may lead to another server.
    fields.list(target.options.port.map(u16::to_be_bytes).iter().map(<[u8; 2]>::as_slice));
    fields.number()
}

/// The fields as bytes, written so that different fields never give the same bytes.
#[derive(Debug, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.length(items.len());
        for item in items {
            self.length(item.len());
            self.0.extend(item);
        }
    }

    fn switches(&mut self, switches: &[bool]) {
        self.0.extend(switches.iter().map(|&on| u8::from(on)));
    }

    fn length(&mut self, length: usize) {
        self.0.extend((length as u64).to_be_bytes());
    }

    /// The number of bytes in the upper half, their checksum in the lower half.
    fn number(&self) -> u64 {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        u64::from(length) << 32 | u64::from(crc32fast::hash(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::{Destination, Params, TransferOptions};

    fn root(excludes: &[&str]) -> Root {
        Root {
            path: PathBuf::from("/data"),
            targets: Vec::new(),
            events: EventSwitches::default(),
            excludes: excludes.iter().map(|exclude| (*exclude).to_owned()).collect(),
            legacy_hidden: false,
            schedule: None,
        }
    }

    fn target(options: TransferOptions) -> Target {
        let destination = Destination::Daemon { host: "host".to_owned(), module: "www".into() };
        Target { destination, options }
    }

    /// The fingerprint came from the compiler's hasher, whose results another release may change. Each target would then have
    /// been compared in full after an upgrade.
    #[test]
    fn it_is_the_same_for_every_build() {
        let options = TransferOptions { port: Some(874), ..TransferOptions::default() };
        assert_eq!(fingerprint(&root(&["(.*)\\.tmp$"]), &target(options)), 323_415_207_811);
    }

    #[test]
    fn whatever_changes_what_the_target_should_hold_changes_it() {
        let usual = root(&["a", "b"]);
        let options = TransferOptions::default;
        let mut events = root(&["a", "b"]);
        events.events.attrib = true;
        let mut hidden = root(&["a", "b"]);
        hidden.legacy_hidden = true;
        let params = |params: &str| TransferOptions { params: Params::from_iter(params.split(' ')), ..options() };
        let all = [
            fingerprint(&usual, &target(options())),
            fingerprint(&root(&["ab"]), &target(options())),
            fingerprint(&root(&["a"]), &target(params("b -artz"))),
            fingerprint(&events, &target(options())),
            fingerprint(&hidden, &target(options())),
            fingerprint(&usual, &target(params("-artz -H"))),
            fingerprint(&usual, &target(TransferOptions { delete: false, ..options() })),
            fingerprint(&usual, &target(TransferOptions { port: Some(874), ..options() })),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
        let other_times = TransferOptions { timeout: Some(std::time::Duration::from_secs(9)), ..options() };
        assert_eq!(fingerprint(&usual, &target(other_times)), all[0]);
    }
}
