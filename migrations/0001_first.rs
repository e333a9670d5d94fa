//! Schema 1, the first.
//!
//! ```text
//! 00 "schema"           the schema record, see mod.rs
//! 00 "store_id"         16 bytes that the file `identity` beside the store repeats
//! 00 "next_job_id"      record {number}
//! 00 "commit"           record {number}; raised by every commit
//! 01 target             record {root, destination}
//! 02 target path        record {id, scope, origin, state, generation, queued_at, changed_at, attempts, due_at,
//!                               last_error: {code, message}}
//! ```
//!
//! `target` is a u32, big-endian; `path` is the rest of the key. A record is the CRC-32 (big-endian) of key and rest, a
//! version byte, and a MessagePack map with named fields. A new store is empty but for the schema record.

use super::{RawStore, SchemaRecord, Step};

pub const STEP: Step = Step { number: 1, name: "the first schema", run };

fn run(store: &dyn RawStore, writer: &str) -> std::io::Result<()> {
    store.apply(vec![SchemaRecord { schema: STEP.number, writer: writer.to_owned() }.put()])
}
