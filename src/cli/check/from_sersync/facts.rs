//! The differences between sersync and syncq, each written down once.
//!
//! `table` names the facts that concern an attribute. The test in `documents` makes the tables of README and of the page about
//! sersync (`tests/compatibility.md`) from these facts and from `table`, so a fact is changed here alone. Data only. The texts
//! are written as the documents have them: text between backticks is code.

/// One difference.
pub struct Fact {
    /// The number of the fact in the page's list of losses. Empty if it is not in that list.
    pub number: &'static str,
    pub about: &'static str,
    pub sersync: &'static str,
    pub syncq: &'static str,
    /// The tests that prove syncq's side.
    pub tests: &'static [&'static str],
}

impl Fact {
    /// The fact in words for an operator who looks at a configuration.
    pub fn told(&self) -> String {
        format!("{}: {} (sersync: {})", self.about, self.syncq, self.sersync)
    }
}

pub const fn fact(
    number: &'static str,
    about: &'static str,
    sersync: &'static str,
    syncq: &'static str,
    tests: &'static [&'static str],
) -> Fact {
    Fact { number, about, sersync, syncq, tests }
}

pub const PENDING: Fact = fact(
    "L19",
    "pending changes",
    "in memory, lost with the process: at a stop as in a crash",
    "in a durable queue, one job per target and path; they survive `kill -9` and are run again",
    &["l19_kill_9_under_load_loses_nothing", "l19_term_under_load_loses_nothing_and_counts_no_attempt"],
);
pub const FAILED_RUN: Fact = fact(
    "L7",
    "a run that fails",
    "tried once more, then a line in a script that is run once and emptied whatever came of it",
    "tried again with growing pauses, for ever",
    &["l7_l8d_what_waits_for_a_dead_target_survives_a_restart"],
);
pub const EXIT_23: Fact = fact(
    "L6",
    "rsync exit 23 (some files failed)",
    "counts as success",
    "the files concerned stay in the queue with rsync's message, the others are done",
    &[
        "l6_an_unreadable_source_file_fails_alone_and_by_name",
        "l6_a_directory_that_the_receiver_may_not_write_holds_up_only_itself",
        "l6_an_immutable_directory_on_the_target_holds_up_only_itself",
        "l6_a_refused_deletion_is_listed_and_heals",
    ],
);
pub const DOWN: Fact = fact(
    "L8b",
    "a target that is down or slow",
    "holds up all others",
    "has a durable queue of its own and its own pauses; the others do not notice, and it gets all that it missed",
    &["l25_l8b_an_rsyncd_that_is_gone_delays_nobody_and_catches_up"],
);
pub const CONNECTIONS: Fact = fact(
    "L8f",
    "`max connections` reached",
    "changes are lost",
    "fewer connections at a time, nothing lost",
    &["l8f_a_thousand_files_arrive_through_two_connections", "l8f_one_connection_for_both_targets_is_enough"],
);
pub const BURST: Fact = fact(
    "L29",
    "1,000 files written",
    "1,000 rsync runs per target",
    "a few runs; changes gather while one is under way",
    &["l29_a_burst_of_small_files_costs_few_runs", "l29_saving_like_sed_does_costs_few_runs"],
);
pub const NAMES: Fact = fact(
    "S1",
    "file names with quotes, `$( )`, newlines",
    "run as commands, as root",
    "never seen by a shell; mirrored byte for byte",
    &[
        "s1_odd_file_names_are_created_changed_and_deleted_byte_for_byte",
        "s1_odd_directory_names_are_filled_renamed_and_deleted",
    ],
);
pub const FIRST_COMPARISON: Fact = fact(
    "",
    "what only the target has",
    "stays without `-r` and `crontab`",
    "the first comparison with a target, however little only the target has, deletes nothing without `-r`: the \
     target is `needs_approval` and says how many entries that are; `syncq reconcile --dry-run` shows them, `syncq \
     accept-deletions` has them deleted. With `-r` it deletes",
    &["a_first_start_without_r_deletes_nothing_and_says_what_it_would"],
);
pub const WITHOUT_A_DAEMON: Fact = fact(
    "L10",
    "changes made before the watches are set, or while no daemon is running",
    "lost, the latter without `-r`",
    "found at every start",
    &["l10_changes_during_the_first_run_arrive", "l10_changes_while_stopped_arrive_after_the_start"],
);
pub const FILTERED_RUNS: Fact = fact(
    "",
    "`-r`, `crontab` with a filter",
    "refused",
    "done, with the filter",
    &["l17_filters_hold_for_whole_tree_runs_and_l10_a_filter_does_not_prevent_them"],
);
pub const SCHEDULE: Fact = fact(
    "",
    "`crontab schedule`",
    "minutes, when nothing else is to do and nothing has failed for a minute",
    "minutes, a cron expression (`0 3 * * *`) or `@daily`, with a `timezone=\"Europe/Berlin\"` if need be; always \
     on time, under load and with a filter too, and a run missed while syncq was down is made up for, once",
    &["scheduled_runs_never_overlap"],
);
pub const FILTER: Fact = fact(
    "L17",
    "filter",
    "different for events, for new directories, all of which was copied, and for whole-tree runs",
    "one verdict everywhere; your expressions keep their meaning",
    &["l17_filters_hold_for_live_events", "l17_filters_hold_in_directories_that_come_into_being"],
);
pub const LEFT_OUT_BY_RSYNC: Fact = fact(
    "",
    "`--exclude`, `-C`, `-F`, `-x`, `-L` and the like in `commonParams`",
    "hold for some runs",
    "hold for live changes as for comparisons; `--delete-excluded` and `-m` are refused",
    &[],
);
pub const DOT_FILES: Fact = fact(
    "L11",
    "dot-files",
    "not followed, .htaccess and .env neither",
    "mirrored. Only temporaries of editors and of rsync itself are skipped; `<syncq><legacyHidden \
     start=\"true\"/>` in `<head>` brings sersync's rule back",
    &["l11_hidden_files_are_mirrored_and_temporaries_are_not"],
);
pub const UPDATE: Fact = fact(
    "L22",
    "`-u` in `commonParams`",
    "hides a restored older file, as of `tar -x` or `cp -p`, for ever",
    "-u is dropped, with a notice, unless `<commonParams keepNewer=\"true\"/>`",
    &["l22_an_older_file_replaces_a_newer_one_in_spite_of_u"],
);
pub const OVERFLOW: Fact = fact(
    "L9",
    "event queue overflow",
    "unnoticed",
    "logged, and what has changed since is looked for",
    &["l9_an_overflow_of_a_small_kernel_queue_is_made_up_for"],
);
pub const UNWATCHED: Fact = fact(
    "L13",
    "a directory that cannot be watched",
    "silently left out",
    "reported, and looked through every 10 seconds",
    &["l13_an_unreadable_directory_is_shown_and_covered_once_it_opens"],
);
pub const LOCALPATHS: Fact = fact(
    "L18",
    "several `<localpath>`, several files",
    "only the first",
    "all of them",
    &["l18_every_localpath_is_served", "l18_every_file_with_an_o_is_served_and_others_are_reported"],
);
pub const MISSING: Fact = fact(
    "L4",
    "a missing element",
    "crash",
    "the default; a few are warned of with line and column, many in one line",
    &["l4_a_configuration_with_only_the_essentials_runs"],
);
pub const TIME_TO_EXECUTE: Fact = fact(
    "",
    "`failLog timeToExecute`",
    "minutes between runs of the script",
    "the longest pause of something that fails, in minutes: it is tried again after 1 s, then ever later up to \
     this, until it succeeds",
    &["failures_back_off_and_a_newer_change_shortens_the_wait"],
);
pub const EMPTY_SOURCE: Fact = fact(
    "L26",
    "an empty, missing or unmounted source",
    "empties the mirrors",
    "nothing is deleted until the source is back, at the start too. A directory that has taken its place since the \
     last run is mirrored only after a restart with `--accept-root`",
    &[
        "l26_a_source_emptied_while_down_deletes_nothing_with_r",
        "l26_a_root_that_is_another_one_at_the_start_wipes_nothing",
    ],
);
pub const HALF_A_SOURCE: Fact = fact(
    "",
    "a wrong module, a source that is half restored",
    "wiped",
    "nothing is deleted until somebody agrees where a comparison would delete more than half of a target \
     (`maxDelete`)",
    &["deletions_that_are_held_back_show_and_are_accepted_without_a_restart"],
);
pub const LIMITS: Fact = fact(
    "",
    "inotify limits",
    "overwritten at every start",
    "raised when they are met, if that helps, as far as the memory bears it; never lowered",
    &["limits_only_rise_and_only_for_root"],
);
pub const CHMOD: Fact = fact(
    "L2",
    "metadata",
    "chmod of a directory ends its watching",
    "mode, owner and times are followed, of directories too",
    &[
        "l2_chmod_of_directories_arrives_and_writes_below_still_do",
        "l2_chmod_of_a_directory_sends_its_pending_children_too",
    ],
);
pub const BRACKETS: Fact = fact(
    "L20",
    "names with brackets",
    "they are not deleted",
    "deletions go by the exact name",
    &["l20_names_with_brackets_are_deleted"],
);
pub const STAR: Fact = fact(
    "L21",
    "a file called `*`",
    "deleting it deletes its neighbours",
    "deletions go by the exact name",
    &["l21_deleting_a_file_called_star_deletes_that_file_only"],
);
pub const CREATE_FOLDER: Fact = fact(
    "L16",
    "new directories without `createFolder`",
    "never looked into",
    "watched all the same, so that files in them arrive",
    &["l16_without_create_folder_new_trees_are_watched_all_the_same"],
);
pub const MOVE_FROM: Fact = fact(
    "L16",
    "a renamed directory without `moveFrom`",
    "what changes below it is sent to a path that no longer exists",
    "the old name stays on the target, as in sersync; what changes below arrives under the new name",
    &["l16_without_move_from_changes_below_a_renamed_directory_arrive_under_its_new_name"],
);
pub const NOTICES: Fact = fact(
    "L31",
    "notices of a plugin",
    "dropped silently after 100 ms in all, the operation unknown",
    "they wait while nobody listens",
    &[
        "l31_a_slow_listener_is_told_of_all_hundred_changes",
        "a_hanging_plugin_keeps_a_bounded_line_and_counts_what_it_drops",
    ],
);
pub const COMMAND_PLUGIN: Fact = fact(
    "S2",
    "the command plugin",
    "a file name could run commands",
    "split into words and started without a shell; the path is one argument",
    &["s2_a_path_is_one_argument_and_nothing_else_runs", "s2_no_name_runs_and_a_slash_at_the_end_shows"],
);
pub const FAIL_SCRIPT: Fact = fact(
    "S3",
    "`failLog path`",
    "a script that anybody may write is run as root, and emptied whatever came of it",
    "a list of what is failing, for reading, with mode 600. `syncq import-faillog` takes over what an old script \
     stands for",
    &["s3_the_fail_log_is_never_executed", "only_a_list_of_our_own_is_replaced"],
);
pub const CDN_URL: Fact = fact(
    "S4",
    "a path in a URL",
    "as it is: a file name could add a parameter or a header line",
    "URL-encoded, so that no name adds a parameter or a header line",
    &["s4_no_name_can_add_a_parameter_or_a_header_line"],
);
pub const CDN_PASSWORD: Fact = fact(
    "S4",
    "the password of a CDN",
    "appended in the clear to ./errorlog.txt with each request",
    "in no log",
    &["s4_a_cdn_is_told_and_its_password_stays_secret"],
);
pub const BAD_EXPRESSION: Fact = fact(
    "L3",
    "a bad expression",
    "crash at the first event",
    "an error at the start",
    &["l3_a_bad_expression_is_reported_at_the_start"],
);

/// The facts in README's table, in its order.
#[cfg(test)]
pub const IN_GENERAL: &[&Fact] = &[
    &PENDING,
    &FAILED_RUN,
    &EXIT_23,
    &DOWN,
    &CONNECTIONS,
    &BURST,
    &NAMES,
    &FIRST_COMPARISON,
    &WITHOUT_A_DAEMON,
    &FILTERED_RUNS,
    &SCHEDULE,
    &FILTER,
    &LEFT_OUT_BY_RSYNC,
    &DOT_FILES,
    &UPDATE,
    &OVERFLOW,
    &UNWATCHED,
    &LOCALPATHS,
    &MISSING,
    &TIME_TO_EXECUTE,
    &EMPTY_SOURCE,
    &HALF_A_SOURCE,
    &LIMITS,
];

/// The other facts, which the documents tell where they matter.
#[cfg(test)]
pub const IN_PLACE: &[&Fact] = &[
    &CHMOD,
    &BRACKETS,
    &STAR,
    &CREATE_FOLDER,
    &MOVE_FROM,
    &NOTICES,
    &COMMAND_PLUGIN,
    &FAIL_SCRIPT,
    &CDN_URL,
    &CDN_PASSWORD,
    &BAD_EXPRESSION,
];
