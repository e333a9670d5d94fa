//! Whole files as users have them.

use super::*;

#[test]
fn the_stock_file_loads_unchanged() {
    let (config, warnings) = ok(STOCK.as_bytes());
    assert_eq!(names(&config), ["127.0.0.1::tongbu1"]);
    let [root] = config.roots.as_slice() else { panic!("one root") };
    assert_eq!(root.path, Path::new("/opt/tongbu"));
    assert_eq!(root.events, model::EventSwitches::default());
    assert_eq!(root.targets[0].options, model::TransferOptions::default());
    assert_eq!((root.schedule.as_ref(), root.excludes.len(), root.legacy_hidden), (None, 0, false));
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.fail_log.as_deref(), Some(Path::new("/tmp/rsync_fail_log.sh")));
    assert_eq!((config.plugin.as_ref(), config.plugins.len(), config.debug), (None, 3, false));
    assert_eq!(
        warnings,
        ["c.xml:30:28: params: -u is dropped, since it never sends a file that was replaced by an older one"]
    );
}

#[test]
fn our_own_example_gives_no_warning_and_shows_the_defaults() {
    let (config, warnings) = ok(include_bytes!("../../../conf/confxml.xml"));
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.roots[0].targets[0].options, model::TransferOptions::default());
}

#[test]
fn the_tutorial_files_load() {
    let (config, warnings) = fixture!("tutorial_blog.xml");
    assert_eq!(names(&config), ["rsync_backup@192.168.40.144::blog", "rsync_backup@192.168.40.147::blog"]);
    assert_eq!(config.roots[0].path, Path::new("/data/blog"));
    let options = &config.roots[0].targets[1].options;
    assert_eq!(options.params, ["-arz"]);
    assert_eq!(options.password_file.as_deref(), Some(Path::new("/etc/rsync.password")));
    assert_eq!(options.timeout, Some(Duration::from_secs(100)));
    assert_eq!(options.port, None);
    assert_eq!(config.fail_log.as_deref(), Some(Path::new("/usr/local/sersync/logs/blog_rsync_fail_log.sh")));
    assert_eq!(
        warnings,
        [
            "c.xml:32:28: params: -u is dropped, since it never sends a file that was replaced by an older one",
            "c.xml:39:17: blanks around the value of path are ignored",
        ]
    );

    let (config, warnings) = fixture!("tutorial_www.xml");
    assert_eq!(names(&config), ["rsync_backup@192.168.40.144::www", "rsync_backup@192.168.40.147::www"]);
    assert_eq!(config.roots[0].path, Path::new("/data/www"));
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_eq!(warnings[0], "c.xml:25:19: blanks around the value of watch are ignored");
}

#[test]
fn a_byte_order_mark_and_crlf_change_nothing() {
    let (mut config, warnings) = fixture!("bom_crlf.xml");
    let (stock, stock_warnings) = ok(STOCK.as_bytes());
    config.file.clone_from(&stock.file);
    assert_eq!((config, warnings), (stock, stock_warnings));
}

#[test]
fn paths_stay_the_bytes_of_the_file_under_any_label() {
    let (www, name, cache) = (b"/\xca\xfd\xbe\xdd/\xcd\xf8\xd5\xbe", b"\xcd\xf8\xd5\xbe", r"(.*)\xbb\xba\xb4\xe6(.*)");
    for (config, warnings) in
        [fixture!("gbk_label_utf8.xml"), fixture!("gbk_label_latin1.xml"), fixture!("gbk_label_gbk.xml")]
    {
        assert_eq!(config.roots[0].path.as_os_str().as_bytes(), www);
        assert_eq!(config.roots[0].targets[0].destination, daemon("127.0.0.1", name));
        assert_eq!(config.roots[0].excludes[0], cache);
        assert_eq!(warnings.len(), 1);
    }
}

#[test]
fn hand_written_markup_loads() {
    let (config, warnings) = fixture!("unquoted.xml");
    assert_eq!(names(&config), ["10.0.0.1::www"]);
    assert!(config.debug);
    assert!(!config.roots[0].events.delete && config.roots[0].events.create_folder);
    assert!(!config.roots[0].targets[0].options.delete);
    assert_eq!(config.roots[0].targets[0].options.params, ["-az", "--exclude=a b", "--exclude=*.log"]);
    assert_eq!(config.settings.backoff.cap, Duration::from_secs(600));
    for expected in [
        "c.xml:2:19: start: \"True\" is taken as true",
        "c.xml:8:7: 10.0.0.1::www is given twice; once is enough",
        "c.xml:5:3: <sersync> has no <crontab>: no whole-tree runs by schedule",
    ] {
        assert!(warnings.iter().any(|w| w == expected), "{expected}: {warnings:#?}");
    }
}

#[test]
fn a_file_of_one_line_with_odd_characters_in_a_path_loads() {
    let (config, warnings) = fixture!("one_line.xml");
    assert_eq!(config.roots[0].path, Path::new("/srv/a b;c'd&e<f"));
    assert_eq!(names(&config), ["192.168.1.5::backup"]);
    assert!(warnings[0].starts_with("c.xml:1:"), "{warnings:?}");
}

#[test]
fn several_localpaths_are_several_roots() {
    let (config, warnings) = fixture!("several_localpaths.xml");
    let paths: Vec<_> = config.roots.iter().map(|root| root.path.to_str().expect("text")).collect();
    assert_eq!(paths, ["/opt/tongbu", "/data/blog"]);
    assert_eq!(
        names(&config),
        ["127.0.0.1::tongbu1", "192.168.8.41::tongbu", "192.168.8.39::blog", "192.168.8.40::blog"]
    );
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
    assert!(warnings[0].contains("sersync watched the first <localpath> only"));
}

#[test]
fn ssh_with_the_settings_of_a_daemon_is_told_what_is_ignored() {
    let (config, warnings) = fixture!("ssh_auth_port.xml");
    assert_eq!(names(&config), ["127.0.0.1:/data/tongbu"]);
    let options = &config.roots[0].targets[0].options;
    assert_eq!((options.password_file.as_ref(), options.port), (None, Some(22)));
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
}

#[test]
fn a_file_of_an_older_version_gets_the_defaults() {
    let (config, warnings) = fixture!("version_2_4.xml");
    assert_eq!(config.roots[0].schedule, Some(Schedule::Every(Duration::from_secs(240 * 60))));
    assert_eq!(config.roots[0].targets[0].options, model::TransferOptions::default());
    assert_eq!(warnings.len(), 6, "{warnings:#?}");
}

#[test]
fn a_file_with_everything_on_loads() {
    let (config, warnings) = fixture!("everything_on.xml");
    let root = &config.roots[0];
    assert_eq!(root.excludes, [r"(.*)\.svn", r"(.*)\.gz", "^info/*", "^static/*"]);
    let options = &root.targets[0].options;
    assert_eq!(options.params, ["-artzv", "--delete", "--exclude=dhclient.d", "--exclude=*.conf.*"]);
    assert_eq!(options.reconcile_excludes, ["*.php", "info/*"]);
    assert_eq!(options.password_file.as_deref(), Some(Path::new("/etc/rsync.pas")));
    assert_eq!(options.port, Some(874));
    assert_eq!(names(&config), ["rsync_backup@127.0.0.1::tongbu1"]);
    assert_eq!(
        config.plugin,
        Some(Plugin::Command(CommandPlugin {
            prefix: vec!["/bin/sh".into()],
            suffix: Vec::new(),
            ignore_error: true,
            includes: Some(vec![r"(.*)\.php".into(), r"(.*)\.sh".into()]),
        }))
    );
    assert!(warnings.iter().any(|w| w.contains("<head> holds no <start>, ignored")), "{warnings:#?}");
    assert!(warnings.iter().any(|w| w.contains("blanks around the value of passwordfile")), "{warnings:#?}");
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nonexistent/confxml.xml")).expect_err("no such file");
    assert_eq!(error.to_string(), "cannot read /nonexistent/confxml.xml");
    assert!(!error.is_syntax() && error.hint().is_some());
    let large = vec![b' '; usize::try_from(CONFIG_BYTES_MAX).expect("small") + 1];
    assert!(matches!(fault(&large), ConfigError::TooLarge { .. }));
}
