//! Single settings, each as a change to the stock file.

use super::*;

fn with(from: &str, to: &str) -> (Config, Vec<String>) {
    ok(stock_with(from, to).as_bytes())
}

fn params(given: &str) -> (Vec<String>, Vec<String>) {
    let (config, warnings) = with("-artuz", given);
    let words = config.roots[0].targets[0].options.params.iter();
    (words.map(|word| word.to_str().expect("text").to_owned()).collect(), warnings)
}

#[test]
fn whatever_is_missing_has_a_default_and_a_warning() {
    let stock_roots = {
        let (config, _) = with("-artuz", "-artz");
        (config.roots, config.settings)
    };
    for (element, warning) in [
        (r#"<debug start="false"/>"#, "2:1: <head> has no <debug>: it is off"),
        (r#"<delete start="true"/>"#, "12:5: <inotify> has no <delete>: it is on"),
        (r#"<createFolder start="true"/>"#, "12:5: <inotify> has no <createFolder>: it is on"),
        (r#"<createFile start="false"/>"#, "12:5: <inotify> has no <createFile>: it is off"),
        (r#"<closeWrite start="true"/>"#, "12:5: <inotify> has no <closeWrite>: it is on"),
        (r#"<moveFrom start="true"/>"#, "12:5: <inotify> has no <moveFrom>: it is on"),
        (r#"<moveTo start="true"/>"#, "12:5: <inotify> has no <moveTo>: it is on"),
        (r#"<attrib start="false"/>"#, "12:5: <inotify> has no <attrib>: it is off"),
        (r#"<modify start="false"/>"#, "12:5: <inotify> has no <modify>: it is off"),
        (r#"<commonParams params="-artuz"/>"#, "29:2: <rsync> has no <commonParams>: params are -artz"),
        (r#" params="-artuz""#, "30:6: <commonParams> has no params: params are -artz"),
        (
            r#"<auth start="false" users="root" passwordfile="/etc/rsync.pas"/>"#,
            "29:2: <rsync> has no <auth>: no user and no password",
        ),
        (r#"<userDefinedPort start="false" port="874"/>"#, "29:2: <rsync> has no <userDefinedPort>: the usual port"),
        (r#"<timeout start="false" time="100"/>"#, "29:2: <rsync> has no <timeout>: no timeout"),
        (r#"<ssh start="false"/>"#, "29:2: <rsync> has no <ssh>: it is off"),
        (r#" timeToExecute="60""#, "36:2: <failLog> has no timeToExecute: 60 minutes"),
        (r#"<plugin start="false" name="command"/>"#, "23:5: <sersync> has no <plugin>: none runs"),
        (r#" start="false" schedule="600""#, "37:2: <crontab> has no start: it is off"),
    ] {
        let (config, warnings) = with(element, "");
        assert_eq!(warnings, [format!("c.xml:{warning}")]);
        assert_eq!((config.roots, config.settings), stock_roots, "{element}");
    }
    for element in [r#"<host hostip="localhost" port="8008"></host>"#, r#"<fileSystem xfs="false"/>"#] {
        assert_eq!(warnings(element, ""), [""; 0], "{element} has no effect");
    }
}

/// sersync got an empty event mask, watched nothing and said nothing.
#[test]
fn switches_that_leave_writes_unfollowed_are_told() {
    let (_, said) = with(r#"<closeWrite start="true"/>"#, r#"<closeWrite start="false"/>"#);
    let expected = "c.xml:12:5: closeWrite, createFile and modify are off: files that are written are not followed";
    assert!(said.iter().any(|line| line == expected), "{said:#?}");
    let (_, said) =
        with("<closeWrite start=\"true\"/>", "<closeWrite start=\"false\"/><!-- --><modify start=\"true\"/>");
    assert!(!said.iter().any(|line| line.contains("not followed")), "{said:#?}");
}

#[test]
fn the_shortest_file_that_works() {
    let (config, warnings) =
        ok(b"<head><sersync><localpath watch='/'><remote ip='h' name='m'/></localpath></sersync></head>");
    assert_eq!(config.roots[0].path, Path::new("/"));
    assert_eq!(config.fail_log, None);
    assert_eq!(config.settings, Settings::default());
    assert_eq!(warnings.len(), 7, "{warnings:#?}");
}

#[test]
fn misspelled_names_are_noticed() {
    for (from, to, expected, hint) in [
        ("<attrib ", "<atrib ", "19:2: <inotify> holds no <atrib>, ignored", Some("did you mean attrib?")),
        ("users=", "user=", "31:26: <auth> has no attribute user, ignored", Some("did you mean users?")),
        ("<ssh ", "<telepathy ", "34:6: <rsync> holds no <telepathy>, ignored", None),
    ] {
        let (_, diagnostics) = parse(Path::new("c.xml"), stock_with(from, to).as_bytes()).expect("valid");
        let found = diagnostics.iter().find(|d| d.to_string() == format!("c.xml:{expected}"));
        assert_eq!(found.expect(expected).hint.as_deref(), hint);
    }
    let second = warnings("</rsync>", "<ssh start=\"true\"/></rsync>");
    assert_eq!(second, ["c.xml:35:2: <ssh> is given twice; the first counts"]);
}

#[test]
fn switches_are_read_leniently() {
    for (given, expected) in [("True", true), ("1", true), ("yes", true), ("FALSE", false), ("ture", false)] {
        let (config, warnings) = with(r#"<modify start="false""#, &format!("<modify start=\"{given}\""));
        assert_eq!(config.roots[0].events.modify, expected);
        assert_eq!(warnings, [format!("c.xml:20:17: start: \"{given}\" is taken as {expected}")]);
    }
    let (config, warnings) = with(r#"<modify start="false""#, "<modify start=\" true\"");
    assert!(config.roots[0].events.modify);
    assert_eq!(warnings, ["c.xml:20:17: blanks around the value of start are ignored"]);
}

#[test]
fn values_in_odd_forms_are_understood() {
    for (from, to, path) in [
        ("\"/opt/tongbu\"", "“/w”", "/w"),
        ("/opt/tongbu", "/a&amp;b&LT;&#65;&#x42;", "/a&b<AB"),
        ("/opt/tongbu", "/a&b;c & d", "/a&b;c & d"),
        ("/opt/tongbu", "/a\n b", "/a\n b"),
        ("/opt/tongbu", "/a//b/./c//", "/a/b/c"),
        ("\"/opt/tongbu\"", "'/it\"s'", "/it\"s"),
        ("watch=\"/opt/tongbu\"", "watch=\"/x\" WATCH=\"/y\"", "/x"),
        ("/opt/tongbu", "/&#228;", "/\u{e4}"),
    ] {
        let (config, _) = with(from, to);
        let expected = if path == "/\u{e4}" { b"/\xe4" } else { path.as_bytes() };
        assert_eq!(config.roots[0].path.as_os_str().as_bytes(), expected);
    }
    assert_eq!(
        warnings("watch=\"/opt/tongbu\"", "watch=\"/x\" Watch=\"/y\""),
        ["c.xml:24:24: Watch is given twice; the first counts: \"/x\""]
    );
    assert_eq!(
        warnings("watch=\"/opt/tongbu\"", "watch=\"/a&nbsp;b\""),
        ["c.xml:24:22: &nbsp; is no entity and is taken as these characters"]
    );
}

#[test]
fn update_is_taken_out_of_params_wherever_it_hides() {
    for (given, expected) in [
        ("-aruz", &["-arz"][..]),
        ("-u -a", &["-a"]),
        ("--update -a", &["-a"]),
        ("-ue ssh", &["-e", "ssh"]),
        ("-uessh -a", &["-essh", "-a"]),
    ] {
        let (words, warnings) = params(given);
        assert_eq!(words, expected);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
    for (given, expected) in [
        ("", &[][..]),
        ("-e 'ssh -u'", &["-e", "ssh -u"]),
        ("-f '-u x'", &["-f", "-u x"]),
        ("-essh-u", &["-essh-u"]),
        ("--exclude -u --out-format=%n", &["--exclude", "-u", "--out-format=%n"]),
        ("-artupog --partial", &["-artpog", "--partial"]),
    ] {
        assert_eq!(params(given).0, expected);
    }
    let (config, warnings) = with(r#"params="-artuz""#, r#"keepNewer="true" params="-aruz""#);
    assert_eq!(config.roots[0].targets[0].options.params, ["-aruz"]);
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn params_that_leave_the_mirror_behind_are_reported() {
    let (words, warnings) = params("-a --ignore-existing");
    assert_eq!(words, ["-a", "--ignore-existing"]);
    assert_eq!(warnings, ["c.xml:30:31: params: with --ignore-existing files that the target has are never updated"]);
}

#[test]
fn a_password_file_in_params_belongs_to_the_target() {
    for given in ["-a --password-file=/p", "-a --password-file /p"] {
        let (config, warnings) = with("-artuz", given);
        let options = &config.roots[0].targets[0].options;
        assert_eq!(options.params, ["-a"]);
        assert_eq!(options.password_file.as_deref(), Some(Path::new("/p")));
        assert_eq!(warnings, [""; 0]);
    }
}

#[test]
fn users_and_hosts() {
    let auth = r#"<auth start="false" users="root" passwordfile="/etc/rsync.pas"/>"#;
    let stock_ip = r#"ip="127.0.0.1""#;
    for (ip, auth_given, ssh, expected, warnings) in [
        ("h", auth, false, "h::tongbu1", 0),
        ("h", r#"<auth start="true" users="u" passwordfile="/p"/>"#, false, "u@h::tongbu1", 0),
        ("u@h", r#"<auth start="true" users="u" passwordfile="/p"/>"#, false, "u@h::tongbu1", 0),
        ("x@h", r#"<auth start="true" users="u" passwordfile="/p"/>"#, false, "x@h::tongbu1", 1),
        ("h", r#"<auth start="true" users="" passwordfile="/p"/>"#, false, "h::tongbu1", 0),
        ("h", r#"<auth start="true" users="u" passwordfile=""/>"#, false, "u@h::tongbu1", 1),
        ("h", r#"<auth start="true" users="u" passwordfile=""/>"#, true, "u@h:tongbu1", 0),
        ("h", r#"<auth start="true" users="u" passwordfile="/p"/>"#, true, "h:tongbu1", 1),
        ("h", r#"<auth start="true" passwordfile="/p"/>"#, false, "h::tongbu1", 1),
        ("fe80::1", auth, false, "[fe80::1]::tongbu1", 0),
        ("u@[::1]", auth, false, "u@[::1]::tongbu1", 0),
    ] {
        let mut text = stock_with(auth, auth_given).replacen(stock_ip, &format!("ip=\"{ip}\""), 1);
        if ssh {
            text = text.replacen("<ssh start=\"false\"", "<ssh start=\"true\"", 1);
        }
        let (config, found) = ok(text.as_bytes());
        assert_eq!(names(&config), [expected]);
        assert_eq!(found.len(), warnings, "{found:?}");
    }
}

#[test]
fn numbers_that_make_no_sense_have_a_stated_meaning() {
    for (from, to, cap_minutes, warnings) in [
        (r#"timeToExecute="60""#, r#"timeToExecute="10""#, 10, 0),
        (r#"timeToExecute="60""#, r#"timeToExecute="0""#, 1, 1),
        (r#"timeToExecute="60""#, r#"timeToExecute="""#, 120, 1),
        (r#"timeToExecute="60""#, r#"timeToExecute="-5""#, 60, 1),
        ("</head>", r#"<syncq><backoff cap="2h"/></syncq></head>"#, 120, 0),
    ] {
        let (config, found) = with(from, to);
        assert_eq!(config.settings.backoff.cap, Duration::from_secs(60 * cap_minutes), "{to}");
        assert_eq!(found.len(), warnings, "{found:?}");
    }
    for (given, timeout, warnings) in [("30", Some(30), 0), ("0", None, 0), ("5m", Some(100), 1)] {
        let (config, found) =
            with(r#"<timeout start="false" time="100""#, &format!("<timeout start=\"true\" time=\"{given}\""));
        assert_eq!(config.roots[0].targets[0].options.timeout, timeout.map(Duration::from_secs));
        assert_eq!(found.len(), warnings, "{found:?}");
    }
}

#[test]
fn schedules() {
    let cron = |expression: &str, timezone: Option<&str>| Schedule::Cron {
        expression: expression.to_owned(),
        timezone: timezone.map(str::to_owned),
    };
    let every = |minutes: u64| Schedule::Every(Duration::from_secs(60 * minutes));
    for (given, expected, warnings) in [
        ("600", every(600), 0),
        ("0", every(600), 1),
        ("-3", every(600), 1),
        ("5min", every(5), 1),
        ("", every(600), 1),
        ("5\" timezone=\"Europe/Berlin", every(5), 1),
        ("0 3 * * 1-5", cron("0 3 * * 1-5", None), 0),
        ("@daily", cron("@daily", None), 0),
        ("@daily\" timezone=\"Europe/Berlin", cron("@daily", Some("Europe/Berlin")), 0),
    ] {
        let (config, found) =
            with(r#"<crontab start="false" schedule="600""#, &format!("<crontab start=\"true\" schedule=\"{given}\""));
        assert_eq!(config.roots[0].schedule, Some(expected));
        assert_eq!(found.len(), warnings, "{found:?}");
    }
}

#[test]
fn expressions_that_do_not_compile_are_skipped_loudly() {
    let (config, warnings) = ok(STOCK
        .replacen("-artuz", "-az", 1)
        .replacen("<filter start=\"false\"", "<filter start=\"true\"", 1)
        .replacen(r#""(.*)\.svn""#, r#""*.svn""#, 1)
        .replacen(r#""(.*)\.gz""#, r#""(a)\1""#, 1)
        .as_bytes());
    assert_eq!(config.roots[0].excludes, [r"(a)\1", "^info/*", "^static/*"]);
    assert_eq!(warnings, ["c.xml:7:23: exclude *.svn is ignored: repetition operator missing expression"]);
}

#[test]
fn the_extension_sets_everything() {
    let (config, warnings) = with(
        "</head>",
        r#"<syncq> <backoff base="500ms" factor="1.5" cap="1h 30m" maxAttempts="7"/>
           <transfer connections="8" largeFile="500kB" hotInterval="2s" quietPeriod="1m" maxPending="5000"
             standby="false"/>
           <ssh share="false"/> <guard maxDelete="20000"/> <legacyHidden start="true"/> </syncq></head>"#,
    );
    assert_eq!(warnings, [""; 0]);
    assert!(config.roots[0].legacy_hidden);
    assert_eq!(
        config.settings,
        Settings {
            backoff: Backoff { base: Duration::from_millis(500), factor: 1.5, cap: Duration::from_secs(5400) },
            max_attempts: 7,
            large_file_bytes: 500_000,
            connections_max: 8,
            hot_interval: Duration::from_secs(2),
            quiet_period: Duration::from_secs(60),
            max_delete: MaxDelete::Entries(20_000),
            pending_max: 5_000,
            ssh_share: false,
            standby: false,
        }
    );
    for (given, expected) in
        [("50%", MaxDelete::Percent(50)), ("100 %", MaxDelete::Percent(100)), ("Off", MaxDelete::Unlimited)]
    {
        let (config, _) = with("</head>", &format!("<syncq><guard maxDelete='{given}'/></syncq></head>"));
        assert_eq!(config.settings.max_delete, expected);
    }
}

#[test]
fn the_control_api_is_where_the_extension_says() {
    let loopback = "127.0.0.1:7878".parse().expect("an address");
    let others = "10.0.0.1:1".parse().expect("an address");
    for (given, expected) in [
        ("", None),
        ("<control/>", None),
        ("<control listen='7878'/>", Some(Endpoint { address: loopback, token_file: None })),
        (
            "<control listen='10.0.0.1:1' tokenFile='/t o'/>",
            Some(Endpoint { address: others, token_file: Some("/t o".into()) }),
        ),
    ] {
        let (config, warnings) = with("</head>", &format!("<syncq>{given}</syncq></head>"));
        assert_eq!(warnings, [""; 0], "{given}");
        let place = config.control.as_ref().map(|control| (control.line, control.column));
        assert_eq!(place, expected.as_ref().map(|_| (66, 8)), "{given}");
        assert_eq!(config.control.map(|control| control.endpoint), expected, "{given}");
    }
}

#[test]
fn a_plugin_does_not_take_over_the_watch_and_hides_its_password() {
    let (config, warnings) =
        with(r#"<plugin start="false" name="command"/>"#, r#"<plugin start="true" name="refreshCDN"/>"#);
    assert_eq!(config.roots[0].path, Path::new("/opt/tongbu"));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let Some(Plugin::RefreshCdn(plugin)) = &config.plugin else { panic!("in use") };
    assert_eq!((plugin.port, plugin.password.reveal()), (80, "xxxx"));
    assert!(format!("{config:?}").contains("password: ***"));
    assert!(config.plugin_section(PluginKind::Socket).is_some());

    assert_eq!(
        super::warnings(r#" port="8009""#, ""),
        ["c.xml:56:6: plugin socket: <deshost> has no usable port; the section is ignored"]
    );
}

const WHOLE: &str = "<head><sersync><localpath watch='/srv/www'><remote ip='h' name='m'/></localpath></sersync></head>";

/// sersync refuses only text in front of the declaration.
#[test]
fn text_before_head_is_passed_over() {
    for before in ["配置\n", "<?xml version='1.0'?>\n# 配置文件\n", "<!-- c -->\n<other a=1/>\n x", "\u{3000}\n"]
    {
        let (config, warnings) = ok(format!("{before}{WHOLE}").as_bytes());
        assert_eq!(names(&config), ["h::m"], "{before}");
        let told = warnings.iter().any(|warning| warning.contains("text before <head> is ignored"));
        assert_eq!(told, !before.trim().is_empty(), "{before}: {warnings:#?}");
    }
}

/// The warning said that the element is unknown, and did not name the directory that is therefore not mirrored.
#[test]
fn what_stands_in_the_wrong_place_is_told_where_it_belongs() {
    let second = "<sersync><localpath watch='/srv/second'><remote ip='h' name='n'/></localpath></sersync></head>";
    let (config, said) = ok(WHOLE.replace("</head>", second).as_bytes());
    assert_eq!(config.roots.len(), 1);
    assert!(said.iter().any(|line| line.contains("not mirrored is /srv/second")), "{said:#?}");
    let filter = "<filter start='true'><exclude expression='a'/></filter>";
    let (config, said) = ok(WHOLE.replace("<sersync>", &format!("{filter}{filter}<sersync>")).as_bytes());
    assert_eq!(config.roots[0].excludes, ["a"]);
    assert!(said.iter().any(|line| line.contains("its expressions (1) do not hold")), "{said:#?}");
    for (text, expected) in [
        (
            WHOLE.replace("<sersync>", "").replace("</sersync>", ""),
            "1:7: nothing to watch: <localpath watch=\"/srv/www\"> stands outside of <sersync>",
        ),
        (
            WHOLE
                .replace("<localpath", "<rsync/></sersync><filter><localpath")
                .replace("</localpath></sersync>", "</localpath></filter>"),
            "stands outside of <sersync>",
        ),
    ] {
        let error = fault(text.as_bytes());
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("into <sersync>")), "{error}");
    }
    let (_, diagnostics) =
        parse(Path::new("c.xml"), WHOLE.replace("<sersync>", "<rsync/><sersync>").as_bytes()).expect("valid");
    let told = diagnostics.iter().find(|told| told.message == "<head> holds no <rsync>, ignored").expect("told");
    assert_eq!(told.hint.as_deref(), Some("it belongs into <sersync>"));
}

#[test]
fn one_remote_that_cannot_be_used_does_not_take_the_others_along() {
    let remote = r#"<remote ip="127.0.0.1" name="tongbu1"/>"#;
    for (bad, words) in [
        (r#"<remote ip="" name="w"/>"#, "<remote> has no ip"),
        (r#"<remote ip="h"/>"#, "<remote> has no name"),
        (r#"<remote ip="u:S3cret@h" name="w"/>"#, "u:*** is no host name: there is a password in it"),
        (r#"<remote ip="http://h" name="w"/>"#, "http://h is no host name"),
        (r#"<remote ip="h" name="/data/w"/>"#, "no module"),
    ] {
        for both in [format!("{bad}{remote}"), format!("{remote}{bad}")] {
            let (config, said) = with(remote, &both);
            assert_eq!(names(&config), ["127.0.0.1::tongbu1"], "{bad}");
            let told =
                said.iter().filter(|line| line.contains("nothing is mirrored to this remote")).collect::<Vec<_>>();
            assert!(told.len() == 1 && told[0].contains(words) && !told[0].contains("S3cret"), "{bad}: {said:#?}");
        }
    }
    let user = r#"<auth start="true" users="u:S3cret" passwordfile=""/>"#;
    let error =
        fault(stock_with(r#"<auth start="false" users="root" passwordfile="/etc/rsync.pas"/>"#, user).as_bytes());
    assert!(error.to_string().contains("u:*** is no user name"), "{error}");
}

#[test]
fn relative_files_are_meant_from_where_sersync_took_them() {
    let auth = r#"<auth start="false" users="root" passwordfile="/etc/rsync.pas"/>"#;
    let (config, said) = with(auth, r#"<auth start="true" users="u" passwordfile="rsync.pas"/>"#);
    assert_eq!(config.roots[0].targets[0].options.password_file.as_deref(), Some(Path::new("/opt/tongbu/rsync.pas")));
    assert!(said.len() == 1 && said[0].contains("is relative: it is meant from the watched directory"), "{said:#?}");
    let (config, said) = with("/tmp/rsync_fail_log.sh", "fail.sh");
    assert_eq!(config.fail_log.as_deref(), Some(Path::new("fail.sh")));
    assert!(said.len() == 1 && said[0].contains("from where syncq is started"), "{said:#?}");
}

#[test]
fn blanks_of_other_alphabets_are_blanks() {
    let wide = "\u{3000}";
    for (from, to) in [
        ("ip=\"127.0.0.1\" name", format!("{wide}ip=\"127.0.0.1{wide}\"\u{a0}name")),
        ("<remote ip", format!("<remote{wide}ip")),
        ("name=\"tongbu1\"/>", format!("name=\"{wide}tongbu1\"{wide}/>")),
        ("-artuz", format!("-art{wide}-z")),
    ] {
        let (config, said) = with(from, &to);
        assert_eq!(names(&config), ["127.0.0.1::tongbu1"], "{to}");
        assert!(!said.is_empty() && said.iter().all(|line| line.contains("blanks")), "{to}: {said:#?}");
    }
    let (words, _) = params(&format!("-art{wide}-z"));
    assert_eq!(words, ["-art", "-z"]);
}

/// `-m command` was refused with a published file that has no remote.
#[test]
fn for_a_plugin_alone_targets_do_not_matter() {
    let plugin = r#"<plugin name="command"><param prefix="/bin/x"/></plugin></head>"#;
    let remote = "<remote ip='h' name='m'/>";
    for text in [
        WHOLE.replace(remote, ""),
        WHOLE.replace(remote, "<remote ip='-x'/>"),
        WHOLE.replace(
            "<sersync>",
            "<sersync><rsync><commonParams params='-n'/><userDefinedPort start='true' port='x'/></rsync>",
        ),
        WHOLE.replace("<sersync>", "<sersync><plugin start='true' name='unheard-of'/>"),
    ] {
        let text = text.replace("</head>", plugin);
        let (config, _) = parse_for(Purpose::Plugin, Path::new("c.xml"), text.as_bytes()).expect(&text);
        assert_eq!(config.roots.len(), 1, "{text}");
        assert!(config.roots[0].targets.is_empty() && config.plugin_section(PluginKind::Command).is_some(), "{text}");
        assert!(parse(Path::new("c.xml"), text.as_bytes()).is_err(), "{text}");
    }
    let alone = format!("<head>{plugin}");
    let (config, _) = parse_for(Purpose::Plugin, Path::new("c.xml"), alone.as_bytes()).expect("a plugin");
    assert!(config.roots.is_empty() && config.plugins.len() == 1);
}
