//! Waiting until everything that changed before a moment is on the targets.
//!
//! First the watcher of each root passes on all that has happened up to the moment of asking (its barrier). Then the newest
//! change of each target has a number. The wait is over when no job stands for that number or an older one. Later changes are
//! not waited for, so that a tree that never rests does not keep a wait from ending. A root whose changes are not all seen
//! (suspended, still being walked) does keep the wait from ending: better late than wrong.
//!
//! A name is refused if it is not in the source, has no job and is not known to have existed. Such a name is probably misspelt,
//! and a wait for it would succeed at once. A path that is left out is refused as well. Only behind the barrier is it certain
//! whether a path is there or left out.
//!
//! Content that a large target held unvouched is not waited for. The comparison by content may take days, and no change is late
//! because of it. The answer names such targets.
//!
//! Data sent by a run that was cut off may still be on its way, and may overwrite data that was sent later. So the paths
//! concerned keep their jobs until the outcome is known, or an overwrite has become most unlikely. A wait does not end before.
//!
//! A job that an operator purges is no longer waited for. A target that a reload removes from the configuration is still waited
//! for: its pending changes have not arrived, and may still arrive if the target comes back.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TryRecvError};

use crate::control::{JobRow, Missing, Refusal, Wait, Waiting};
use crate::model::{RelPath, Timestamp};
use crate::queue::Queue;

use super::explain;
use crate::daemon::active_config::{ActiveConfig, Core};
use crate::daemon::named_target::NamedTarget;

const LEFT: &str = "it is no longer configured";

/// Jobs named for each target.
const JOBS_SHOWN: usize = 3;

/// The wait of one client.
pub(super) struct Mirrored {
    pub core: Arc<Core>,
    pub roots: Vec<RootWait>,
    /// The number of targets of each root that have to be equal; `None` for all.
    pub needed: Option<usize>,
}

/// The part of a wait that concerns one root.
pub(super) struct RootWait {
    pub root: PathBuf,
    /// If given, only this path and everything below it.
    pub path: Option<RelPath>,
    pub targets: Vec<NamedTarget>,
    pub stage: Stage,
}

#[derive(Default)]
pub(crate) enum Stage {
    #[default]
    Begun,
    /// The watcher was asked for a barrier.
    Asked(Receiver<()>),
    /// The watcher has reached the barrier. Holds the number of each target's newest change at that moment.
    Reached(Vec<u64>),
}

/// Why the targets cannot be judged yet.
enum Held {
    Waits(String),
    /// The wait is refused.
    Refused(Refusal),
}

impl From<String> for Held {
    fn from(reason: String) -> Self {
        Self::Waits(reason)
    }
}

impl Wait for Mirrored {
    fn look(&mut self) -> Result<Waiting, Refusal> {
        let (mut missing, mut arrived) = (Vec::new(), Vec::new());
        let active = self.core.current.get();
        for root in &mut self.roots {
            arrived.extend(root.look(&self.core, &active, self.needed, &mut missing)?);
        }
        let is_compared = |target: &NamedTarget| {
            let record = self.core.queue.target_record(target.id);
            record.is_some_and(|record| record.unvouched.is_some())
        };
        let comparing = arrived.into_iter().filter(is_compared).map(|target| target.name).collect();
        Ok(Waiting { done: missing.is_empty(), timed_out: false, missing, comparing })
    }
}

impl RootWait {
    /// Returns the targets that lack nothing.
    fn look(
        &mut self,
        core: &Core,
        active: &ActiveConfig,
        needed: Option<usize>,
        missing: &mut Vec<Missing>,
    ) -> Result<Vec<NamedTarget>, Refusal> {
        let queue = &core.queue;
        match self.step(core, active) {
            Ok(()) => {}
            Err(Held::Refused(refusal)) => return Err(refusal),
            Err(Held::Waits(reason)) => {
                let root = self.root.display().to_string();
                missing.push(Missing { root, target: None, reason: Some(reason), jobs: Vec::new() });
                return Ok(Vec::new());
            }
        }
        let Stage::Reached(numbers) = &self.stage else { return Ok(Vec::new()) };
        let (mut lacking, mut arrived) = (Vec::new(), Vec::new());
        for (target, number) in self.targets.iter().zip(numbers) {
            let jobs = queue.lacking(target.id, *number, self.path.as_ref(), JOBS_SHOWN);
            if jobs.is_empty() {
                arrived.push(target.clone());
                continue;
            }
            let row = |job: &_| JobRow::new(job, &target.root, &target.name);
            lacking.push(Missing {
                root: target.root.display().to_string(),
                target: Some(target.name.clone()),
                reason: if active.serves(target.id) { held_up(queue, target) } else { Some(LEFT.to_owned()) },
                jobs: jobs.iter().map(row).collect(),
            });
        }
        if self.targets.len() - lacking.len() < needed.unwrap_or(self.targets.len()) {
            missing.extend(lacking);
        }
        Ok(arrived)
    }

    /// Goes on to the next stage if that is possible. The error says what has to happen before the targets can be judged.
    fn step(&mut self, core: &Core, active: &ActiveConfig) -> Result<(), Held> {
        if let Stage::Begun = self.stage {
            // Looked up each time: after a reload another runtime may watch the tree.
            let root = active.root_of(&self.root, &self.targets).ok_or_else(|| LEFT.to_owned())?;
            self.stage = Stage::Asked(root.barrier()?);
        }
        if let Stage::Asked(answer) = &self.stage {
            match answer.try_recv() {
                Ok(()) => {
                    // A target that was removed from the configuration meanwhile may have missed changes, so the barrier proves
                    // nothing.
                    let Some(root) = active.root_of(&self.root, &self.targets) else {
                        self.stage = Stage::Begun;
                        return Err(LEFT.to_owned().into());
                    };
                    if let Some(path) = &self.path {
                        explain::check_known(root, path, core, &self.targets).map_err(Held::Refused)?;
                    }
                    let newest = |target: &NamedTarget| core.queue.newest_change(target.id);
                    self.stage = Stage::Reached(self.targets.iter().map(newest).collect());
                }
                Err(TryRecvError::Empty) => {
                    return Err("what has changed is still being looked through".to_owned().into());
                }
                Err(TryRecvError::Disconnected) => {
                    self.stage = Stage::Begun;
                    return Err("it is no longer being watched".to_owned().into());
                }
            }
        }
        Ok(())
    }
}

/// The words for paths that have been sent and may still be overwritten by an older run.
pub(super) fn may_change((paths, at): (usize, Timestamp), now: Timestamp) -> String {
    let paths = if paths == 1 { "a path".to_owned() } else { format!("{paths} paths") };
    let left = at.since(now).as_secs();
    format!("a run was cut off and may still write at the target: {paths} looked at again in {left} s")
}

/// The reason why none of a target's jobs can run now, if there is one.
pub(crate) fn held_up(queue: &Queue, target: &NamedTarget) -> Option<String> {
    let standing = queue.standing(target.id);
    let paused =
        standing.paused_since.map(|since| format!("paused since {since}; to go on: syncq resume {}", target.name));
    let trouble = standing.trouble.map(|trouble| trouble.message);
    paused.or(trouble).or_else(|| standing.awaits_receivers.map(|jobs| may_change(jobs, queue.now())))
}
