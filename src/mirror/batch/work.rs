//! The pieces in which a batch is worked off. `execute` has a stack of them and takes the next from its top; each step tells
//! in return what is to be done next. So no step carries out another, and what comes when stands in one place.
//!
//! Deliberately absent: how a piece is carried out (`engine` and `filtered`).

use std::collections::BTreeMap;

use super::session::Flow;
use crate::mirror::plan::narrow;
use crate::mirror::plan::run::Run;
use crate::mirror::plan::source::Presence;
use crate::model::RelPath;

/// What is to be done next, the first thing first, or why nothing is.
pub(super) type Next = Result<Vec<Work>, Flow>;

/// One piece of work.
#[derive(Debug)]
pub(super) enum Work {
    /// A run by its own list: with fewer words or in pieces, where that is possible or necessary.
    Run(Run),
    /// A piece of such a run, carried out by one rsync.
    Piece(Run),
    /// Finds what differs in the directories of a run, for the filter's expressions to judge.
    Survey(Run),
    /// Sends and deletes by name what a survey of `run` has found. `is_judged`: the expressions have been asked about all
    /// that lies below.
    Send { run: Run, entries: BTreeMap<RelPath, Presence>, is_judged: bool },
    /// Lies below the work for these jobs. If that ends early, what went through is no more than a part of them, and they
    /// are open again; where it is reached, nothing is left to be done for them.
    Reopen(Vec<usize>),
}

impl Work {
    /// Makes equal, under the filter's expressions, what a run compares.
    pub(super) fn filtered(run: Run) -> Vec<Self> {
        let pieces = narrow::pieces(run).into_iter();
        pieces
            .flat_map(|run| {
                let jobs = run.jobs();
                [Self::Survey(run), Self::Reopen(jobs)]
            })
            .collect()
    }

    pub(super) fn halves(run: Run) -> Vec<Self> {
        let (first, second) = run.halves();
        vec![Self::Piece(first), Self::Piece(second)]
    }
}
