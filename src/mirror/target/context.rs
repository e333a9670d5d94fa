//! Everything known of one target between batches: its place, the way there, and what the other side lacks.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use log::warn;
use parking_lot::{Mutex, MutexGuard};

use super::capabilities::Capabilities;
use super::deletion_limit::Guard;
use super::looked::{Holds, Looked};
use super::observer::Observer;
use super::place::Place;
use crate::clock::monotonic;
use crate::filter::Filter;
use crate::mirror::outcome::attribution::Prefixes;
use crate::mirror::outcome::noise::Noise;
use crate::mirror::plan::arguments::{Mode, Pass, arguments};
use crate::mirror::plan::planner::Limits;
use crate::mirror::plan::run::{Run, RunKind};
use crate::mirror::plan::source::Source;
use crate::mirror::rsync::ended::Cut;
use crate::mirror::rsync::environment;
use crate::mirror::rsync::installed::RSYNC;
use crate::mirror::rsync::lingering;
use crate::mirror::rsync::process::STALL_LIMIT;
use crate::mirror::rsync::program::{Confine, Program};
use crate::mirror::rsync::under_way::Course;
use crate::mirror::transport::confine::Places;
use crate::mirror::transport::root_identity::RootIdentity;
use crate::mirror::transport::ssh::Connection;
use crate::mirror::transport::standby::{Launch, Standby};
use crate::model::{Destination, Lane, Lingers, Origin, RelPath, Target, TargetTrouble, Timestamp};
use crate::mounts::Mounts;

/// How many paths are named of those that a server leaves out.
const REFUSED_MAX: usize = 20;

/// One target of one root, for as long as the target's configuration stays the same.
#[derive(Debug)]
pub struct TargetContext {
    pub root: PathBuf,
    pub(in crate::mirror) identity: RootIdentity,
    pub target: Target,
    pub filter: Arc<Filter>,
    pub(in crate::mirror) limits: Limits,
    pub guard: Guard,
    pub(in crate::mirror) capabilities: Capabilities,
    pub(in crate::mirror) prefixes: Prefixes,
    /// The messages that runs to this target print whatever they are about.
    pub(in crate::mirror) noise: Noise,
    observer: Mutex<Option<Arc<dyn Observer>>>,
    /// The way to the host, if the target is reached through ssh.
    pub connection: Option<Arc<Connection>>,
    /// The file systems expected below the root.
    pub mounts: Arc<Mounts>,
    /// The place for a ready connection, if the target may have one.
    pub standby: Option<Arc<Standby>>,
    /// Paths that the server's own configuration leaves out, up to [`REFUSED_MAX`].
    refused: Mutex<BTreeSet<RelPath>>,
    /// The target's directory, if it is on this machine.
    pub place: Option<Arc<Place>>,
    /// The target's contents at the last look, and since when nobody vouched for the target at that time.
    looked: Mutex<Option<(Timestamp, Holds)>>,
    /// When a look was last taken at the names at the target's top.
    looked_at_top: Mutex<Looked>,
    /// When the leftovers of killed receivers were last removed.
    cleaned_at: Mutex<Option<Timestamp>>,
    /// When a run was last cut off whose data may still arrive without anybody being able to tell when.
    blind_since: Mutex<Option<Instant>>,
    /// rsync, except in tests.
    pub(in crate::mirror) program: Program,
    #[cfg(test)]
    pub(in crate::mirror) stand_in: Option<super::launch::StandIn>,
}

impl TargetContext {
    /// `owner` marks the runs for this target, so that [`end_leftovers`](crate::mirror::end_leftovers) finds them.
    pub fn new(
        root: PathBuf,
        identity: RootIdentity,
        target: Target,
        filter: Arc<Filter>,
        limits: Limits,
        guard: Guard,
        owner: &Path,
    ) -> Self {
        let resolved = root.canonicalize().unwrap_or_else(|_| root.clone());
        let places: Arc<dyn Confine> = Arc::new(Places::new(&root, &target));
        let prefixes = Prefixes::new(&[&root, &resolved], &target.destination);
        Self {
            mounts: Arc::new(Mounts::new(&root, [])),
            root,
            identity,
            filter,
            limits,
            guard: guard.with_params(&target.options.params),
            target,
            capabilities: Capabilities::default(),
            prefixes,
            noise: Noise::default(),
            observer: Mutex::default(),
            connection: None,
            standby: None,
            refused: Mutex::default(),
            place: None,
            looked: Mutex::default(),
            looked_at_top: Mutex::default(),
            cleaned_at: Mutex::default(),
            blind_since: Mutex::default(),
            program: Program {
                path: RSYNC.into(),
                owner: owner.as_os_str().to_owned(),
                stall_limit: STALL_LIMIT,
                places: Some(places),
                hangs: Arc::default(),
                under_way: Arc::default(),
            },
            #[cfg(test)]
            stand_in: None,
        }
    }

    /// Whether runs under `other` are the same as under this context.
    pub fn runs_like(&self, other: &Self) -> bool {
        (&self.root, self.identity, &self.target, self.limits)
            == (&other.root, other.identity, &other.target, other.limits)
            && Arc::ptr_eq(&self.filter, &other.filter)
            && Arc::ptr_eq(&self.mounts, &other.mounts)
            && self.connection.as_ref().map(Arc::as_ptr) == other.connection.as_ref().map(Arc::as_ptr)
            && self.standby.is_some() == other.standby.is_some()
            && self.guard.has_limit_of(&other.guard)
    }

    /// Takes over from the context that this one replaces what an operator has agreed to, and which runs were cut off.
    pub fn succeed(&mut self, before: &Self) {
        self.blind_since = Mutex::new(before.blind_since());
        self.guard.succeed(&before.guard);
        self.place.clone_from(&before.place);
    }

    /// Whether source and target are what they were, as far as this machine can tell. Costs a look at each.
    pub fn check(&self) -> Result<(), TargetTrouble> {
        self.identity.check(&self.root)?;
        self.place.as_ref().map_or(Ok(()), |place| place.check())
    }

    /// The source as rsync sees it in runs in which it looks for itself.
    pub(in crate::mirror) fn source_as_rsync_finds_it(&self) -> Source {
        Source::as_rsync_finds_it(&self.root, &self.target.options.params)
    }

    /// Forgets what the other side was found to lack, since servers are upgraded and reconfigured.
    pub(crate) fn forget_lacks(&self) {
        self.capabilities.forget();
    }

    /// From now on `observer` is told what the runs change on the target; `None`: nobody is.
    pub fn set_observer(&self, observer: Option<Arc<dyn Observer>>) {
        *self.observer.lock() = observer;
    }

    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.lock().clone()
    }

    /// Notes paths that the server's own configuration leaves out, and logs new ones once.
    pub(in crate::mirror) fn note_refused(&self, paths: &BTreeSet<RelPath>) {
        let mut refused = self.refused.lock();
        for path in paths {
            if refused.len() >= REFUSED_MAX || !refused.insert(path.clone()) {
                continue;
            }
            let name = self.target.name();
            warn!("{name}: the server's own configuration leaves out {path}: it is not mirrored there");
            if refused.len() == REFUSED_MAX {
                warn!("{name}: no more of what the server leaves out is named");
            }
        }
    }

    /// Whether the server's own configuration is known to leave out the path, or a directory above it.
    pub(crate) fn refuses(&self, path: &RelPath) -> bool {
        let refused = self.refused.lock();
        refused.contains(path) || path.ancestors().any(|above| refused.contains(&above))
    }

    /// The known paths that the server's own configuration leaves out, in words for a person. `None`: no path is known.
    pub fn left_out(&self) -> Option<String> {
        let refused = self.refused.lock();
        let first = refused.first()?;
        let more = match refused.len() {
            1 => String::new(),
            REFUSED_MAX => format!(" and at least {} more", REFUSED_MAX - 1),
            known => format!(" and {} more", known - 1),
        };
        Some(format!("the server's own configuration leaves out {first}{more}"))
    }

    pub(in crate::mirror) fn looked(&self) -> MutexGuard<'_, Option<(Timestamp, Holds)>> {
        self.looked.lock()
    }

    pub(crate) fn looked_at_top(&self) -> MutexGuard<'_, Looked> {
        self.looked_at_top.lock()
    }

    /// The mode of the target's runs. `rules` are the filter's.
    ///
    /// Under the filter's expressions rsync lists nothing by itself, except to find what it would delete. That listing is
    /// not filtered, since the expressions decide.
    pub(in crate::mirror) fn mode<'a>(&self, lane: Lane, pass: Pass, rules: &'a [OsString]) -> Mode<'a> {
        let has_expressions = self.filter.has_expressions();
        Mode {
            rules: if pass.is_dry() && has_expressions { &[] } else { rules },
            empties: pass.is_dry() || !has_expressions,
            ..self.capabilities.mode(lane, self.target.options.delete, pass)
        }
    }

    /// The arguments of the target's runs by name in the small lane. They depend on no path.
    pub(in crate::mirror) fn flat_arguments(&self, origin: Origin) -> Vec<OsString> {
        let mode = self.mode(Lane::Small, Pass::Itemized, &[]);
        arguments(&self.target, &Run::new(RunKind::Flat, origin, Vec::new()), mode)
    }

    /// Whether the output of a flat run is kept to be read.
    pub(in crate::mirror) fn keeps_words(&self) -> bool {
        self.observer().is_some() || self.filter.has_expressions()
    }

    /// How the target's standby is started.
    pub(crate) fn launch(&self) -> Launch<'_> {
        let (args, name) = (self.flat_arguments(Origin::Write), self.target.name());
        Launch { program: &self.program, root: &self.root, identity: self.identity, args, name }
    }

    /// Notes what became of a run's connection to the target.
    pub(in crate::mirror) fn note_cut(&self, cut: Cut) {
        let is_blind = match (&self.target.destination, cut) {
            (Destination::Local(_), _) | (_, Cut::No | Cut::Closed | Cut::Held) => false,
            // A run without a connection had sent nothing, unless another program connects for rsync.
            (Destination::Daemon { .. }, Cut::Unseen) => environment::redirects(&environment::own),
            (Destination::Ssh { .. }, Cut::Unseen) | (_, Cut::Refused) => true,
        };
        if is_blind {
            *self.blind_since.lock() = Some(monotonic());
        }
    }

    /// In words, the file that holds up a run at this moment. `None`: no file does.
    pub(crate) fn held_up(&self) -> Option<String> {
        self.program.hangs.shown(&self.root)
    }

    /// How far the target's runs have come. `None`: none takes long enough to tell.
    pub(crate) fn course(&self, now: Instant) -> Option<Course> {
        let course = self.program.under_way.course(now)?;
        // Only a direct run to a daemon connects by itself; any other leaves the connection to another program.
        let Target { destination, options } = &self.target;
        let is_direct = destination.is_daemon() && options.params.remote_shell().is_none();
        let is_connecting = course.is_connecting && is_direct && !environment::redirects(&environment::own);
        Some(Course { is_connecting, ..course })
    }

    /// Whether data of a dead process may still be on its way to the target.
    pub(crate) fn lingers(&self) -> Lingers {
        let is_blind = self.blind_since().is_some_and(|since| since.elapsed() < lingering::BLIND_FOR);
        lingering::known_to(&self.target).max(if is_blind { Lingers::Perhaps } else { Lingers::No })
    }

    fn blind_since(&self) -> Option<Instant> {
        *self.blind_since.lock()
    }

    pub(in crate::mirror) fn cleaned_at(&self) -> Option<Timestamp> {
        *self.cleaned_at.lock()
    }

    pub(in crate::mirror) fn set_cleaned_at(&self, now: Timestamp) {
        *self.cleaned_at.lock() = Some(now);
    }
}
