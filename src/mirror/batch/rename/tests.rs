//! Which moves are taken over from the old name, and with which arguments.

use std::path::PathBuf;

use super::*;
use crate::model::{Generation, Lane, Timestamp, TransferOptions};

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn daemon(module: &str) -> Destination {
    Destination::Daemon { host: "h".into(), module: module.into() }
}

fn ssh(at: &str) -> Destination {
    Destination::Ssh { host: "u@h".into(), path: PathBuf::from(at) }
}

#[test]
fn ways() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("new/sub")).unwrap();
    std::fs::create_dir_all(dir.path().join("there")).unwrap();
    std::fs::write(dir.path().join("small"), "1").unwrap();
    for name in ["large", "new/large"] {
        std::fs::File::create(dir.path().join(name)).unwrap().set_len(BYTES_MIN).unwrap();
    }
    for (new, scope, old, expected) in [
        ("new", Scope::Subtree, "old", Some(Way::Tree)),
        ("new/sub", Scope::Subtree, "there/old", Some(Way::Tree)),
        // Something else has come to the old name, or the directory above the old name is gone too.
        ("new", Scope::Subtree, "there", None),
        ("new", Scope::Subtree, "gone/old", None),
        ("gone", Scope::Subtree, "old", None),
        ("large", Scope::Subtree, "old", None),
        ("large", Scope::Entry, "old", Some(Way::SameDirectory)),
        ("large", Scope::Entry, "small", Some(Way::SameDirectory)),
        ("new/large", Scope::Entry, "large", Some(Way::SameName)),
        ("new/large", Scope::Entry, "gone/large", Some(Way::SameName)),
        ("new/large", Scope::Entry, "other", None),
        ("small", Scope::Entry, "old", None),
        ("new", Scope::Entry, "old", None),
    ] {
        let job = ClaimedJob {
            path: path(new),
            scope,
            origin: Origin::Replaced,
            generation: Generation::FIRST,
            since: Timestamp::ZERO,
            moved_from: Some(path(old)),
            several_names: None,
            is_new: false,
            is_safety_rerun: false,
        };
        assert_eq!(way(&job, &path(old), &mut Source::new(dir.path())), expected, "{new} from {old}");
    }
}

#[test]
fn where_the_old_name_is_seen_from_the_new_one() {
    let local = Destination::Local(PathBuf::from("/srv/m"));
    for (destination, root, basis, expected) in [
        (daemon("m"), "new", "old", "/old"),
        (daemon("m/in/side/"), "a/new", "b/old", "/in/side/b/old"),
        (daemon("m"), "a", "", "/"),
        (ssh("/srv/m"), "new", "old", "../old"),
        (ssh("m"), "a/b/new", "a/old", "../../../a/old"),
        (ssh("m"), "", "old", "old"),
        (local, "a/new", "", "../../"),
    ] {
        let (root, basis) = (RelPath::new(root.as_bytes()).unwrap(), RelPath::new(basis.as_bytes()).unwrap());
        assert_eq!(link_dest(&destination, &root, &basis), expected, "{destination} {root} {basis}");
    }
    assert_eq!(within(&daemon("m"), &path("a/b")), daemon("m/a/b"));
    assert_eq!(within(&ssh("m"), &path("a")), ssh("m/a"));
}

fn shown(target: &Destination, params: &[&str], way: Way, new: &str, old: &str) -> Option<(String, Vec<u8>)> {
    let params = params.iter().map(OsString::from).collect();
    let options = TransferOptions { params, ..TransferOptions::default() };
    let target = Target { destination: target.clone(), options };
    let entry = Entry { path: path(new), presence: Presence::Directory, orphan: false, jobs: vec![0] };
    let run = Run::new(RunKind::Flat, Origin::Write, vec![entry]);
    let rules = ["- *~".into()];
    let mode = Mode { contents: false, rules: &rules, ..Mode::new(Lane::Small, Deletion::ByName, Pass::Real) };
    let (args, list) = command(&target, way, &run, (&path(new), &path(old)), mode, true)?;
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    Some((args.join(" "), list))
}

#[test]
fn commands() {
    let to_daemon = "--sockopts=TCP_NODELAY --contimeout=30";
    assert_eq!(
        shown(&daemon("m"), &["-artz", "--delete", "--max-delete", "5"], Way::Tree, "a/new", "b/old").unwrap(),
        (
            format!(
                "-artz --modify-window=-1 -r --delete --max-delete=0 --link-dest=/b/old --filter=- *~ {to_daemon} \
                 ./a/new/ h::m/a/new/"
            ),
            Vec::new()
        )
    );
    assert_eq!(
        shown(&daemon("m"), &["-artz"], Way::SameName, "f", "b/f").unwrap(),
        (
            format!(
                "-artz --modify-window=-1 --no-r --dirs --files-from=- --from0 --ignore-times --link-dest=/b \
                 {to_daemon} ./ h::m/"
            ),
            b"./f\0".to_vec()
        )
    );
    let (fuzzy, list) = shown(&daemon("m"), &["-artz"], Way::SameDirectory, "d/g", "d/f").unwrap();
    assert!(fuzzy.starts_with("--fuzzy -artz ") && fuzzy.contains(" --ignore-times ") && list == b"./d/g\0");
    // Behind ssh a shell sees the arguments unless `-s` is given, and a daemon may take an escaped name literally.
    let (plain, _) = shown(&daemon("m"), &["-a"], Way::Tree, "it's new", "old").unwrap();
    assert!(!plain.contains(" -s "), "{plain}");
    assert!(shown(&daemon("m"), &["-a"], Way::Tree, "new", "an old one").unwrap().0.contains(" -s "));
    let (plain, _) = shown(&ssh("/m"), &["-a"], Way::Tree, "new", "old").unwrap();
    assert!(plain.contains(" --link-dest=../old ") && !plain.contains(" -s "), "{plain}");
    for (new, old) in [("it's", "old"), ("new", "$(x)")] {
        assert!(shown(&ssh("/m"), &["-a"], Way::Tree, new, old).unwrap().0.contains(" -s "), "{new} {old}");
    }
    for name in ["a*", "b?", "[c]", "d\\", "e\nf"] {
        assert_eq!(shown(&daemon("m"), &["-a"], Way::Tree, name, "old"), None, "{name}");
        assert_eq!(shown(&daemon("m"), &["-a"], Way::Tree, "new", name), None, "{name}");
    }
}

#[test]
fn small_trees_are_not_worth_it() {
    let dir = tempfile::tempdir().unwrap();
    let filter = Filter::new(&[], false).unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    std::fs::write(dir.path().join("a/small"), "1").unwrap();
    assert!(!holds_much(dir.path(), &path("a"), &filter));
    std::fs::File::create(dir.path().join("a/b/large")).unwrap().set_len(BYTES_MIN).unwrap();
    assert!(holds_much(dir.path(), &path("a"), &filter));
    let mut all: Vec<String> = below(dir.path(), &path("a"), &filter).map(|(path, _)| path.to_string()).collect();
    all.sort();
    assert_eq!(all, ["a/b", "a/b/large", "a/small"]);
}
