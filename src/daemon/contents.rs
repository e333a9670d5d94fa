//! Compares the content of large, unvouched targets in the background, and has files sent again that differ. A restored file
//! keeps its size and time, so no other comparison finds it.
//!
//! One thread goes through the files in the order of the tree, in portions of a few seconds and at a bounded rate. A portion is
//! compared only while the target has nothing else to do; a target that is always busy gets a portion a minute. Progress is
//! stored, so that a restart goes on from there. `status` says `comparing` until the comparison is complete.
//!
//! Once a minute the same thread resolves the names of rsync daemons' hosts. If a name leads to other servers than before,
//! nothing vouches for their content either (`mirror/transport/address`).
//!
//! Deliberately absent: files that only the target has or that it lacks, which comparisons by size and time find; and small
//! trees, which are compared by content at once (`mirror/target/unvouched`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::{debug, info, warn};

use super::active_config::{ActiveConfig, Core};
use super::named_target::NamedTarget;
use super::root::Sight;
use crate::clock::monotonic;
use crate::mirror::{Differs, Led, Look, Portions, TargetContext, addresses, host_name, led};
use crate::model::{Change, RelPath, Timestamp, Unvouched};

/// The rate at which this machine's files are read, in bytes per second.
const BYTES_PER_S: u64 = 20_000_000;
/// The approximate size of a portion.
const PORTION_BYTES: u64 = 64_000_000;
const PORTION_FILES: usize = 1_000;

/// How often a busy target is looked at, and after which time it gets a portion although it is busy.
const LOOK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often host names are resolved.
const LOOK_UP: Duration = Duration::from_secs(60);
/// The pause before another attempt at a target whose comparison failed.
const RETRY: Duration = Duration::from_secs(30);
/// How long to wait for jobs to reach the disk, and how long a stop waits for the thread.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// The background thread. Dropping this value ends the thread.
#[derive(Debug)]
pub(super) struct ContentsThread {
    over: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl ContentsThread {
    pub fn start(core: Arc<Core>) -> std::io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let (running, ended) = bounded::<()>(0);
        let over = Arc::new(AtomicBool::new(false));
        let comparer = Comparer { core, over: Arc::clone(&over), works: BTreeMap::new(), looked_up: None };
        std::thread::Builder::new().name("contents".into()).spawn(move || {
            let _running = running;
            comparer.run(&stopped);
        })?;
        Ok(Self { over, stop: Some(stop), ended })
    }

    /// Ends the comparison in progress.
    pub fn stop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.stop = None;
        let _ = self.ended.recv_timeout(STOP_PATIENCE);
    }
}

/// The state of one target's comparison.
struct Work {
    since: Timestamp,
    context: Arc<TargetContext>,
    portions: Portions,
    /// When the last portion ended, and the earliest time for the next one.
    last: Instant,
    not_before: Instant,
}

struct Comparer {
    core: Arc<Core>,
    over: Arc<AtomicBool>,
    works: BTreeMap<crate::model::TargetId, Work>,
    looked_up: Option<Instant>,
}

impl Comparer {
    fn run(mut self, stopped: &Receiver<()>) {
        let distrusted = self.core.queue.distrusted().clone();
        loop {
            let active = self.core.current.get();
            let looks_up = self.look_up(&active);
            let unvouched: Vec<(NamedTarget, Unvouched)> = active
                .targets
                .iter()
                .filter_map(|target| Some((target.clone(), self.core.queue.target_record(target.id)?.unvouched?)))
                .collect();
            self.works.retain(|id, _| unvouched.iter().any(|(target, _)| target.id == *id));
            let mut is_at_work = false;
            for (target, unvouched) in &unvouched {
                is_at_work |= self.portion(&active, target, unvouched);
            }
            drop(active);
            let pause = match (is_at_work, unvouched.is_empty()) {
                (true, _) => Some(Duration::ZERO),
                (false, false) => Some(LOOK),
                (false, true) => looks_up.then_some(LOOK_UP),
            };
            let pause = pause.map_or_else(crossbeam_channel::never, crossbeam_channel::after);
            select! {
                recv(stopped) -> _ => return,
                recv(distrusted) -> _ => {}
                recv(pause) -> _ => {}
            }
            if self.over.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Has every target compared in full whose host name leads to other servers than before. Returns whether any target has a
    /// name.
    fn look_up(&mut self, active: &ActiveConfig) -> bool {
        let named: Vec<(&NamedTarget, Arc<TargetContext>)> = active
            .targets
            .iter()
            .filter_map(|target| Some((target, self.core.executor.context(target.id)?)))
            .filter(|(_, context)| host_name(&context.target).is_some())
            .collect();
        if named.is_empty() || self.looked_up.is_some_and(|at| at.elapsed() < LOOK_UP) {
            return !named.is_empty();
        }
        self.looked_up = Some(monotonic());
        let queue = &self.core.queue;
        for (target, context) in named {
            let Some(name) = host_name(&context.target) else { continue };
            let before = queue.target_record(target.id).map(|record| record.addresses).unwrap_or_default();
            match led(&before, addresses(name)) {
                Led::AsBefore => {}
                Led::On(now) => queue.set_target_addresses(target.id, now),
                Led::Elsewhere(now) => {
                    warn!(
                        "{}: {name} is another server than before ({} instead of {}); the target is compared in full",
                        target.name,
                        shown(&now),
                        shown(&before)
                    );
                    queue.distrust(&[target.id]);
                    queue.enqueue(&[target.id], &[Change::whole_tree()]);
                    // Store the new addresses only after the job: after a crash in between, the change would otherwise go
                    // unnoticed.
                    if queue.flush(FLUSH_PATIENCE) {
                        queue.set_target_addresses(target.id, now);
                    }
                }
            }
        }
        true
    }

    /// Compares the next portion of a target if one is due. Returns whether it did.
    fn portion(&mut self, active: &ActiveConfig, target: &NamedTarget, unvouched: &Unvouched) -> bool {
        let Core { queue, executor, .. } = &*self.core;
        let Some(context) = executor.context(target.id) else { return false };
        let is_same = |work: &Work| work.since == unvouched.since && Arc::ptr_eq(&work.context, &context);
        let now = monotonic();
        let portions = || Portions::new(context.root.clone(), Arc::clone(&context.filter), unvouched.up_to.clone());
        if !self.works.get(&target.id).is_some_and(is_same) {
            let (since, context) = (unvouched.since, Arc::clone(&context));
            let work = Work { since, context, portions: portions(), last: now, not_before: now };
            self.works.insert(target.id, work);
        }
        let Some(work) = self.works.get_mut(&target.id) else { return false };
        let is_watched =
            active.roots().any(|root| root.has(target.id) && matches!(root.sight(), Sight::Whole | Sight::Partial(..)));
        let is_idle = || queue.stats(target.id).is_some_and(|stats| stats.counts.ready + stats.counts.running == 0);
        let is_due = now >= work.not_before && (is_idle() || now.duration_since(work.last) >= PATIENCE);
        if !is_due || !is_watched || !queue.is_open(target.id) {
            return false;
        }
        let paths = work.portions.next(PORTION_FILES, PORTION_BYTES);
        let Some(last) = paths.last().cloned() else {
            info!("{}: all of it has been compared by content", target.name);
            queue.vouch(target.id, unvouched.since, None);
            return true;
        };
        let is_wanted = || !self.over.load(Ordering::SeqCst);
        let look = Look { checksum: true, bytes_per_s: Some(BYTES_PER_S) };
        let compared = executor.compare(&context, look, &is_wanted).again(&paths);
        work.last = monotonic();
        match compared {
            Ok(differing) => {
                let of_content = |(_, what): &(&RelPath, &Differs)| matches!(what, Differs::Content);
                if let Some((path, _)) = differing.iter().find(of_content) {
                    let count = differing.iter().filter(of_content).count();
                    warn!(
                        "{}: {count} files of equal size and time have other content, among them {path}; they are sent \
                         again",
                        target.name
                    );
                }
                let is_known = |what: &Differs| !matches!(what, Differs::Unreadable(_));
                let differing = differing.into_iter().filter(|(_, what)| is_known(what));
                let changes: Vec<Change> = differing.map(|(path, _)| Change::write(path)).collect();
                queue.enqueue(&[target.id], &changes);
                // The position after these files may be stored only once the files' jobs are on disk: a crash would lose the
                // jobs otherwise.
                if changes.is_empty() || queue.flush(FLUSH_PATIENCE) {
                    queue.vouch(target.id, unvouched.since, Some(last));
                }
            }
            Err(trouble) => {
                debug!("{}: contents cannot be compared: {}", target.name, trouble.message);
                work.not_before = work.last + RETRY;
                work.portions = portions();
            }
        }
        true
    }
}

fn shown(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}
