//! The names of the format. They serve to find misspelt names: sersync ignores a misspelt element and then misses the one that
//! was meant.

use super::diagnostic::{Matter, Notes};
use super::xml::element::Element;

/// A misspelt name is at least this similar (0 to 1) to the right one.
const SIMILARITY_MIN: f64 = 0.75;

/// An element of the format: its attributes, its children, and whether it may stand more than once.
struct Spec {
    name: &'static str,
    many: bool,
    attributes: &'static [&'static str],
    children: &'static [Spec],
}

const fn one(name: &'static str, attributes: &'static [&'static str], children: &'static [Spec]) -> Spec {
    Spec { name, many: false, attributes, children }
}

const fn many(name: &'static str, attributes: &'static [&'static str], children: &'static [Spec]) -> Spec {
    Spec { name, many: true, attributes, children }
}

const START: &[&str] = &["start"];
const EXCLUDES: &[Spec] = &[many("exclude", &["expression"], &[])];

const HEAD: Spec = one(
    "head",
    &["version"],
    &[
        one("host", &["hostip", "port"], &[]),
        one("debug", START, &[]),
        one("fileSystem", &["xfs"], &[]),
        one("filter", START, EXCLUDES),
        one(
            "inotify",
            &[],
            &[
                one("delete", START, &[]),
                one("createFolder", START, &[]),
                one("createFile", START, &[]),
                one("closeWrite", START, &[]),
                one("moveFrom", START, &[]),
                one("moveTo", START, &[]),
                one("attrib", START, &[]),
                one("modify", START, &[]),
            ],
        ),
        one(
            "sersync",
            &[],
            &[
                many("localpath", &["watch"], &[many("remote", &["ip", "name"], &[])]),
                one(
                    "rsync",
                    &[],
                    &[
                        one("commonParams", &["params", "keepNewer"], &[]),
                        one("auth", &["start", "users", "passwordfile"], &[]),
                        one("userDefinedPort", &["start", "port"], &[]),
                        one("timeout", &["start", "time"], &[]),
                        one("ssh", START, &[]),
                    ],
                ),
                one("failLog", &["path", "timeToExecute"], &[]),
                one("crontab", &["start", "schedule", "timezone"], &[one("crontabfilter", START, EXCLUDES)]),
                one("plugin", &["start", "name"], &[]),
            ],
        ),
        many(
            "plugin",
            &["name"],
            &[
                one("param", &["prefix", "suffix", "ignoreError"], &[]),
                one("filter", START, &[many("include", &["expression"], &[])]),
                one(
                    "localpath",
                    &["watch"],
                    &[
                        one("deshost", &["ip", "port", "url"], &[]),
                        one("cdninfo", &["domainname", "port", "username", "passwd"], &[]),
                        one("sendurl", &["base"], &[]),
                        one("regexurl", &["regex", "match"], &[]),
                    ],
                ),
            ],
        ),
        one(
            "syncq",
            &[],
            &[
                one("backoff", &["base", "factor", "cap", "maxAttempts"], &[]),
                one(
                    "transfer",
                    &["connections", "largeFile", "hotInterval", "quietPeriod", "maxPending", "standby"],
                    &[],
                ),
                one("ssh", &["share"], &[]),
                one("guard", &["maxDelete"], &[]),
                one("control", &["listen", "tokenFile"], &[]),
                one("legacyHidden", START, &[]),
            ],
        ),
    ],
);

/// Warns of elements and attributes without a meaning in their place, and of second elements where only the first counts.
pub(super) fn check(head: &Element, notes: &mut Notes<'_>) {
    check_element(head, &HEAD, notes);
}

/// The recursion is as deep as the specification, not as the file.
fn check_element(element: &Element, spec: &Spec, notes: &mut Notes<'_>) {
    for attribute in &element.attributes {
        if !spec.attributes.iter().any(|known| is(&attribute.name, known)) {
            let message = format!("<{}> has no attribute {}, ignored", spec.name, notes.show(&attribute.name));
            report(attribute.offset, message, &attribute.name, spec.attributes.iter().copied(), notes);
        }
    }
    let mut seen = vec![false; spec.children.len()];
    for child in &element.children {
        let known = spec.children.iter().zip(&mut seen).find(|(known, _)| is(&child.name, known.name));
        match known {
            Some((known, seen)) => {
                if std::mem::replace(seen, true) && !known.many {
                    let lost = lost(child, notes).map(|lost| format!(": {lost}")).unwrap_or_default();
                    let message = format!("<{}> is given twice; the first counts{lost}", known.name);
                    notes.warn_of(Matter::Twice, child.offset, message, None);
                } else {
                    check_element(child, known, notes);
                }
            }
            None => {
                let name = notes.show(&child.name);
                let message = format!("<{}> holds no <{name}>, ignored", spec.name);
                match belongs(&child.name) {
                    Some(parent) => {
                        let hint = format!("it belongs into <{parent}>");
                        notes.warn_of(Matter::Unknown, child.offset, message, Some(&hint));
                    }
                    None => {
                        report(child.offset, message, &child.name, spec.children.iter().map(|known| known.name), notes)
                    }
                }
            }
        }
    }
}

/// The name of the element in which an element with this name has a meaning.
pub(super) fn belongs(name: &[u8]) -> Option<&'static str> {
    fn find(spec: &'static Spec, name: &[u8]) -> Option<&'static str> {
        let holds = spec.children.iter().any(|child| is(name, child.name));
        if holds { Some(spec.name) } else { spec.children.iter().find_map(|child| find(child, name)) }
    }
    static FORMAT: Spec = HEAD;
    find(&FORMAT, name)
}

/// The content of a surplus element whose loss somebody may notice: directories that are not mirrored, and expressions.
pub(super) fn lost(element: &Element, notes: &Notes<'_>) -> Option<String> {
    let watched: Vec<String> = element
        .children("localpath")
        .filter_map(|localpath| Some(notes.show(&localpath.attribute("watch")?.value)))
        .collect();
    let expressions = element.children("exclude").chain(element.children("include")).count();
    match (watched.is_empty(), expressions) {
        (false, _) => Some(format!("not mirrored is {}; all <localpath> belong into one", watched.join(" and "))),
        (true, 1..) => Some(format!("its expressions ({expressions}) do not hold; all belong into one")),
        (true, 0) => None,
    }
}

/// The meaning of an element of the file in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Known {
        /// How many elements with the same name stand before it in its parent.
        earlier: usize,
        /// The attributes that the format gives it.
        attributes: &'static [&'static str],
    },
    /// A second element where only the first counts.
    Surplus,
    /// A name that has no meaning here.
    Unknown,
}

/// Calls `each` for `head` and every element below it, in the order of the file. The first argument holds the names of the
/// element's parents below `head` and its own name, as the format spells them (`sersync/rsync/auth`). The content of an element
/// without a meaning is left out.
pub(super) fn walk(head: &Element, each: &mut dyn FnMut(&str, &Element, Standing)) {
    each(HEAD.name, head, Standing::Known { earlier: 0, attributes: HEAD.attributes });
    walk_children(head, &HEAD, "", each);
}

fn walk_children(element: &Element, spec: &Spec, path: &str, each: &mut dyn FnMut(&str, &Element, Standing)) {
    let mut seen = vec![0; spec.children.len()];
    for child in &element.children {
        let known = spec.children.iter().zip(&mut seen).find(|(known, _)| is(&child.name, known.name));
        let Some((known, seen)) = known else {
            each(path, child, Standing::Unknown);
            continue;
        };
        let path = if path.is_empty() { known.name.to_owned() } else { format!("{path}/{}", known.name) };
        let earlier = std::mem::replace(seen, *seen + 1);
        if earlier > 0 && !known.many {
            each(&path, child, Standing::Surplus);
        } else {
            each(&path, child, Standing::Known { earlier, attributes: known.attributes });
            walk_children(child, known, &path, each);
        }
    }
}

/// Every attribute of the format with its element, named as by [`walk`].
#[cfg(test)]
pub(super) fn all_attributes() -> Vec<(String, &'static str)> {
    fn add(spec: &Spec, path: &str, found: &mut Vec<(String, &'static str)>) {
        found.extend(spec.attributes.iter().map(|attribute| (path.to_owned(), *attribute)));
        for child in spec.children {
            let path = if path == HEAD.name { child.name.to_owned() } else { format!("{path}/{}", child.name) };
            add(child, &path, found);
        }
    }
    let mut found = Vec::new();
    add(&HEAD, HEAD.name, &mut found);
    found
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

fn report<'s>(
    offset: usize,
    message: String,
    name: &[u8],
    known: impl Iterator<Item = &'s str>,
    notes: &mut Notes<'_>,
) {
    let hint = closest(&notes.show(name), known).map(|meant| format!("did you mean {meant}?"));
    notes.warn_of(Matter::Unknown, offset, message, hint.as_deref());
}

/// The known name that is most similar to `given`, if any is similar enough.
pub(super) fn closest<'s>(given: &str, known: impl Iterator<Item = &'s str>) -> Option<&'s str> {
    let given = given.to_ascii_lowercase();
    known
        .map(|name| (strsim::jaro_winkler(&given, &name.to_ascii_lowercase()), name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}
