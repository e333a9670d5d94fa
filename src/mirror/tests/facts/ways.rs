//! The files that a receiver uses and leaves behind, and the ways to it.

use super::*;

/// `rename`: an equal file is linked from the old name, if the directory is named like `rename::link_dest` names it, and
/// none of its data is sent. A name that is not plain goes with `-s`.
#[test]
fn what_was_moved_is_linked_from_its_old_name() {
    for (pair, name) in Pair::all().map(|pair| (pair, "old")).chain(Pair::all().map(|pair| (pair, "an (old) & $one"))) {
        pair.stage.write("new/f", &"x".repeat(100_000));
        let status = Command::new("cp").arg("-a").arg(pair.stage.src("new")).arg(pair.stage.dst(name)).status();
        assert!(status.unwrap().success());
        let old = format!("--link-dest={}/{name}", if pair.way == Way::Daemon { "" } else { ".." });
        let mut words: Vec<OsString> = ["-a", "--modify-window=-1", &old, "--info=stats1"].map(Into::into).to_vec();
        if name != "old" && pair.way != Way::Local {
            words.push("-s".into());
        }
        let mut target = pair.target("new/");
        let last = target.pop().unwrap();
        words.extend(target);
        words.extend(["./new/".into(), last]);
        let said = pair.start(&words, b"").well();
        assert_eq!(inode(&pair.stage.dst("new/f")), inode(&pair.stage.dst(name).join("f")), "{:?} {said:#?}", pair.way);
    }
}

/// `rename`: a file under another name in the same directory is found with `--fuzzy`.
#[test]
fn a_renamed_file_is_found_by_fuzzy() {
    for pair in [Way::Daemon, Way::Shell].map(Pair::new) {
        let content: Vec<u8> = (0..300_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        std::fs::write(pair.stage.src("new-name"), &content).unwrap();
        std::fs::write(pair.stage.dst("old-name"), &content).unwrap();
        let same = pair.stage.src("new-name").metadata().unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(pair.stage.dst("old-name")).unwrap().set_modified(same).unwrap();
        let said =
            pair.run(&[&["--fuzzy"], &BY_NAME[..], &["--info=stats2", "--no-h"]].concat(), b"./new-name\0").well();
        let literal = said.out.lines().find_map(|line| line.strip_prefix("Literal data: ")).unwrap_or("?");
        let sent: u64 = literal.split(' ').next().unwrap().replace(',', "").parse().unwrap();
        assert!(sent < 100_000, "{:?} {said:#?}", pair.way);
        assert_eq!(std::fs::read(pair.stage.dst("new-name")).unwrap(), content);
    }
}

/// `stale_temporaries`, `filter::temporary`: a killed receiver leaves a file `.NAME.XXXXXX`, or one in `.rsync-partial`.
#[test]
fn a_killed_receiver_leaves_a_temporary_of_a_known_form() {
    for (pair, args) in WAYS.into_iter().flat_map(|way| [(way, &[][..]), (way, &["--partial-dir=.rsync-partial"])]) {
        let pair = Pair::new(pair);
        std::fs::write(pair.stage.src("large"), vec![b'x'; 8 << 20]).unwrap();
        let slow = [&BY_NAME[..], &["--bwlimit=1000", "--whole-file"], args].concat();
        let mut words: Vec<OsString> = slow.iter().map(OsString::from).collect();
        let mut target = pair.target("");
        let last = target.pop().unwrap();
        words.extend(target);
        words.extend(["./".into(), last]);
        let mut command = Command::new("setsid");
        command.arg(rsync(Side::Client)).args(&words).current_dir(pair.stage.src("")).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"./large\0").unwrap();
        let is_under_way = || pair.target_names().iter().any(|name| is_temporary(name));
        for _ in 0..1_000 {
            if is_under_way() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(is_under_way(), "{:?} {:?}", pair.way, pair.target_names());
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        let kept = |name: &String| name.starts_with(".rsync-partial");
        for _ in 0..1_000 {
            if !is_under_way() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let names = pair.target_names();
        assert!(!names.iter().any(|name| name == "large"), "{:?} {names:?}", pair.way);
        assert!(args.is_empty() || names.iter().all(kept), "{:?} {names:?}", pair.way);
    }
}

fn is_temporary(name: &str) -> bool {
    name.strip_prefix(".large.").is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// `standby`: a client is let in before it reads its list, and accepts a list that comes later.
#[test]
fn a_list_may_come_late() {
    for pair in Pair::all() {
        pair.stage.write("f", "x");
        let mut words: Vec<OsString> = BY_NAME.iter().map(OsString::from).collect();
        let mut target = pair.target("");
        let last = target.pop().unwrap();
        words.extend(target);
        words.extend(["./".into(), last]);
        let mut command = Command::new(rsync(Side::Client));
        command.args(&words).current_dir(pair.stage.src("")).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1_500));
        pair.stage.write("late", "x");
        child.stdin.take().unwrap().write_all(b"./late\0").unwrap();
        assert!(child.wait().unwrap().success(), "{:?}", pair.way);
        assert_eq!(pair.target_names(), ["late"]);
    }
}

/// `arguments` (`RSYNC_PASSWORD`): with a user and an empty password rsync neither prompts nor takes the list for the
/// password.
#[test]
fn an_empty_password_is_one() {
    let pair = Pair::with(Way::Daemon, "auth users = joe\nsecrets file = @DIR@/secrets");
    write(&pair.stage.dir.path().join("secrets"), "joe:./f\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(pair.stage.dir.path().join("secrets"), mode).unwrap();
    pair.stage.write("f", "x");
    let port = format!("--port={}", pair.stage.daemon.as_ref().unwrap().port);
    let args: Vec<OsString> =
        BY_NAME.iter().chain(&[&port[..], "./", "joe@127.0.0.1::m/"]).map(OsString::from).collect();
    let said = pair.start(&args, b"./f\0");
    assert!(said.code == 5 && said.err.contains("@ERROR: auth failed"), "{said:#?}");
}

/// `arguments` (`-s`): a destination with blanks and quotes is taken literally.
#[test]
fn an_odd_destination_goes_through_a_shell_unharmed() {
    let pair = Pair::new(Way::Shell);
    pair.stage.write("f", "x");
    pair.run_to("it's a \"dir\" $HOME; x/", &[&BY_NAME[..], &["-s"]].concat(), b"./f\0").well();
    assert_eq!(pair.target_names(), ["it's a \"dir\" $HOME; x", "it's a \"dir\" $HOME; x/f"]);
}

/// `tests/e2e`, `standby_lifetime`: a daemon speaks first, with a greeting.
#[test]
fn a_daemon_greets_with_its_protocol() {
    let pair = Pair::new(Way::Daemon);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, pair.stage.daemon.as_ref().unwrap().port)).unwrap();
    let mut greeting = [0; 11];
    std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
    assert!(
        [b"@RSYNCD: 31", b"@RSYNCD: 32", b"@RSYNCD: 33"].contains(&&greeting),
        "{:?}",
        greeting.escape_ascii().to_string()
    );
}
