//! The part of the page about sersync (`tests/compatibility.md`) that nothing else tells: further losses, the command line, and
//! the tests behind each attribute. Data only; `documents` makes the page's tables of it.

use super::facts::{Fact, fact};

/// Losses that neither README nor `check --from-sersync` tells of.
pub const FURTHER_LOSSES: &[Fact] = &[
    fact("L3", "", "no process: crash", "", &["l3_without_processes_everything_waits_and_comes_again"]),
    fact(
        "L1",
        "",
        "an event of a renamed directory kills it",
        "",
        &["l1_events_of_a_directory_renamed_while_nobody_read_them"],
    ),
    fact(
        "L5",
        "",
        "results lost with `-d`, everything sent twice",
        "",
        &["l5_each_file_of_a_burst_is_transferred_about_once"],
    ),
    fact(
        "L8",
        "",
        "retries and whole-tree runs starve",
        "",
        &["l8_a_path_that_keeps_failing_holds_up_neither_retries_nor_comparisons"],
    ),
    fact(
        "L8c",
        "",
        "two processes empty each other's list",
        "",
        &["l8c_two_daemons_do_not_write_over_each_others_list"],
    ),
    fact("L8d", "", "an odd name keeps the whole script from running", "", &["l8d_odd_names_hold_up_no_retry"]),
    fact(
        "L8e",
        "",
        "a missing directory: nothing recorded",
        "",
        &["s3_l8e_a_link_or_a_missing_directory_costs_the_list_only"],
    ),
    fact(
        "L12",
        "",
        "links, pipes, truncate, mmap, metadata",
        "",
        &[
            "l12_symlinks_arrive",
            "l12_hard_links_arrive_by_content",
            "l12_truncate_by_path_arrives",
            "l12_a_write_through_mmap_arrives",
            "l12_a_file_without_a_name_arrives_once_it_gets_one",
        ],
    ),
    fact(
        "L14",
        "",
        "link loops, unknown entry types",
        "",
        &["l14_symlink_loops_are_not_walked", "l14_xfs_changes_nothing_and_link_loops_end"],
    ),
    fact(
        "L15",
        "",
        "a missing root: an idle process",
        "",
        &[
            "l15_a_root_that_is_missing_at_the_start_is_waited_for",
            "l15_a_root_renamed_away_deletes_nothing_and_resumes",
        ],
    ),
    fact(
        "L23",
        "",
        "a file in place of a directory",
        "",
        &["l23_every_kind_becomes_every_other", "l23_swaps_in_quick_succession_end_equal"],
    ),
    fact(
        "L24",
        "",
        "no order per path",
        "",
        &["l24_the_last_state_of_a_file_in_flight_wins", "l24_delete_and_create_again_ends_with_the_file"],
    ),
    fact("L25", "", "one hung target stalls all", "", &["l25_a_target_that_hangs_delays_nobody"]),
    fact("L27", "", "a file called like an option", "", &["l27_a_file_called_like_an_option_is_deleted_itself"]),
    fact(
        "L28",
        "",
        "blanks and metacharacters in configured paths",
        "",
        &["l28_odd_characters_in_the_root_and_the_module_path_work"],
    ),
    fact(
        "L30",
        "",
        "hard links, ACLs, attributes lost in batches",
        "",
        &[
            "l30_extended_attributes_arrive_where_params_ask_for_them",
            "l30_hard_links_and_holes_survive_where_params_ask_for_them",
        ],
    ),
    fact(
        "S5",
        "",
        "buffers without an end",
        "",
        &[
            "s5_no_answer_can_hang_or_flood_a_plugin",
            "s5_a_trickling_answer_is_cut_off",
            "s5_a_path_longer_than_two_thousand_bytes_arrives",
        ],
    ),
    fact(
        "S6",
        "",
        "umask 0, no lock, sysctls lowered",
        "",
        &[
            "sersyncs_command_lines_start_a_daemon_in_the_background",
            "s6_a_second_daemon_on_one_state_directory_is_refused",
            "limits_only_rise_and_only_for_root",
        ],
    ),
];

/// sersync's start and its command line.
pub const COMMAND_LINE: &[Fact] = &[
    fact(
        "",
        "",
        "`-d -r -o -n`, run together, `./confxml.xml` by default",
        "the same; `-d` returns when the daemon is up, or with its exit code",
        &[
            "sersyncs_command_lines_start_a_daemon_in_the_background",
            "without_o_the_file_in_the_current_directory_is_taken",
            "l4_d_does_not_return_0_when_the_daemon_cannot_start",
        ],
    ),
    fact(
        "",
        "",
        "`-r` ends before the watches begin",
        "the watches come first",
        &["l10_changes_during_the_first_run_arrive"],
    ),
    fact(
        "",
        "",
        "`-d` keeps its descriptors, so that `ssh host sersync2 -d` hangs",
        "it lets go of them",
        &["sersync2_d_lets_go_of_the_output_that_ssh_waits_for"],
    ),
    fact(
        "",
        "",
        "the process is called `sersync2`, its configuration stands in its arguments",
        "the same under that name",
        &["sersync2_in_its_own_directory_takes_the_short_forms"],
    ),
    fact("", "", "`-h` returns 0, also under the name `sersync2`", "the same", &["h_returns_0_under_either_name"]),
    fact("", "", "`-n`", "the most rsyncs at a time", &["n_limits_the_rsyncs_at_a_time"]),
    fact(
        "",
        "",
        "`-m`",
        "the plugin alone, and no rsync; of a deleted directory it is told as such, which stands for what was in it",
        &["m_runs_the_plugin_alone", "m_says_what_is_wrong"],
    ),
    fact(
        "",
        "",
        "several configurations, one process each",
        "also several in one process",
        &[
            "l18_every_file_with_an_o_is_served_and_others_are_reported",
            "two_configurations_in_one_process_have_a_plugin_each",
        ],
    ),
    fact(
        "",
        "",
        "`watch path is:`, `execute command:`",
        "printed; the command compares the whole tree when pasted",
        &["the_start_prints_the_lines_that_people_copy"],
    ),
    fact(
        "",
        "",
        "exit codes 1, 255, 134, 139",
        "1 failed, 2 usage, 78 configuration",
        &["usage_errors_end_with_2", "broken_xml_is_named_by_file_line_and_column"],
    ),
    fact(
        "",
        "",
        "banner, sysctl writes at every start",
        "no banner; limits are raised only where they are too small",
        &["limits_only_rise_and_only_for_root"],
    ),
];

/// The parts of sersync's behaviour that a configuration relies on and that are no attributes.
pub const AT_LARGE: &[Fact] = &[
    fact(
        "",
        "grammar: stray text, any letter case, unquoted values, any encoding under any label, comments, CRLF, BOM",
        "",
        "read as sersync does; what it refused is refused with line and column",
        &["every_file_means_what_is_written_beside_it", "syntax_errors_have_a_place"],
    ),
    fact(
        "",
        "damaged files",
        "",
        "an error, never a crash or a hang",
        &["no_damage_makes_the_reader_panic_or_hang", "a_megabyte_of_anything_is_read_in_one_go"],
    ),
    fact(
        "",
        "unknown or misspelled names, missing elements",
        "",
        "a warning with a suggestion; the documented default",
        &["every_file_means_what_is_written_beside_it", "l4_a_configuration_with_only_the_essentials_runs"],
    ),
    fact(
        "",
        "the layout of -R: paths below the watch, with the attributes of the directories above",
        "",
        "the same",
        &["a_configuration_from_a_tutorial_runs_as_it_is", "l12_mode_owner_and_times_arrive"],
    ),
    fact(
        "",
        "a rename is a deletion and an upload",
        "",
        "the effect is the same; a directory or a large file is not sent again",
        &["a_renamed_directory_is_not_sent_again", "a_large_file_that_is_renamed_or_moved_is_not_sent_again"],
    ),
    fact(
        "",
        "an old `rsync_fail_log.sh`",
        "",
        "kept; `syncq import-faillog` queues what it stands for",
        &["an_old_script_is_kept_and_can_be_taken_over", "sersyncs_commands_are_understood"],
    ),
];

/// For each attribute: element, name, a note on what stays the same (empty if that needs no word), and the tests that prove the
/// whole row.
pub const TESTED: &[(&str, &str, &str, &[&str])] = &[
    ("host", "hostip", "", &["the_stock_file_loads_unchanged"]),
    ("debug", "start", "", &["debug_shows_each_command"]),
    ("fileSystem", "xfs", "", &["l14_xfs_changes_nothing_and_link_loops_end"]),
    ("filter", "start", "", &["l17_filters_hold_for_whole_tree_runs_and_l10_a_filter_does_not_prevent_them"]),
    (
        "filter/exclude",
        "expression",
        "",
        &["l17_filters_hold_for_live_events", "l17_filters_hold_in_directories_that_come_into_being"],
    ),
    (
        "inotify/delete",
        "start",
        "off: nothing is deleted",
        &["without_delete_nothing_is_deleted", "a_first_start_without_r_deletes_nothing_and_says_what_it_would"],
    ),
    ("inotify/createFolder", "start", "", &["l16_without_create_folder_new_trees_are_watched_all_the_same"]),
    ("inotify/createFile", "start", "", &["random_changes_end_equal_with_modify_and_create_file"]),
    (
        "inotify/closeWrite",
        "start",
        "off: what is written is not sent by itself; a warning if nothing follows writes. Names that end in ~, and 4913, are mirrored",
        &[
            "without_close_write_only_what_is_moved_in_is_sent",
            "switches_that_leave_writes_unfollowed_are_told",
            "l11_hidden_files_are_mirrored_and_temporaries_are_not",
            "temporaries_are_skipped_and_their_look_alikes_are_not",
            "legacy_hidden_skips_what_sersync_skipped",
        ],
    ),
    (
        "inotify/moveFrom",
        "start",
        "",
        &["l16_without_move_from_changes_below_a_renamed_directory_arrive_under_its_new_name"],
    ),
    (
        "inotify/moveTo",
        "start",
        "off: what comes under a new name is not sent by itself",
        &["without_move_to_a_new_name_waits_for_a_write"],
    ),
    (
        "inotify/attrib",
        "start",
        "",
        &["l2_chmod_of_directories_arrives_and_writes_below_still_do", "l12_mode_owner_and_times_arrive"],
    ),
    ("inotify/modify", "start", "", &["l12_with_modify_on_a_file_is_followed_while_it_is_open"]),
    ("sersync/localpath", "watch", "", &["l18_every_localpath_is_served"]),
    ("sersync/localpath/remote", "ip", "", &["l25_a_target_that_hangs_delays_nobody", "hand_written_markup_loads"]),
    (
        "sersync/rsync/commonParams",
        "params",
        "",
        &["words_are_split_as_in_a_shell", "l22_an_older_file_replaces_a_newer_one_in_spite_of_u"],
    ),
    (
        "sersync/rsync/auth",
        "start",
        "",
        &["a_configuration_from_a_tutorial_runs_as_it_is", "the_write_up_works_as_it_stands"],
    ),
    (
        "sersync/rsync/userDefinedPort",
        "start",
        "",
        &["a_configuration_from_a_tutorial_runs_as_it_is", "a_flat_run_to_each_kind_of_destination"],
    ),
    ("sersync/rsync/timeout", "start", "", &["a_flat_run_to_each_kind_of_destination"]),
    (
        "sersync/rsync/ssh",
        "start",
        "runs to a host share a connection",
        &[
            "ssh_with_the_settings_of_a_daemon_is_told_what_is_ignored",
            "twenty_changes_for_two_targets_of_a_host_are_one_handshake",
        ],
    ),
    (
        "sersync/failLog",
        "path",
        "",
        &["the_list_says_what_is_failing_and_when_nothing_is", "a_path_that_fails_is_listed_with_its_command"],
    ),
    (
        "sersync/failLog",
        "timeToExecute",
        "",
        &["every_file_means_what_is_written_beside_it", "failures_back_off_and_a_newer_change_shortens_the_wait"],
    ),
    ("sersync/crontab", "start", "", &["scheduled_runs_never_overlap"]),
    (
        "sersync/crontab/crontabfilter/exclude",
        "expression",
        "",
        &["only_a_reconcile_knows_its_excludes_and_the_filters_rules_come_last"],
    ),
    (
        "plugin/param",
        "prefix",
        "`prefix PATH suffix`, with `//` as in sersync",
        &["s2_no_name_runs_and_a_slash_at_the_end_shows"],
    ),
    ("plugin/filter/include", "expression", "", &["only_included_paths_are_told"]),
    ("plugin/localpath", "watch", "", &["a_plugins_watch_says_what_it_is_told_of_and_takes_nothing_over"]),
    (
        "plugin/localpath/deshost",
        "ip",
        "the path's bytes, one connection each",
        &["l31_a_slow_listener_is_told_of_all_hundred_changes", "s5_a_path_of_any_length_arrives_whole"],
    ),
    (
        "plugin/localpath/deshost",
        "url",
        "sersync's form, which it never sent itself",
        &["the_request_is_a_form", "a_web_server_gets_a_form_and_its_password_stays_secret"],
    ),
    ("plugin/localpath/cdninfo", "domainname", "sersync's request", &["the_request_has_sersyncs_form"]),
    ("plugin/localpath/regexurl", "match", "", &["an_expression_picks_what_the_url_is_made_of"]),
];
