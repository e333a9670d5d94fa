//! Who runs next: a table, and a play with targets that hang.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn candidate(n: u32, health: Health) -> Candidate {
    Candidate { target: TargetId(n), health, bears: [true, true], turns: [0, 0] }
}

fn flight(n: u32, lane: Lane, silent_s: u64) -> Flight {
    let (id, silent) = (u64::from(n) * 2 + u64::from(lane == Lane::Large), Duration::from_secs(silent_s));
    Flight { id, target: TargetId(n), lane, silent, endings: 0, holds_up_own: false, is_ending: false }
}

/// The decision with those targets, those runs, and that work.
fn step(runs_max: usize, targets: &[(u32, Health)], flights: &[Flight], work: &[(u32, Lane)]) -> Step {
    let mut candidates: Vec<Candidate> = targets.iter().map(|(n, health)| candidate(*n, *health)).collect();
    for candidate in &mut candidates {
        // `Lanes` allows one short run for each target.
        candidate.bears[0] = !flights.iter().any(|run| run.target == candidate.target && run.lane == Lane::Small);
    }
    next(runs_max, &candidates, flights, &mut |target, lane| work.contains(&(target.0, lane)))
}

#[test]
fn who_runs_next() {
    use Health::{Fresh, Ill, Well};
    use Lane::{Large, Small};
    use Step::{End, Rest, Start, Wait};
    let well = |count: u32| (0..count).map(|n| (n, Well)).collect::<Vec<_>>();
    let runs = |of: std::ops::Range<u32>, lane, silent_s| of.map(|n| flight(n, lane, silent_s)).collect::<Vec<_>>();
    let with = |mut targets: Vec<(u32, Health)>, n, health| {
        targets.push((n, health));
        targets
    };
    let start = |n, lane| Start(TargetId(n), lane);
    for (case, runs_max, targets, flights, work, expected) in [
        ("nothing to do", 10, well(2), vec![], vec![], Rest),
        ("a change", 10, well(2), vec![], vec![(1, Small)], start(1, Small)),
        ("one run at a time", 1, well(2), runs(0..1, Large, 0), vec![(1, Small)], Wait),
        ("of two, one is for the small lane", 2, well(3), runs(0..1, Large, 0), vec![(1, Large)], Wait),
        ("and it has it", 2, well(3), runs(0..1, Large, 0), vec![(1, Large), (2, Small)], start(2, Small)),
        // As many targets as runs, each with a large file: a small one waited for all of them.
        ("large files leave places", 10, well(12), runs(0..7, Large, 0), vec![(7, Large)], Wait),
        ("for a small one", 10, well(12), runs(0..7, Large, 0), vec![(7, Large), (0, Small)], start(0, Small)),
        (
            "and another",
            10,
            well(12),
            [runs(0..7, Large, 0), runs(7..8, Small, 0)].concat(),
            vec![(8, Small)],
            start(8, Small),
        ),
        ("and a try", 10, with(well(12), 20, Ill), runs(0..7, Large, 0), vec![(20, Small)], start(20, Small)),
        ("small ones leave one for a large one", 10, well(12), runs(0..8, Small, 0), vec![(9, Small)], Wait),
        ("which has it", 10, well(12), runs(0..8, Small, 0), vec![(9, Small), (9, Large)], start(9, Large)),
        // As many hung targets as runs left the others without one for twenty minutes.
        ("what is silent is no large run", 10, well(12), runs(0..7, Large, 3), vec![(9, Large)], start(9, Large)),
        ("nor a small one", 10, well(12), runs(0..8, Small, 1), vec![(9, Small)], start(9, Small)),
        ("who was well may be silent", 10, well(12), runs(0..7, Large, 99), vec![(9, Small)], start(9, Small)),
        (
            "but not everywhere",
            10,
            well(12),
            [runs(0..9, Small, 3), runs(9..10, Small, 1)].concat(),
            vec![(10, Small)],
            End(16),
        ),
        (
            "a fresh one is ended",
            3,
            vec![(0, Fresh), (1, Fresh), (2, Fresh), (3, Well)],
            [runs(0..1, Small, 2), runs(1..2, Large, 11), runs(2..3, Small, 0)].concat(),
            vec![(3, Small)],
            End(3),
        ),
        (
            "when it has been silent for long enough",
            3,
            vec![(0, Fresh), (1, Fresh), (2, Fresh), (3, Well)],
            [runs(0..1, Small, 1), runs(1..2, Large, 9), runs(2..3, Small, 0)].concat(),
            vec![(3, Small)],
            Wait,
        ),
        (
            "not within the share",
            3,
            vec![(0, Ill), (1, Well), (2, Well), (3, Well)],
            [runs(0..1, Small, 99), runs(1..2, Large, 0), runs(2..3, Small, 0)].concat(),
            vec![(3, Small)],
            Wait,
        ),
        (
            "but for another one in trouble",
            3,
            vec![(0, Ill), (1, Well), (2, Well), (3, Ill)],
            [runs(0..1, Small, 99), runs(1..2, Large, 0), runs(2..3, Small, 0)].concat(),
            vec![(3, Small)],
            End(0),
        ),
        (
            "a fresh one has a small run beside its large one",
            10,
            vec![(0, Fresh)],
            runs(0..1, Large, 0),
            vec![(0, Small)],
            start(0, Small),
        ),
        (
            "where places are many",
            10,
            (0..8).map(|n| (n, Fresh)).collect(),
            runs(0..6, Large, 0),
            vec![(0, Small)],
            Wait,
        ),
        ("one in trouble does not", 10, vec![(0, Ill)], runs(0..1, Large, 0), vec![(0, Small)], Wait),
        ("then it has others", 10, vec![(0, Well)], runs(0..1, Large, 0), vec![(0, Small)], start(0, Small)),
        ("more large ones of one target", 10, well(3), runs(0..1, Large, 0), vec![(0, Large)], start(0, Large)),
        ("not at the cost of the others", 10, well(9), runs(0..1, Large, 0), vec![(0, Large)], Rest),
        // The server's receiver was killed: nothing was sent to the target for twenty minutes, though nobody needed the place.
        ("a short run may be silent", 10, well(1), runs(0..1, Small, 119), vec![], Wait),
        ("but not for ever", 10, well(1), runs(0..1, Small, 120), vec![], End(0)),
        ("a long one may", 10, well(1), runs(0..1, Large, 1_000), vec![], Rest),
    ] {
        let flights: Vec<Flight> = flights;
        assert_eq!(step(runs_max, &targets, &flights, &work), expected, "{case}");
        assert!(flights.len() <= runs_max, "{case} is no case");
    }
}

#[test]
fn for_each_that_goes_without_one_run_is_ended_and_no_more() {
    let targets: Vec<(u32, Health)> = (0..13).map(|n| (n, Health::Fresh)).collect();
    let mut flights: Vec<Flight> = (0..7).map(|n| flight(n, Lane::Large, 10 + u64::from(n))).collect();
    flights.extend((7..10).map(|n| flight(n, Lane::Small, 2)));
    let work: Vec<(u32, Lane)> = vec![(10, Lane::Small), (11, Lane::Large)];
    let mut ended = Vec::new();
    while let Step::End(id) = step(10, &targets, &flights, &work) {
        flights.iter_mut().filter(|flight| flight.id == id).for_each(|flight| flight.is_ending = true);
        ended.push(id);
    }
    assert_eq!(ended, [13, 11], "the longest silent ones");
}

/// Twice as long each time, so that a server that reads a large file without a word gets its work done.
#[test]
fn patience_grows_with_each_ending() {
    let alone = |holds_up_own, silent_s, endings| {
        Flight { endings, holds_up_own, ..flight(1, Lane::Small, silent_s) }.is_overdue_alone()
    };
    for (holds_up_own, endings, patience_s) in [(true, 0, 45), (true, 2, 180), (false, 0, 120), (false, 2, 300)] {
        assert_eq!([patience_s - 1, patience_s].map(|s| alone(holds_up_own, s, endings)), [false, true]);
    }
    let overdue = |lane, silent_s, endings| Flight { endings, ..flight(1, lane, silent_s) }.is_overdue();
    for (lane, endings, patience_s) in [
        (Lane::Small, 0, 2),
        (Lane::Small, 3, 16),
        (Lane::Large, 0, 10),
        (Lane::Large, 2, 40),
        (Lane::Large, 9, 300),
        (Lane::Large, u32::MAX, 300),
    ] {
        assert!(overdue(lane, patience_s, endings) && !overdue(lane, patience_s - 1, endings), "{lane:?} {endings}");
    }
}

/// A tick of the play below.
const TICK: Duration = Duration::from_millis(500);
/// How long a short run and a long one take there, in ticks.
const SHORT: u64 = 1;
const LONG: u64 = 40;

/// Plays with targets of which some hang from some moment on, whatever is run to them.
struct Play {
    runs_max: usize,
    hangs_from: BTreeMap<u32, u64>,
    candidates: Vec<Candidate>,
    flights: Vec<(Flight, u64)>,
    /// Since when each target waits for a run in each lane.
    waits: BTreeMap<(u32, bool), u64>,
    endings: BTreeMap<u32, u32>,
    /// The tick at which each ill target is tried again.
    tried_at: BTreeMap<u32, u64>,
    turn: u64,
    ids: u64,
    now: u64,
    worst: BTreeMap<&'static str, u64>,
}

impl Play {
    fn hangs(&self, target: TargetId) -> bool {
        self.hangs_from.get(&target.0).is_some_and(|from| *from <= self.now)
    }

    fn tick(&mut self, busy: &BTreeSet<u32>) {
        self.now += 1;
        let (now, hung): (u64, BTreeSet<u32>) =
            (self.now, self.candidates.iter().map(|c| c.target).filter(|t| self.hangs(*t)).map(|t| t.0).collect());
        // Runs that have run long enough end; runs that are being ended have ended.
        let mut left = Vec::new();
        for (mut flight, started) in std::mem::take(&mut self.flights) {
            let takes = if flight.lane == Lane::Small { SHORT } else { LONG };
            let is_hung = hung.contains(&flight.target.0);
            let known = self.candidates.iter_mut().find(|known| known.target == flight.target).unwrap();
            if flight.is_ending {
                known.health = Health::Ill;
                *self.endings.entry(flight.target.0).or_default() += 1;
                self.tried_at.insert(flight.target.0, now + 20);
            } else if !is_hung && now >= started + takes {
                known.health = Health::Well;
                self.endings.remove(&flight.target.0);
            } else {
                if is_hung {
                    flight.silent += TICK;
                } else if known.health == Health::Fresh && now > started + 2 {
                    known.health = Health::Well;
                }
                left.push((flight, started));
            }
        }
        self.flights = left;
        // Every target always has short work, and long work as well if it is busy.
        for candidate in &self.candidates {
            for large in [false, true] {
                if !large || busy.contains(&candidate.target.0) {
                    self.waits.entry((candidate.target.0, large)).or_insert(now);
                }
            }
        }
        loop {
            let flights: Vec<Flight> = self
                .flights
                .iter()
                .map(|(flight, _)| Flight {
                    endings: self.endings.get(&flight.target.0).copied().unwrap_or(0),
                    ..flight.clone()
                })
                .collect();
            for candidate in &mut self.candidates {
                let has = |lane| flights.iter().any(|run| run.target == candidate.target && run.lane == lane);
                candidate.bears = [!has(Lane::Small), !has(Lane::Large)];
            }
            let health = |target: TargetId| self.candidates.iter().find(|c| c.target == target).unwrap().health;
            let (waits, tried_at) = (&self.waits, &self.tried_at);
            let mut wants = |target: TargetId, lane| {
                let is_due = health(target) != Health::Ill || tried_at.get(&target.0).is_none_or(|at| *at <= now);
                is_due && waits.contains_key(&(target.0, lane == Lane::Large))
            };
            match next(self.runs_max, &self.candidates, &flights, &mut wants) {
                Step::Start(target, lane) => {
                    let since = self.waits.remove(&(target.0, lane == Lane::Large)).unwrap();
                    let what = match (health(target), lane) {
                        (Health::Ill, _) => "try",
                        (_, Lane::Small) => "small",
                        (_, Lane::Large) => "large",
                    };
                    if !hung.contains(&target.0) && what != "try" {
                        let worst = self.worst.entry(what).or_default();
                        *worst = (*worst).max(now - since);
                    }
                    self.turn += 1;
                    self.ids += 1;
                    let candidate = self.candidates.iter_mut().find(|c| c.target == target).unwrap();
                    candidate.turns[usize::from(lane == Lane::Large)] = self.turn;
                    let flight = Flight {
                        id: self.ids,
                        target,
                        lane,
                        silent: Duration::ZERO,
                        endings: 0,
                        holds_up_own: false,
                        is_ending: false,
                    };
                    self.flights.push((flight, now));
                }
                Step::End(id) => {
                    let (flight, _) = self.flights.iter_mut().find(|(flight, _)| flight.id == id).unwrap();
                    assert!(!flight.is_ending && hung.contains(&flight.target.0), "a run that moves is never ended");
                    flight.is_ending = true;
                }
                Step::Wait | Step::Rest => break,
            }
            assert!(self.flights.len() <= self.runs_max, "more than -n");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever hangs, and whenever it begins to: a target that is well gets a short run within seconds, and a long one
    /// once the long runs of others before it have ended.
    #[test]
    fn nobody_who_is_well_goes_without_a_run(
        runs_max in 3_usize..13,
        well in 1_u32..13,
        hung in proptest::collection::vec(prop_oneof![Just(0_u64), 1_u64..300], 0..13),
        busy in proptest::collection::btree_set(0_u32..26, 0..26),
    ) {
        let hangs_from: BTreeMap<u32, u64> = hung.iter().enumerate().map(|(n, from)| (n as u32, *from)).collect();
        let count = hung.len() as u32 + well;
        let mut play = Play {
            runs_max,
            hangs_from,
            candidates: (0..count).map(|n| candidate(n, Health::Fresh)).collect(),
            flights: Vec::new(),
            waits: BTreeMap::new(),
            endings: BTreeMap::new(),
            tried_at: BTreeMap::new(),
            turn: 0,
            ids: 0,
            now: 0,
            worst: BTreeMap::new(),
        };
        (0..700).for_each(|_| play.tick(&busy));
        // Each of the other targets may come first once, and so may each target that is found out to hang.
        let small_places = (runs_max / RUNS_PER_SMALL).max(1) as u64;
        let turns = u64::from(count).div_ceil(small_places) + 1;
        let found_out = 12 * (1 + u64::from(hung.len() as u32).div_ceil(small_places));
        let worst = |what| play.worst.get(what).copied().unwrap_or(0);
        prop_assert!(worst("small") <= turns * (SHORT + 1) + found_out, "{} ticks for a short run", worst("small"));
        let waiting = play.waits.iter().filter(|((target, large), _)| !large && !play.hangs(TargetId(*target)));
        for ((target, _), since) in waiting {
            prop_assert!(play.now - since <= turns * (SHORT + 1) + found_out, "{target} waits since {since} of {}", play.now);
        }
        let bound = (u64::from(count) + 1) * (LONG + 30) + found_out;
        prop_assert!(worst("large") <= bound, "{} ticks for a long run, expected {bound}", worst("large"));
        let waiting = play.waits.iter().filter(|((target, large), _)| *large && !play.hangs(TargetId(*target)));
        for ((target, _), since) in waiting {
            prop_assert!(play.now - since <= bound, "{target} waits for a long run since {since} of {}", play.now);
        }
    }

    /// With one or two runs at a time no target is starved either, only served later.
    #[test]
    fn few_runs_at_a_time_come_to_everybody(runs_max in 1_usize..3, well in 1_u32..4, hung in 0_u32..4) {
        let mut play = Play {
            runs_max,
            hangs_from: (0..hung).map(|n| (n, 0)).collect(),
            candidates: (0..hung + well).map(|n| candidate(n, Health::Fresh)).collect(),
            flights: Vec::new(),
            waits: BTreeMap::new(),
            endings: BTreeMap::new(),
            tried_at: BTreeMap::new(),
            turn: 0,
            ids: 0,
            now: 0,
            worst: BTreeMap::new(),
        };
        (0..2_000).for_each(|_| play.tick(&BTreeSet::from([hung])));
        for target in hung..hung + well {
            let turns = play.candidates.iter().find(|c| c.target == TargetId(target)).unwrap().turns;
            prop_assert!(turns[0] > 1 && (target != hung || turns[1] > 1), "{target} had its turns: {turns:?}");
        }
    }
}
