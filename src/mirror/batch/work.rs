//! The pieces of work into which a batch is divided. `execute` keeps a stack of pieces and takes the next from its top;
//! each step returns the pieces that come next. So no step carries out another, and the order of the steps is decided in
//! one place.
//!
//! Deliberately absent: how a piece is carried out (`engine` and `filtered`).

use std::collections::BTreeMap;

use super::session::Flow;
use crate::mirror::plan::narrow;
use crate::mirror::plan::run::Run;
use crate::mirror::plan::source::Presence;
use crate::model::RelPath;

/// The pieces that come next, the first one first, or why the batch does not go on.
pub(super) type Next = Result<Vec<Work>, Flow>;

/// One piece of work.
#[derive(Debug)]
pub(super) enum Work {
    /// A run by its own list. Its list may be shortened, or divided into pieces.
    Run(Run),
    /// One piece of a run, carried out by one rsync.
    Piece(Run),
    /// Finds what differs in the directories of a run, so that the filter's expressions can judge each path.
    Survey(Run),
    /// Sends and deletes by name what a survey of `run` has found. `is_judged`: the expressions have been asked about
    /// everything below these entries.
    Send { run: Run, entries: BTreeMap<RelPath, Presence>, is_judged: bool },
    /// Lies in the stack below the work for these jobs. If that work ends early, only a part of each job was done, so the
    /// jobs are opened again. When the stack gets down to this piece, their work is complete and nothing has to be done.
    Reopen(Vec<usize>),
}

impl Work {
    /// The work that makes equal, under the filter's expressions, the directories that `run` compares.
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
