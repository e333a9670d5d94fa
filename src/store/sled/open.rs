//! The way from a directory to a usable store, whatever state the directory is in.
//!
//! A ladder, of which each rung is tried when the one before failed for damage: the store as it lies there (without
//! half-written snapshots, over which sled stumbles); the store without anything that sled can make anew from its log; an
//! empty store, with the old one set aside. All records are read on the way, since some damage shows only then. A store
//! that cannot be used for reasons outside it (disk full, no permission), or that is too new, is left alone, and the
//! error is returned.
//!
//! Deliberately not here: any decision what a lost or emptied store means for the mirrors.

use std::path::{Path, PathBuf};

use super::compact;
use super::contents::{self, Keep, Scanned};
use super::disk;
use super::identity::{Identity, StoreId};
use super::key;
use super::layout::{DAMAGED_PREFIX, Layout, SCHEMA_PREFIX};
use super::migrations::{self, SchemaRecord, Step};
use super::tree::{Tree, Trouble};
use crate::model::Timestamp;
use crate::store::StoreError;

/// The version that is stored as a store's writer.
pub(super) const WRITER: &str = env!("CARGO_PKG_VERSION");

/// Why a store starts empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreshReason {
    /// There was no store, or none that ever held a target.
    New,
    /// The store that was there could not be used and is kept at `path`.
    SetAside { path: PathBuf, reason: String },
    /// The files of the store that belongs here are gone.
    Emptied,
}

/// What to do when nothing of the store can be used.
#[derive(Debug, Clone, Copy)]
pub enum Otherwise {
    /// Start an empty store; the old one is kept under a name with this time.
    StartAnew(Timestamp),
    /// Report the damage.
    Refuse,
}

/// A store that can be used.
#[derive(Debug)]
pub struct Usable {
    pub tree: Tree,
    pub scanned: Scanned,
    pub identity: Identity,
    pub fresh: Option<FreshReason>,
    pub recovered: bool,
    pub rolled_back: bool,
}

/// The ways in which a rung of the ladder ends without a store.
enum Rung {
    /// Damage that the next rung may get around.
    Damaged(String),
    /// The store is whole, but another one belongs here.
    Foreign(String),
    /// The store opened without anything in it, although there was one.
    Empty {
        tree: Tree,
    },
    Final(StoreError),
}

/// Opens the store under the state directory of `layout`, whose lock the caller holds. `acknowledged` is the last commit
/// that is known to have been durable.
pub fn open(layout: &Layout, acknowledged: u64, otherwise: Otherwise, steps: &[Step]) -> Result<Usable, StoreError> {
    let known = Identity::read(&layout.identity).map_err(|source| layout.directory(source))?;
    if let Some(known) = &known {
        refuse_newer(layout, known.schema, &known.writer, steps)?;
    }
    compact::finish_swap(layout).map_err(|source| layout.directory(source))?;
    disk::remove_half_written(&layout.store).map_err(|source| layout.directory(source))?;

    let mut recovered = false;
    let reason = loop {
        let bytes_before = std::fs::metadata(layout.store.join(disk::DB)).map_or(0, |metadata| metadata.len());
        match as_it_is(layout, known.as_ref(), otherwise, steps) {
            Ok((tree, scanned, identity)) => {
                // A store in which no target was ever stored counts as new, even if it was created by a syncq that died.
                let fresh = scanned.contents.targets.is_empty().then_some(FreshReason::New);
                let rolled_back = scanned.commit < acknowledged;
                // Without its snapshot a log that is damaged near its start opens as if it ended there: this happened all
                // 56 of 56 times that a flipped bit kept a store from opening. An empty store is better than one of last
                // month.
                if rolled_back && recovered {
                    break "its latest commits are gone".into();
                }
                return Ok(Usable { tree, scanned, identity, fresh, recovered, rolled_back });
            }
            Err(Rung::Final(error)) => return Err(error),
            Err(Rung::Foreign(reason)) => break reason,
            Err(Rung::Empty { tree }) => {
                if let Otherwise::Refuse = otherwise {
                    return Err(layout.damaged("it has been emptied".into()));
                }
                if bytes_before > 0 {
                    drop(tree);
                    break "nothing in it could be read".into();
                }
                let (scanned, identity) = initialise(layout, &tree, steps)?;
                let fresh = Some(FreshReason::Emptied);
                return Ok(Usable { tree, scanned, identity, fresh, recovered, rolled_back: false });
            }
            Err(Rung::Damaged(reason)) => {
                log::warn!("the store in {} is damaged: {reason}", layout.dir.display());
                if recovered || !disk::remove_derived(&layout.store).map_err(|source| layout.directory(source))? {
                    break reason;
                }
                recovered = true;
            }
        }
    };
    match otherwise {
        Otherwise::StartAnew(now) => start_anew(layout, now, reason, steps),
        Otherwise::Refuse => Err(layout.damaged(reason)),
    }
}

/// Opens the tree of a store that was in use a moment ago, after a failed commit.
pub fn reopen(layout: &Layout, identity: &Identity, acknowledged: u64) -> Result<Tree, StoreError> {
    compact::finish_swap(layout).map_err(|source| StoreError::Write { source })?;
    take_up(layout, identity, acknowledged)
}

/// Opens the tree that lies in the place of the store and makes sure that it belongs to the store that was in use.
pub fn take_up(layout: &Layout, identity: &Identity, acknowledged: u64) -> Result<Tree, StoreError> {
    let write = |source| StoreError::Write { source };
    disk::forget_cached(&layout.store);
    disk::remove_half_written(&layout.store).map_err(write)?;
    let tree = match Tree::open(&layout.store) {
        Err(Trouble::Damage(reason)) => {
            log::warn!("the store in {} is damaged: {reason}", layout.dir.display());
            disk::remove_derived(&layout.store).map_err(write)?;
            Tree::open(&layout.store)
        }
        other => other,
    };
    let tree = tree.map_err(|trouble| match trouble {
        Trouble::Damage(reason) => layout.damaged(reason),
        Trouble::Outside(source) => write(source),
    })?;
    let id = store_id(&tree).map_err(|trouble| write(trouble.into()))?;
    if id != Some(identity.id) {
        return Err(layout.damaged("it was emptied or exchanged while in use".into()));
    }
    // Nobody knows whether the failed commit is there, so one commit more is fine.
    let last = contents::last_commit(&tree).map_err(|trouble| write(trouble.into()))?;
    if last < acknowledged {
        return Err(layout.damaged("acknowledged commits are gone".into()));
    }
    Ok(tree)
}

/// The first rungs: everything that leaves the store what it is.
fn as_it_is(
    layout: &Layout,
    known: Option<&Identity>,
    otherwise: Otherwise,
    steps: &[Step],
) -> Result<(Tree, Scanned, Identity), Rung> {
    let rung = |trouble| match trouble {
        Trouble::Damage(reason) => Rung::Damaged(reason),
        Trouble::Outside(source) => Rung::Final(layout.directory(source)),
    };
    let tree = Tree::open(&layout.store).map_err(rung)?;
    let schema = SchemaRecord::read(&tree).map_err(|error| rung(error.into()))?;
    let id = store_id(&tree).map_err(rung)?;
    let Some(schema) = schema else {
        if contents::holds_records(&tree).map_err(rung)? {
            return Err(Rung::Damaged("it has records but no schema".into()));
        }
        if known.is_some() {
            return Err(Rung::Empty { tree });
        }
        let (scanned, identity) = initialise(layout, &tree, steps).map_err(Rung::Final)?;
        return Ok((tree, scanned, identity));
    };
    refuse_newer(layout, schema.schema, &schema.writer, steps).map_err(Rung::Final)?;
    if let (Some(known), Some(id)) = (known, id)
        && known.id != id
    {
        return Err(Rung::Foreign("it is not the store that belongs here".into()));
    }

    let tree = if schema.schema < newest(steps) {
        // Everything is read first: damage is for the next rung, not for the migration.
        let holds_records = contents::holds_records(&tree).map_err(rung)?;
        migrate(layout, tree, schema.schema, holds_records, otherwise, steps).map_err(Rung::Final)?
    } else {
        tree
    };
    // A daemon is about to load all records; a command may want to know no more than what is there.
    let keep = match otherwise {
        Otherwise::StartAnew(_) => Keep::All,
        Otherwise::Refuse => Keep::Outline,
    };
    let scanned = contents::scan(&tree, keep).map_err(rung)?;
    let id = id.or(known.map(|known| known.id)).unwrap_or_else(StoreId::random);
    let clean = known.is_some_and(|known| known.clean);
    let identity = sign(layout, &tree, id, clean, steps).map_err(Rung::Final)?;
    Ok((tree, scanned, identity))
}

/// Starts an empty store in the place of one that was in use and is of no more use. The first store that is found there
/// is kept. Further ones are removed: they may be unfinished successors, tried again every second on a full disk.
pub fn replace(layout: &Layout) -> Result<(Tree, Identity), StoreError> {
    let set_up = || {
        disk::remove_dir(&layout.compact)?;
        disk::remove_dir(&layout.old)?;
        let holds = |dir: &Path| std::fs::metadata(dir.join(disk::DB)).is_ok_and(|metadata| metadata.len() > 0);
        let aside = layout.place().join(format!("{DAMAGED_PREFIX}in-use"));
        if !holds(&layout.store) || aside.exists() {
            return disk::remove_dir(&layout.store);
        }
        log::error!("what lies in the place of the store is set aside as {}", aside.display());
        disk::rename(&layout.store, &aside)
    };
    set_up().map_err(|source| layout.directory(source))?;
    let tree = Tree::open(&layout.store).map_err(|trouble| layout.directory(trouble.into()))?;
    let (_, identity) = initialise(layout, &tree, migrations::STEPS)?;
    Ok((tree, identity))
}

/// The last rung. If not even an empty store can be created, the old one is put back.
fn start_anew(layout: &Layout, now: Timestamp, reason: String, steps: &[Step]) -> Result<Usable, StoreError> {
    let aside = free_name(layout.place(), &format!("{DAMAGED_PREFIX}{}", file_time(now)));
    disk::rename(&layout.store, &aside).map_err(|source| layout.directory(source))?;
    log::error!("the store is set aside as {} and a new one started: {reason}", aside.display());
    let started = Tree::open(&layout.store)
        .map_err(|trouble| layout.directory(trouble.into()))
        .and_then(|tree| initialise(layout, &tree, steps).map(|(scanned, identity)| (tree, scanned, identity)));
    match started {
        Ok((tree, scanned, identity)) => {
            let fresh = Some(FreshReason::SetAside { path: aside, reason });
            Ok(Usable { tree, scanned, identity, fresh, recovered: false, rolled_back: false })
        }
        Err(error) => {
            let put_back = disk::remove_dir(&layout.store).and_then(|()| disk::rename(&aside, &layout.store));
            if let Err(error) = put_back {
                log::error!("cannot put {} back: {error}", aside.display());
            }
            Err(error)
        }
    }
}

/// Makes a store of an empty tree.
fn initialise(layout: &Layout, tree: &Tree, steps: &[Step]) -> Result<(Scanned, Identity), StoreError> {
    migrations::migrate(tree, steps, WRITER).map_err(|source| StoreError::Write { source })?;
    let identity = sign(layout, tree, StoreId::random(), true, steps)?;
    Ok((Scanned::default(), identity))
}

/// Brings an older store to the present schema, after copying it if it holds anything.
fn migrate(
    layout: &Layout,
    tree: Tree,
    from: u32,
    holds_records: bool,
    otherwise: Otherwise,
    steps: &[Step],
) -> Result<Tree, StoreError> {
    let failed = |source| StoreError::Migration { dir: layout.dir.clone(), from, to: newest(steps), source };
    let tree = if holds_records {
        // sled writes when it closes, so the copy is made of a closed store.
        drop(tree);
        let time = match otherwise {
            Otherwise::StartAnew(now) => format!("-{}", file_time(now)),
            Otherwise::Refuse => String::new(),
        };
        let copy = free_name(layout.place(), &format!("{SCHEMA_PREFIX}{from}{time}"));
        disk::copy_dir(&layout.store, &copy).map_err(failed)?;
        log::info!("the store of schema {from} is kept as {}", copy.display());
        Tree::open(&layout.store).map_err(|trouble| failed(trouble.into()))?
    } else {
        tree
    };
    migrations::migrate(&tree, steps, WRITER).map_err(failed)?;
    Ok(tree)
}

/// Writes into the tree and beside it that the two belong together, and which version uses them. The mark of an orderly
/// close is removed; the next such close sets it again. `clean` only goes into the identity that is returned.
fn sign(layout: &Layout, tree: &Tree, id: StoreId, clean: bool, steps: &[Step]) -> Result<Identity, StoreError> {
    let schema = SchemaRecord { schema: newest(steps), writer: WRITER.to_owned() };
    let changes = vec![schema.put(), (key::STORE_ID.to_vec(), Some(id.0.to_vec()))];
    tree.write(changes).map_err(|trouble| StoreError::Write { source: trouble.into() })?;
    let identity = Identity { id, schema: schema.schema, writer: schema.writer, clean };
    let marked = Identity { clean: false, ..identity.clone() };
    marked.write(&layout.identity).map_err(|source| layout.directory(source))?;
    Ok(identity)
}

fn store_id(tree: &Tree) -> Result<Option<StoreId>, Trouble> {
    let value = tree.read(key::STORE_ID)?;
    Ok(value.and_then(|bytes| bytes.try_into().ok()).map(StoreId))
}

fn refuse_newer(layout: &Layout, found: u32, writer: &str, steps: &[Step]) -> Result<(), StoreError> {
    let supported = newest(steps);
    if found <= supported {
        return Ok(());
    }
    let writer = writer.to_owned();
    Err(StoreError::NewerSchema { dir: layout.dir.clone(), found, supported, writer, ours: WRITER })
}

fn newest(steps: &[Step]) -> u32 {
    steps.last().map_or(0, |step| step.number)
}

/// `name` in `dir`, with a number behind it if the name is taken.
fn free_name(dir: &Path, name: &str) -> PathBuf {
    let plain = dir.join(name);
    if !plain.exists() {
        return plain;
    }
    (2_u32..).map(|n| dir.join(format!("{name}-{n}"))).find(|path| !path.exists()).unwrap_or(plain)
}

/// A time for a file's name: rsync and scp would take a colon for the end of a host.
fn file_time(time: Timestamp) -> String {
    time.to_string().replace(':', "")
}
