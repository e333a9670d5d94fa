//! Unusable configurations: the place of each fault, its message, and its hint.

use super::*;

fn said(bytes: &[u8]) -> (String, bool) {
    let error = fault(bytes);
    (error.to_string(), error.is_syntax())
}

#[test]
fn syntax_errors_have_a_place() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "1:1: the file is empty"),
        (b" \n ", "1:1: the file is empty"),
        (b"\xff\xfe<\0h\0", "1:1: the file is UTF-16"),
        (b"<\0h\0", "1:1: the file is UTF-16"),
        (b"<head>\n \0</head>", "2:2: a NUL byte"),
        (b"\n- <?xml version='1.0'?>\n<head/>", "2:1: text before <?xml ...?>: -"),
        (b"<sersync><localpath watch='/x'/></sersync>", "1:1: no <head> around <sersync>"),
        (b"<!-- c -->\n<localpath watch='/x'/>", "2:1: no <head> around <localpath>"),
        (b"<other/>", "1:1: no <head>"),
        (b"</x><head/>", "1:1: </x> closes nothing"),
        (b"<head>\n <a>\n</head>", "3:1: </head> where </a> is expected, for the <a> of line 2"),
        (b"<head>\n  <a>", "2:3: <a> is not closed"),
        (b"<head>", "1:1: <head> is not closed"),
        (b"<head>\n<remote ip=\"a\"\n<b/></head>", "2:1: the tag <remote> has no >"),
        (b"<head>\n<remote ip=\"a", "2:9: an attribute of <remote> cannot be made out at ip=\"a"),
        (b"<head>\n<remote ip=a", "2:1: the tag <remote> has no >"),
        (b"<head>\n<a b=\"1 c=\"2\"/>\n<a b=\"1\"/>\"</head>", "2:12: an attribute of <a> cannot be made out at 2\"/"),
        (b"<head>\n<remote ip=\"a name=\"b\"/>\n</head>", "2:21: an attribute of <remote> cannot be made out at b\"/"),
        (b"<head><a x=''y''/></head>", "1:14: an attribute of <a> cannot be made out at y''"),
        (b"<head><a ='x'/></head>", "1:10: an attribute of <a> cannot be made out at ='x'"),
        (b"<head><a x= /></head>", "1:10: an attribute of <a> cannot be made out at x="),
        (b"<head><a <!-- c --> b='1'/></head>", "1:10: a comment inside the tag <a>"),
        (b"<head>\n <!-- a </head>", "2:2: a comment without -->"),
        (b"<head> 1 < 2 > 1 </head>", "1:18: </head> where </2> is expected, for the <2> of line 1"),
        (b"<head> <= > </head>", "1:8: a < that begins no tag"),
        (b"<head><![CDATA[ x</head>", "1:7: syntax error: CDATA not closed: `]]>` not found before end of input"),
    ];
    for (bytes, expected) in cases {
        let (message, syntax) = said(bytes);
        assert_eq!(message, format!("c.xml:{expected}"), "{}", String::from_utf8_lossy(bytes));
        assert!(syntax, "{message}");
    }
}

#[test]
fn columns_count_characters_of_the_encoding() {
    assert!(said("<head> 数据 <a>".as_bytes()).0.starts_with("c.xml:1:11:"));
    assert!(said(b"<head> \xca\xfd\xbe\xdd <a>").0.starts_with("c.xml:1:11:"));
    assert!(said(b"<head> caf\xe9 <a>").0.starts_with("c.xml:1:13:"));
    assert!(said(b"<?xml version='1.0' encoding='Big5'?><head> \xa4\xa4\xa4\xe5 <a>").0.starts_with("c.xml:1:48:"));
}

#[test]
fn nesting_and_size_have_limits() {
    let deep = format!("<head>{}", "<a>".repeat(200_000));
    assert_eq!(said(deep.as_bytes()).0, "c.xml:1:100: elements nest deeper than 32");
    let wide: String = (0..100).map(|i| format!(" a{i}=1")).collect();
    assert_eq!(said(format!("<head{wide}/>").as_bytes()).0, "c.xml:1:381: <head> has more than 64 attributes");
}

/// Any of these inputs would take minutes if some step were quadratic.
#[test]
fn a_megabyte_of_anything_is_read_in_one_go() {
    let size = usize::try_from(CONFIG_BYTES_MAX).expect("small") - 200;
    for (before, piece, after) in [
        ("<head>", "<a/>", "</head>"),
        ("<head>", "<x y=1 y=2/>", "</head>"),
        ("<head>", "&", "</head>"),
        ("<head v='", "&amp;&x;&", "'/>"),
        ("<head v=", "a", "/>"),
        ("<head ", "a ", "/>"),
        ("<head><filter start='true'>", "<exclude expression='*'/>", "</filter></head>"),
        ("<head><sersync><localpath watch='/a'>", "<remote ip='a' name='b'/>", "</localpath></sersync></head>"),
        ("<head><sersync>", "<localpath watch='/a'><remote ip='a' name='b'/></localpath>", "</sersync></head>"),
        ("", "<a>", ""),
        ("<head>", "<!-- \" --", "</head>"),
    ] {
        let text = format!("{before}{}{after}", piece.repeat(size / piece.len()));
        if let Ok((_, diagnostics)) = parse(Path::new("c.xml"), text.as_bytes()) {
            assert!(diagnostics.len() <= 201);
        }
    }
}

#[test]
fn settings_that_cannot_be_used_have_a_place_and_a_way_out() {
    let remote = r#"<remote ip="127.0.0.1" name="tongbu1"/>"#;
    let params = r#"params="-artuz""#;
    let extension = |inside: &str| ("</head>", format!("<syncq>{inside}</syncq></head>"));
    let with = |from: &'static str, to: &str| (from, to.to_owned());
    let port = |port: &str| {
        (r#"<userDefinedPort start="false" port="874"/>"#, format!(r#"<userDefinedPort start="true" port="{port}"/>"#))
    };
    let cases = [
        (with("/opt/tongbu\">", "\">"), "24:2: <localpath> has no watch directory"),
        (with(" watch=\"/opt/tongbu\"", ""), "24:2: <localpath> has no watch directory"),
        (with("/opt/tongbu", " opt/x"), "24:21: watch opt/x is not an absolute path"),
        (with(remote, ""), "24:2: <localpath> has no <remote>"),
        (with(remote, r#"<remote ip="" name="w"/>"#), "25:6: <remote> has no ip"),
        (with(remote, r#"<remote ip="h"/>"#), "25:6: <remote> has no name"),
        (with(remote, r#"<remote ip="-oProxyCommand=x" name="w"/>"#), "25:18: -oProxyCommand=x is no host name"),
        (with(remote, r#"<remote ip="a b" name="w"/>"#), "25:18: a b is no host name"),
        (with(remote, r#"<remote ip="a:b" name="w"/>"#), "25:18: a:b is no host name"),
        (with(remote, r#"<remote ip="u@-x" name="w"/>"#), "25:18: u@-x is no host name"),
        (with(remote, r#"<remote ip="h" name="/data/w"/>"#), "25:27: /data/w is no module of an rsync daemon"),
        (with(params, r#"params="-az --exclude='a""#), "30:42: params: ' is not closed"),
        (with(params, r#"params="-az &quot;a""#), "30:28: params: \" is not closed"),
        (with(params, r#"params="-az x.log""#), "30:32: params: x.log is not an option"),
        (with(params, r#"params="-az --""#), "30:32: params: -- is not an option"),
        (with(params, r#"params="–delete""#), "30:28: params: –delete is not an option"),
        (with(params, r#"params="-avn""#), "30:28: params: -n cannot be used, rsync would send nothing"),
        (
            with(params, r#"params="-a --files-from=x""#),
            "30:31: params: --files-from cannot be used, syncq gives rsync its own list of files",
        ),
        (
            with(params, r#"params="--remove-source-files""#),
            "30:28: params: --remove-source-files cannot be used, it empties the source",
        ),
        (
            with(r#"<crontab start="false" schedule="600">"#, r#"<crontab start="true" schedule="0 3 * *">"#),
            "37:34: schedule: a cron expression has 5 fields (or 6, seconds first), this has 4",
        ),
        (
            with(r#"<plugin start="false" name="command"/>"#, r#"<plugin start="true" name="comand"/>"#),
            "43:29: comand is no plugin",
        ),
        (
            with(r#"<plugin start="false" name="command"/>"#, r#"<plugin start="true" name="http"/>"#),
            "43:2: no complete <plugin name=\"http\">, which <sersync> asks for",
        ),
        (extension("<backoff base='90'/>"), "66:23: base: 90 has no unit"),
        (extension("<backoff base='2x'/>"), "66:23: base: 2x is no duration, such as 90s, 5m or 1h 30m"),
        (extension("<backoff base='2h'/>"), "66:23: base: 2h is no duration above zero and at most cap"),
        (extension("<backoff factor='0.5'/>"), "66:25: factor: 0.5 is no number from 1 to 1000"),
        (extension("<backoff factor='NaN'/>"), "66:25: factor: NaN is no number from 1 to 1000"),
        (extension("<transfer connections='0'/>"), "66:31: connections: 0 is no number from 1 to 1000"),
        (extension("<transfer largeFile='8'/>"), "66:29: largeFile: 8 has no unit"),
        (extension("<transfer largeFile='8X'/>"), "66:29: largeFile: 8X is no size, such as 8MiB or 500kB"),
        (
            with(
                r#"<crontab start="false" schedule="600">"#,
                r#"<crontab start="true" schedule="@daily" timezone="Berlin">"#,
            ),
            "37:52: schedule: Berlin is no time zone of the IANA data base",
        ),
        (
            extension("<guard maxDelete='101%'/>"),
            "66:26: maxDelete: 101% is no share (50%), number of entries (20000), or off",
        ),
        (
            extension("<guard maxDelete='-1'/>"),
            "66:26: maxDelete: -1 is no share (50%), number of entries (20000), or off",
        ),
        (
            extension("<control listen='host:1'/>"),
            "66:25: listen: host:1 is no port, or address with a port, such as 127.0.0.1:7878",
        ),
        (extension("<control listen='1' tokenFile=''/>"), "66:39: tokenFile:  is no name of a file"),
        (extension("<control tokenFile='/t'/>"), "66:8: <control> has a tokenFile and no listen"),
        (extension("<control listen='0.0.0.0:1'/>"), "66:25: others can reach 0.0.0.0:1, and there is no tokenFile"),
        (extension("<backoff cap='0s'/>"), "66:22: cap: 0s is no duration above zero"),
        (
            extension("<backoff cap='18446744073709551615s'/>"),
            "66:22: cap: 18446744073709551615s is no duration, such as 90s, 5m or 1h 30m",
        ),
        (extension("<backoff maxAttempts='-1'/>"), "66:30: maxAttempts: -1 is no whole number (0 never gives up)"),
        (
            extension("<backoff maxAttempts='99999999999'/>"),
            "66:30: maxAttempts: 99999999999 is no whole number (0 never gives up)",
        ),
        (
            extension("<transfer maxPending='99999999999999999999'/>"),
            "66:30: maxPending: 99999999999999999999 is no number from 100 to 10000000",
        ),
        (
            extension("<guard maxDelete='99999999999999999999'/>"),
            "66:26: maxDelete: 99999999999999999999 is no share (50%), number of entries (20000), or off",
        ),
        (extension("<guard maxDelete=''/>"), "66:26: maxDelete:  is no share (50%), number of entries (20000), or off"),
        (port("70000"), "32:42: port: 70000 is no port from 1 to 65535"),
        (port("0"), "32:42: port: 0 is no port from 1 to 65535"),
        (port("-873"), "32:42: port: -873 is no port from 1 to 65535"),
        (port("rsync"), "32:42: port: rsync is no port from 1 to 65535"),
        (
            extension("<transfer largeFile='99999999999TiB'/>"),
            "66:29: largeFile: 99999999999TiB is no size, such as 8MiB or 500kB",
        ),
    ];
    for ((from, to), expected) in cases {
        let error = fault(stock_with(from, &to).as_bytes());
        assert_eq!(error.to_string(), format!("c.xml:{expected}"));
        assert!(!error.is_syntax());
    }
    assert_eq!(said(b"<head></head>"), ("c.xml:1:1: nothing to watch: no <localpath>".into(), false));
    assert_eq!(said(b"<head><sersync/></head>"), ("c.xml:1:7: nothing to watch: no <localpath>".into(), false));
}

#[test]
fn hints_say_what_to_write() {
    for (from, to, hint) in [
        ("/opt/tongbu\">", "data/www\">", "begin with a slash: /data/www"),
        ("-artuz", "–delete", "options begin with plain hyphens: --delete"),
        ("</head>", "<syncq><transfer quietPeriod=\"5\"/></syncq></head>", "add one, such as 5s"),
        ("</head>", "<syncq><transfer largeFile=\"8\"/></syncq></head>", "add one, such as 8MiB"),
    ] {
        assert_eq!(fault(stock_with(from, to).as_bytes()).hint().as_deref(), Some(hint));
    }
    assert_eq!(fault(b"<head><a></head>").hint().as_deref(), Some("write </a> here, or before this line"));
}

#[test]
fn all_that_is_wrong_in_our_own_element_is_told_at_once() {
    let inside =
        "<syncq><transfer connections='0' largeFile='8'/><guard maxDelete='x'/><backoff cap='0s'/></syncq></head>";
    let said = said(stock_with("</head>", inside).as_bytes()).0;
    let expected = "c.xml:66:31: connections: 0 is no number from 1 to 1000; 66:45: largeFile: 8 has no unit; 66:67: maxDelete: x is \
                    no share (50%), number of entries (20000), or off; 66:85: cap: 0s is no duration above zero";
    assert_eq!(said, expected);
}
