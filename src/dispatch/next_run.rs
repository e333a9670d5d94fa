//! Who runs next. Pure.
//!
//! The number of rsyncs that run at a time is limited, over all targets. Short runs (of the small lane), long runs (of
//! the large lane) and tries each have a share of the places that the others cannot take. So a small change does not wait
//! for the large files of other targets, and nothing waits for a target that hangs. Places beyond the shares go to
//! whoever comes first.
//!
//! A *try* is a run of which nobody knows whether it will end: any run to a target that is in trouble, and any run that
//! has moved nothing for a while ([`SILENCE`]). A server that lets rsync in and then says nothing looks like one that
//! reads a large file, so a run is not ended for its silence alone. A silent run is ended when others go without a place
//! for it, in two cases:
//! - It is a run to a target that has not shown that it works, or a short run to any target, and either tries have more
//!   than their share or another try goes without a place.
//! - It is a long run to a target that was well, and such runs have more than what the shares leave.
//!
//! Each time that happens to a target, its runs may be silent twice as long the next time, so that a target that is only
//! slow gets its work done. Until a target has shown that it works, it has one run at a time, or two where places are
//! many.
//!
//! A short run is also ended while nobody needs its place, once it has been silent for far longer: its server may hang,
//! and where no `--timeout` is set nothing else would end the run for twenty minutes. The run is given less time if more
//! work of its target waits for it.
//!
//! Whoever has waited longest comes first. With fewer than three runs at a time, tries have no share. With one run at a
//! time nobody has a share, and each waits for each.

use std::time::Duration;

use crate::model::{Lane, TargetId};

/// A run that has moved nothing for this long is a try.
pub const SILENCE: Duration = Duration::from_secs(1);
/// How long a short run, and a long run, may be silent while others go without a place: the other side may be reading
/// what is there without a word. `PATIENCE_MAX` is the longest, however often runs to the target were ended for their
/// silence.
const PATIENCE_SMALL: Duration = Duration::from_secs(2);
const PATIENCE_LARGE: Duration = Duration::from_secs(10);
const PATIENCE_MAX: Duration = Duration::from_secs(300);
/// How long a short run may be silent while nobody but its own target goes without, and while nobody does. Longer than
/// connecting may take, which rsync and ssh report by themselves.
const PATIENCE_OWN: Duration = Duration::from_secs(45);
const PATIENCE_ALONE: Duration = Duration::from_secs(120);
/// For this many runs at a time, one place is kept for the small lane.
const RUNS_PER_SMALL: usize = 5;

/// The kind as which a run is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Small,
    Large,
    Try,
}

const KINDS: [Kind; 3] = [Kind::Small, Kind::Large, Kind::Try];

/// The health of a target, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    #[default]
    Fresh,
    /// The target has answered since it was last in trouble.
    Well,
    /// The target is in trouble, or its last run was ended for its silence.
    Ill,
}

/// A target that is served.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub target: TargetId,
    pub health: Health,
    /// Whether the target bears one more run in the small and in the large lane.
    pub bears: [bool; 2],
    /// When each lane last had its turn: the lower, the longer ago.
    pub turns: [u64; 2],
}

/// A run in flight.
#[derive(Debug, Clone)]
pub struct Flight {
    pub id: u64,
    pub target: TargetId,
    pub lane: Lane,
    /// For how long the run has moved nothing.
    pub silent: Duration,
    /// How often in a row runs to its target were ended for their silence.
    pub endings: u32,
    /// Other work of the run's target waits.
    pub holds_up_own: bool,
    /// The run is being ended.
    pub is_ending: bool,
}

impl Flight {
    /// Whether the run has been silent for longer than it may while others go without.
    fn is_overdue(&self) -> bool {
        self.outlasts(match self.lane {
            Lane::Small => PATIENCE_SMALL,
            Lane::Large => PATIENCE_LARGE,
        })
    }

    /// Whether the run has been silent for longer than it may in any case.
    fn is_overdue_alone(&self) -> bool {
        let patience = if self.holds_up_own { PATIENCE_OWN } else { PATIENCE_ALONE };
        self.lane == Lane::Small && self.outlasts(patience)
    }

    fn outlasts(&self, patience: Duration) -> bool {
        self.silent >= patience.saturating_mul(1 << self.endings.min(10)).min(PATIENCE_MAX)
    }
}

/// The next step of the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A run of that target and lane may start.
    Start(TargetId, Lane),
    /// This run is to be ended, since others go without.
    End(u64),
    /// Somebody waits for a place or until a target is known to work, or a short run may hang: look again soon whether
    /// the runs move.
    Wait,
    /// Nobody waits for a place, and no short run is in flight.
    Rest,
}

/// How many runs each kind has for itself.
#[derive(Debug, Clone, Copy)]
struct Shares([usize; 3]);

impl Shares {
    fn of(runs_max: usize) -> Self {
        Self(match runs_max {
            0 | 1 => [0, 0, 0],
            2 => [1, 0, 0],
            _ => [(runs_max / RUNS_PER_SMALL).max(1), 1, 1],
        })
    }

    /// How many places tries can have beside short and long runs.
    fn left(&self, runs_max: usize) -> usize {
        let Self([small, large, _]) = *self;
        runs_max.saturating_sub(small.max(1) + large)
    }

    fn of_kind(&self, kind: Kind) -> usize {
        let Self([small, large, tries]) = *self;
        match kind {
            Kind::Small => small,
            Kind::Large => large,
            Kind::Try => tries,
        }
    }
}

fn of_lane(lane: Lane, pair: [bool; 2]) -> bool {
    let [small, large] = pair;
    match lane {
        Lane::Small => small,
        Lane::Large => large,
    }
}

/// Decides on the next step, with at most `runs_max` runs at a time. `wants` tells whether a target has something to be
/// run in a lane right now.
pub fn next(
    runs_max: usize,
    candidates: &[Candidate],
    flights: &[Flight],
    wants: &mut dyn FnMut(TargetId, Lane) -> bool,
) -> Step {
    let shares = Shares::of(runs_max);
    let health = |target| {
        let known = candidates.iter().find(|other| other.target == target);
        // A target that is no longer served was not in trouble.
        known.map_or(Health::Well, |known| known.health)
    };
    let kind = |target, lane| match lane {
        _ if health(target) == Health::Ill => Kind::Try,
        Lane::Small => Kind::Small,
        Lane::Large => Kind::Large,
    };
    let counted = |flight: &Flight| if flight.silent >= SILENCE { Kind::Try } else { kind(flight.target, flight.lane) };
    let count = |kind| flights.iter().filter(|flight| counted(flight) == kind).count();
    let free = runs_max.saturating_sub(flights.len());
    // Places are free beside those that the other kinds have for themselves.
    let has_room = |wanted: Kind| {
        let others = KINDS.into_iter().filter(|kind| *kind != wanted);
        free > others.map(|kind| shares.of_kind(kind).saturating_sub(count(kind))).sum()
    };
    let in_lane = |target, lane| flights.iter().filter(|run| run.target == target && run.lane == lane).count();
    let is_idle = |target| flights.iter().all(|run| run.target != target);

    let mut order: Vec<(u64, &Candidate, Lane)> = Vec::new();
    for candidate in candidates {
        let [small, large] = candidate.turns;
        order.extend([(small, candidate, Lane::Small), (large, candidate, Lane::Large)]);
    }
    order.sort_by_key(|(turn, ..)| *turn);
    let mut without: Vec<Kind> = Vec::new();
    let mut is_in_doubt = false;
    for (_, candidate, lane) in order {
        let target = candidate.target;
        if !of_lane(lane, candidate.bears) {
            continue;
        }
        let kind = kind(target, lane);
        let is_more = in_lane(target, lane) > 0;
        // One run to a target that may hang tells whether it does. The target gets others only where that costs nobody a
        // place.
        let is_doubted = candidate.health != Health::Well && !is_idle(target);
        let has_plenty = free > KINDS.into_iter().map(|kind| shares.of_kind(kind)).sum();
        if is_doubted && (is_more || candidate.health == Health::Ill || !has_plenty) {
            is_in_doubt = is_in_doubt || wants(target, lane);
            continue;
        }
        // A second large run of a target leaves a place for each of the others.
        let others = || candidates.iter().filter(|other| other.target != target && in_lane(other.target, lane) == 0);
        let is_modest = !is_more || free > shares.of_kind(Kind::Small) + shares.of_kind(Kind::Try) + others().count();
        if (is_more && !(is_modest && has_room(kind))) || !wants(target, lane) {
            continue;
        }
        if has_room(kind) {
            return Step::Start(target, lane);
        }
        without.push(kind);
    }
    if without.is_empty() {
        let mut short = flights.iter().filter(|flight| flight.lane == Lane::Small && !flight.is_ending).peekable();
        let must_look = is_in_doubt || short.peek().is_some();
        let hung = short.find(|flight| flight.is_overdue_alone());
        return hung.map_or(if must_look { Step::Wait } else { Step::Rest }, |flight| Step::End(flight.id));
    }
    if flights.iter().filter(|flight| flight.is_ending).count() >= without.len() {
        return Step::Wait;
    }
    let staying = flights.iter().filter(|flight| counted(flight) == Kind::Try && !flight.is_ending);
    let (tries, is_well_without) = (staying.clone().count(), without.iter().any(|kind| *kind != Kind::Try));
    let may_end = |flight: &&Flight| {
        let is_above = |places| is_well_without && tries > places;
        flight.is_overdue()
            && match health(flight.target) {
                // A short run has little to be silent about.
                Health::Well if flight.lane == Lane::Large => is_above(shares.left(runs_max)),
                // Tries wait only for each other within their share.
                _ => is_above(shares.of_kind(Kind::Try)) || without.contains(&Kind::Try),
            }
    };
    let longest = staying.filter(may_end).max_by_key(|flight| (health(flight.target) != Health::Well, flight.silent));
    longest.map_or(Step::Wait, |flight| Step::End(flight.id))
}

#[cfg(test)]
mod tests;
