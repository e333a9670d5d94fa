//! Answers from a stopped daemon's store, and changes to its jobs. Starts no run and no watcher.
//!
//! Questions are answered by reading a copy of the store, record after record. So nothing in the state directory is touched,
//! and memory does not grow with the number of jobs. Changes go through a queue as in a daemon, which loads all jobs. While
//! that queue is open it holds the store's lock. It is refused to everyone but the owner of the store.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::control::{
    DaemonState, ExplainQuery, Explanation, Inspect, ListPage, Listed, NewJob, Operate, PauseRequest, Paused, Refusal,
    RefusalKind, RootState, RootStatus, Status, StoreReport, TargetState, TargetStatus, WatchStatus, seconds,
};
use crate::model::{Job, JobAction, JobState, RelPath, TargetId, Timestamp, Unvouched};
use crate::queue::{Counts, Queue, Selected, Standing, StoreHealth, restored};
use crate::store::sled::{Looked, SledStore};
use crate::store::{RootRecord, Store as _, StoreError, TargetRecord};

use super::explain::{Circumstances, explain_offline, on_target};
use super::jobs;
use super::paths::resolve;
use super::status::{contents_status, store_status};
use crate::daemon::named_target::NamedTarget;

struct Offline {
    dir: PathBuf,
    targets: Vec<NamedTarget>,
    held: Mutex<Held>,
}

/// The way the store is open now: a copy to read, or a queue to change. A change invalidates the copy.
enum Held {
    Nothing,
    Looked(Box<Looked>),
    Queue(Queue),
}

/// Opens the store in `state_dir` to look at it and to change its jobs without a daemon.
pub fn open(state_dir: &Path) -> anyhow::Result<Box<dyn Operate>> {
    let store = Looked::at(state_dir)?;
    let (roots, records) =
        store.known().with_context(|| format!("cannot read the store in {}", state_dir.display()))?;
    let targets = records.iter().filter_map(|record| named(&roots, record)).collect();
    Ok(Box::new(Offline { dir: state_dir.to_owned(), targets, held: Mutex::new(Held::Looked(Box::new(store))) }))
}

fn named(roots: &[RootRecord], record: &TargetRecord) -> Option<NamedTarget> {
    let root = roots.iter().find(|root| root.id == record.root)?;
    let path = PathBuf::from(OsStr::from_bytes(&root.path));
    Some(NamedTarget { id: record.id, name: record.destination.clone(), port: None, root: path })
}

/// The figures of one target.
#[derive(Debug, Clone, Default)]
struct Figures {
    counts: Counts,
    oldest: Option<Timestamp>,
    paused_since: Option<Timestamp>,
    unvouched: Option<Unvouched>,
}

impl Offline {
    /// Reads the store.
    fn read<T>(&self, read: impl FnOnce(&Looked) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut held = self.held.lock();
        let store = match std::mem::replace(&mut *held, Held::Nothing) {
            Held::Looked(store) => store,
            other => {
                drop(other);
                Box::new(Looked::at(&self.dir)?)
            }
        };
        let result = read(&store);
        *held = Held::Looked(store);
        result
    }

    /// Changes jobs or targets.
    fn change<T>(&self, change: impl FnOnce(&Queue) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut held = self.held.lock();
        let open = |store| Queue::open(Box::new(store), Arc::new(SystemClock)).map(|(queue, _)| queue);
        let queue = match std::mem::replace(&mut *held, Held::Nothing) {
            Held::Queue(queue) => queue,
            _ => SledStore::open_existing(&self.dir).and_then(open).map_err(unusable)?,
        };
        let result = change(&queue);
        *held = Held::Queue(queue);
        result
    }

    fn figures(&self, target: TargetId, now: Timestamp) -> Result<Figures, StoreError> {
        let mut figures = Figures::default();
        self.read(|store| {
            if let Some(record) = record(store, target)? {
                (figures.paused_since, figures.unvouched) = (record.paused_since, record.unvouched);
            }
            store.jobs(target, None, &mut |job| {
                let job = restored(job);
                match job.state {
                    JobState::Failed => figures.counts.failed += 1,
                    JobState::Waiting if job.due_at > now => figures.counts.waiting += 1,
                    JobState::Ready | JobState::Running | JobState::Waiting => figures.counts.ready += 1,
                }
                figures.oldest = Some(figures.oldest.map_or(job.queued_at, |oldest| oldest.min(job.queued_at)));
                ControlFlow::Continue(())
            })
        })?;
        Ok(figures)
    }
}

fn record(store: &Looked, target: TargetId) -> Result<Option<TargetRecord>, StoreError> {
    let (_, records) = store.known()?;
    Ok(records.into_iter().find(|record| record.id == target))
}

/// The job that will make the path equal, if there is one.
fn job_for(store: &Looked, target: TargetId, path: &RelPath) -> Result<Option<Job>, StoreError> {
    let mut found = store.job(target, path)?;
    for above in path.ancestors() {
        if found.is_some() {
            break;
        }
        found = store.job(target, &above)?.filter(|job| job.scope.reaches(&above, path));
    }
    Ok(found.map(restored))
}

fn unusable(error: StoreError) -> Refusal {
    if let StoreError::OfAnother { owner, .. } = &error {
        let message = format!("{error}, whose daemon could not use what another one writes there");
        return Refusal::new(RefusalKind::Unavailable, message, as_owner(*owner));
    }
    let message = format!("the store cannot be used: {}", error.with_causes());
    Refusal::new(RefusalKind::Unavailable, message, "see whether its disk is well, and start syncq")
}

/// The hint for a user who is not the owner of the store.
fn as_owner(owner: u32) -> String {
    format!("do it as that user: sudo -u '#{owner}' syncq ...; or start the daemon, and ask that")
}

impl Inspect for Offline {
    fn status(&self) -> Status {
        let now = SystemClock.now();
        let mut roots: Vec<RootStatus> = Vec::new();
        let mut targets = Vec::new();
        let mut error = None;
        for target in &self.targets {
            let mut reason = None;
            let figures = self.figures(target.id, now).unwrap_or_else(|failure| {
                reason = Some(format!("its jobs cannot be counted: {failure}"));
                error = Some(failure.with_causes());
                Figures::default()
            });
            let root = target.root.display().to_string();
            match roots.iter_mut().find(|known| known.path == root) {
                Some(known) => known.targets.push(target.name.clone()),
                None => roots.push(RootStatus {
                    path: root.clone(),
                    state: RootState::Offline,
                    reason: None,
                    hint: None,
                    targets: vec![target.name.clone()],
                }),
            }
            targets.push(TargetStatus {
                name: target.name.clone(),
                port: target.port,
                root,
                state: if figures.paused_since.is_some() { TargetState::Paused } else { TargetState::Offline },
                pending: figures.counts.ready as u64,
                running: 0,
                waiting: figures.counts.waiting as u64,
                failed: figures.counts.failed as u64,
                lag_s: figures.oldest.map_or(0.0, |oldest| seconds(now.since(oldest))),
                jobs_per_s: 0.0,
                eta_s: None,
                last_path: None,
                last_success_at: None,
                paused_since: figures.paused_since,
                reason,
                hint: None,
                command: None,
                retry_at: None,
                contents: figures.unvouched.as_ref().map(contents_status),
                run: None,
            });
        }
        let (stats, fault) = self.read(|store| Ok((store.stats(), store.fault()))).unwrap_or_default();
        let fault = fault.map(|fault| format!("{fault}; the next start compares every target in full"));
        let error = error.or(fault);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: DaemonState::Offline,
            pid: 0,
            started_at: None,
            configs: Vec::new(),
            config: None,
            roots,
            targets,
            store: store_status(StoreHealth { stats, error, uncommitted: 0 }),
            watches: WatchStatus::default(),
            plugins: Vec::new(),
        }
    }

    fn store(&self) -> Result<StoreReport, Refusal> {
        let census = self.read(Looked::census).map_err(unusable)?;
        Ok(jobs::report(census, None))
    }

    fn list(&self, page: &ListPage) -> Result<Listed, Refusal> {
        jobs::gather(&jobs::wanted(&self.targets, page)?, page, |target, after, room| {
            let mut selected = Selected::default();
            let mut each = |job: Job| {
                if selected.jobs.len() >= room {
                    selected.next = selected.jobs.last().map(|job| job.path.clone());
                    return ControlFlow::Break(());
                }
                selected.jobs.extend(Some(restored(job)).filter(|job| page.wanted.wants(job)));
                ControlFlow::Continue(())
            };
            self.read(|store| store.jobs(target, after, &mut each)).map_err(unusable)?;
            Ok(selected)
        })
    }
}

impl Operate for Offline {
    fn change(&self, action: JobAction, page: &ListPage) -> Result<Listed, Refusal> {
        self.change(|queue| jobs::jobs(queue, &self.targets, action, page))
    }

    fn add(&self, jobs: &[NewJob]) -> Result<Vec<Option<String>>, Refusal> {
        self.change(|queue| jobs::add(queue, &self.targets, jobs))
    }

    fn compact_store(&self) -> Result<StoreReport, Refusal> {
        let mut held = self.held.lock();
        *held = Held::Nothing;
        let compact = |mut store: SledStore| {
            let before = store.stats().bytes;
            store.compact()?;
            Ok(jobs::report(store.census()?, Some(before)))
        };
        SledStore::open_existing(&self.dir).and_then(compact).map_err(unusable)
    }

    fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let mut roots: Vec<&Path> = self.targets.iter().map(|target| target.root.as_path()).collect();
        roots.sort();
        roots.dedup();
        let (root, path) = resolve(query, &roots)?;
        let mut targets = Vec::new();
        for target in self.targets.iter().filter(|target| target.root == root) {
            let look = |store: &Looked| Ok((job_for(store, target.id, &path)?, record(store, target.id)?));
            let (found, record) = self.read(look).map_err(unusable)?;
            let paused_since = record.and_then(|record| record.paused_since);
            let standing = Standing { paused_since, ..Standing::default() };
            let circumstances = |_: &_, _| Circumstances {
                state: TargetState::Offline,
                suspended: Some("a running daemon (syncq run)".to_owned()),
                unknown: Some("no daemon runs, and what has changed since is not known".to_owned()),
                answered: None,
                left_out: None,
                command: None,
            };
            targets.push(on_target(target, &path, found.map(|job| (job, None)), &standing, circumstances));
        }
        Ok(explain_offline(&root, &path, targets.into_iter()))
    }

    fn pause(&self, request: &PauseRequest) -> Result<Paused, Refusal> {
        self.change(|queue| jobs::pause(queue, &self.targets, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{JobFilter, JobRow, Matcher, PathArg};
    use crate::model::{Generation, JobError, JobId, Origin, RootId, Scope};
    use crate::store::Op;

    const LONG_AGO: Timestamp = Timestamp(1_000);
    const NEVER: Timestamp = Timestamp(u64::MAX / 2);

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("a path")
    }

    /// A store of two targets with jobs in every state that can be stored.
    fn fill(dir: &Path) {
        let (mut store, _) = SledStore::open(dir, LONG_AGO).expect("a store");
        let root = RootRecord {
            id: RootId(1),
            path: b"/srv".to_vec(),
            mark: None,
            watermark: None,
            scheduled_run: None,
            mounts: Vec::new(),
        };
        let target = |id, paused_since| TargetRecord {
            paused_since,
            ..TargetRecord::new(TargetId(id), RootId(1), format!("b::m{id}"))
        };
        let mut ops = vec![Op::PutRoot(root), Op::PutTarget(target(1, None)), Op::PutTarget(target(2, Some(LONG_AGO)))];
        let states = [
            (JobState::Ready, 0, LONG_AGO),
            (JobState::Waiting, 0, NEVER),
            (JobState::Waiting, 3, NEVER),
            (JobState::Waiting, 3, LONG_AGO),
            (JobState::Failed, 7, LONG_AGO),
        ];
        for (n, id) in (0..700_u64).flat_map(|n| [(n, 1), (n, 2)]) {
            let (state, attempts, due_at) = states[n as usize % states.len()];
            ops.push(Op::PutJob(Job {
                id: JobId(2 * n + u64::from(id)),
                target: TargetId(id),
                path: path(&format!("d{}/f{n}", n % 7)),
                scope: match n {
                    9 => Scope::Subtree,
                    10 => Scope::Children,
                    _ => Scope::Entry,
                },
                origin: Origin::Write,
                state,
                generation: Generation::FIRST,
                queued_at: Timestamp(2_000 + n),
                changed_at: Timestamp(3_000 + n),
                attempts,
                due_at,
                partial: false,
                last_error: (attempts > 0).then(|| JobError { code: Some(23), message: "denied".to_owned() }),
            }));
        }
        ops.chunks(500).for_each(|ops| store.commit(ops).expect("commits"));
    }

    fn rows(store: &dyn Operate, filter: &JobFilter) -> Vec<JobRow> {
        let page = ListPage::first(Matcher::new(filter, Timestamp(10_000)).expect("a filter"));
        let mut rows = Vec::new();
        let listed = crate::control::each_job(page, |page| store.list(page), &mut |row| {
            rows.push(row);
            ControlFlow::Continue(())
        });
        listed.expect("a list");
        rows
    }

    /// A list of half a million jobs was held in memory as a whole.
    #[test]
    fn what_is_read_from_the_store_is_what_its_queue_would_tell() {
        let dir = tempfile::tempdir().expect("a directory");
        fill(dir.path());
        let (mut all, mut failed) = (Vec::new(), Vec::new());
        let mut stats = Vec::new();
        {
            let store = SledStore::open_existing(dir.path()).expect("a store");
            let (queue, _) = Queue::open(Box::new(store), Arc::new(SystemClock)).expect("a queue");
            for id in [1, 2] {
                let root = Path::new("/srv");
                let row = |job: &Job| JobRow::new(job, root, &format!("b::m{id}"));
                let jobs = queue.preview(TargetId(id), None, 1_000, JobAction::List, &|_| true).jobs;
                all.extend(jobs.iter().map(row));
                failed.extend(jobs.iter().filter(|job| job.state == JobState::Failed).map(row));
                let found = queue.stats(TargetId(id)).expect("a target");
                stats.push((found.counts, found.oldest, found.paused_since));
            }
        }
        let offline = open(dir.path()).expect("a store");
        assert_eq!(rows(offline.as_ref(), &JobFilter::default()), all);
        let only_failed = JobFilter { state: Some(JobState::Failed), ..JobFilter::default() };
        assert_eq!(rows(offline.as_ref(), &only_failed), failed);
        let status = offline.status();
        for (target, (counts, oldest, paused_since)) in status.targets.iter().zip(&stats) {
            let figures = (target.pending, target.waiting, target.failed);
            assert_eq!(figures, (counts.ready as u64, counts.waiting as u64, counts.failed as u64), "{target:?}");
            assert!(target.lag_s > 0.0 && *oldest == Some(Timestamp(2_000)));
            assert_eq!(target.paused_since, *paused_since);
        }
        let about = |text: &str| PathArg { path: format!("/srv/{text}"), path_b64: None, cwd: None };
        for (text, found) in [
            ("d2/f9/below", Some(9)),
            ("d2/f9", Some(9)),
            ("d1/f1", Some(1)),
            ("d1/other", None),
            ("d3/f10/in", Some(10)),
        ] {
            let explained = offline.explain(&about(text)).expect("an explanation");
            let ids: Vec<_> = explained.targets.iter().map(|it| it.job.as_ref().map(|job| job.id)).collect();
            assert_eq!(ids, [found.map(|n| 2 * n + 1), found.map(|n| 2 * n + 2)], "{text}");
        }
        // A change works on the same store, and later questions see its effect.
        let page = ListPage::first(Matcher::new(&only_failed, Timestamp(10_000)).expect("a filter"));
        assert_eq!(offline.change(JobAction::Purge, &page).expect("purged").rows.len(), failed.len());
        assert_eq!(rows(offline.as_ref(), &only_failed), []);
        assert_eq!(offline.store().expect("a census").jobs, (all.len() - failed.len()) as u64);
        assert_eq!(rows(offline.as_ref(), &JobFilter::default()).len(), all.len() - failed.len());
    }
}
