//! Holds the dependencies between files to the table in ARCHITECTURE.md, and the files free of circles.
//!
//! An arrow runs from a file that names an item, in a `use` line or in a path, to the file that defines the item. A `pub use`
//! is no arrow: the name is followed through it. The sources are read as tokens, from the first file of each crate through
//! its `mod` lines. A room is a row of the table; the longest of its names that a file's name begins with decides to which
//! room the file belongs.
//!
//! Not seen: tests, comments, names in texts (`#[serde(with = "...")]`), what a macro expands to, and methods, which are
//! called without their file being named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates: the name by which others call each, and its first file.
const CRATES: [(&str, &str); 6] = [
    ("syncq", "src/lib.rs"),
    ("main", "src/main.rs"),
    ("chaos", "tools/chaos/main.rs"),
    ("workloads", "tools/workloads/main.rs"),
    ("micro", "tools/micro.rs"),
    ("manual", "tools/manual.rs"),
];
/// A name that is re-exported more often than this is not followed any further.
const REEXPORTS_MAX: u32 = 16;

/// The crate's name, then the names of the modules down to this one.
type ModulePath = Vec<String>;

#[derive(Default)]
struct Module {
    /// Relative to the repository.
    file: String,
    children: BTreeSet<String>,
    /// The items at the top level.
    defined: BTreeSet<String>,
    /// The imports of `use` lines: the name that an item gets here, and its path.
    imports: Vec<(String, Vec<String>)>,
    /// The paths that make arrows: those of `use` lines that are not public, and those in code and attributes.
    named: Vec<Vec<String>>,
}

#[derive(Default)]
struct Sources {
    modules: BTreeMap<ModulePath, Module>,
}

/// The file that an arrow starts from and the file that it leads to, with the paths that make the arrow.
type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

/// The meaning of a path.
enum Resolved {
    Module(ModulePath),
    /// An item of this module.
    Item(ModulePath),
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Splits a source into words, `::`, texts (each with the quotation mark in front) and single signs. Comments, characters and
/// raw texts are left out.
fn tokens(text: &str) -> Vec<String> {
    let (c, mut found, mut at) = (text.chars().collect::<Vec<char>>(), Vec::new(), 0);
    let is = |at: usize, sign: char| c.get(at) == Some(&sign);
    let is_word = |sign: &char| sign.is_alphanumeric() || *sign == '_';
    while at < c.len() {
        if is(at, '/') && is(at + 1, '/') {
            at += c[at..].iter().take_while(|sign| **sign != '\n').count();
        } else if is(at, '/') && is(at + 1, '*') {
            at += 2;
            while at < c.len() && !(is(at, '*') && is(at + 1, '/')) {
                at += 1;
            }
            at += 2;
        } else if is(at, '"') {
            let begin = at;
            at += 1;
            while at < c.len() && !is(at, '"') {
                at += if is(at, '\\') { 2 } else { 1 };
            }
            found.push(c[begin..at.min(c.len())].iter().collect());
            at += 1;
        } else if is(at, '\'') {
            // A character, or else the mark of a lifetime.
            at += match (is(at + 1, '\\'), is(at + 2, '\'')) {
                (true, _) => 3 + c[(at + 3).min(c.len())..].iter().take_while(|sign| **sign != '\'').count() + 1,
                (false, true) => 3,
                (false, false) => 1,
            };
        } else if is_word(&c[at]) {
            let word: String = c[at..].iter().take_while(|sign| is_word(sign)).collect();
            at += word.chars().count();
            let hashes = c[at..].iter().take_while(|sign| **sign == '#').count();
            if ["r", "br", "cr"].contains(&word.as_str()) && is(at + hashes, '"') {
                let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                at += hashes + 1;
                while at < c.len() && !c[at..].starts_with(&end) {
                    at += 1;
                }
                at += end.len();
            } else {
                found.push(word);
            }
        } else if is(at, ':') && is(at + 1, ':') {
            found.push("::".to_owned());
            at += 2;
        } else {
            if !c[at].is_whitespace() {
                found.push(c[at].to_string());
            }
            at += 1;
        }
    }
    found
}

/// Reads the path that begins at `at`, if there is one, and moves `at` behind it.
fn path_at(tokens: &[String], at: &mut usize) -> Option<Vec<String>> {
    let next = |offset: usize| tokens.get(*at + offset).map(String::as_str).unwrap_or_default();
    let before = at.checked_sub(1).map_or("", |before| tokens[before].as_str());
    let mut path = vec![next(0).to_owned()];
    while next(path.len() * 2 - 1) == "::" && next(path.len() * 2).starts_with(|c: char| c.is_alphabetic() || c == '_')
    {
        path.push(next(path.len() * 2).to_owned());
    }
    *at += path.len() * 2 - 1;
    (path.len() > 1 && before != "::" && before != ".").then_some(path)
}

/// The index behind the group that begins at `at`.
fn end_of_group(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (offset, token) in tokens[at..].iter().enumerate() {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + offset + 1;
        }
    }
    tokens.len()
}

/// The index behind the item, field or statement that begins at `at`.
fn end_of_item(tokens: &[String], at: usize) -> usize {
    let ends_in_sign = ["use", "const", "static", "type", "let"].contains(&tokens[at].as_str());
    let has_body =
        ["fn", "struct", "enum", "union", "trait", "impl", "mod", "unsafe", "async"].contains(&tokens[at].as_str());
    let mut at = at;
    while at < tokens.len() {
        match tokens[at].as_str() {
            ";" => return at + 1,
            "," if !ends_in_sign && !has_body => return at + 1,
            "}" => return at,
            "{" if !ends_in_sign => return end_of_group(tokens, at),
            "(" | "[" | "{" => at = end_of_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// Reads a tree of a `use` line that stands behind `before`: the name that each item gets, and its path.
fn imports(tokens: &[String], at: &mut usize, before: &[String], into: &mut Vec<(String, Vec<String>)>) {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        match token.as_str() {
            "::" => {}
            "{" => {
                while tokens.get(*at).is_some_and(|token| token != "}") {
                    imports(tokens, at, &path, into);
                    *at += usize::from(tokens.get(*at).is_some_and(|token| token == ","));
                }
                *at += 1;
                return;
            }
            "as" => {
                into.push((tokens[*at].clone(), path));
                *at += 1;
                return;
            }
            word => path.push(word.to_owned()),
        }
        if tokens.get(*at).is_none_or(|token| [",", "}", ";"].contains(&token.as_str())) {
            // `self` in braces is the module in front of them.
            if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            into.push((path.last().cloned().unwrap_or_default(), path));
            return;
        }
    }
}

impl Sources {
    fn read() -> Self {
        let mut sources = Self::default();
        for (name, file) in CRATES {
            sources.file(vec![name.to_owned()], &root().join(file));
        }
        sources
    }

    fn file(&mut self, place: ModulePath, file: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let name =
            file.canonicalize().unwrap().strip_prefix(root().canonicalize().unwrap()).unwrap().display().to_string();
        self.module(place, file, &name, &tokens(&text));
    }

    fn module(&mut self, place: ModulePath, file: &Path, name: &str, tokens: &[String]) {
        let mut module = Module { file: name.to_owned(), ..Module::default() };
        let (mut at, mut depth) = (0, 0);
        let (mut is_test, mut is_public, mut elsewhere) = (false, false, None);
        while at < tokens.len() {
            let next = |offset: usize| tokens.get(at + offset).map(String::as_str).unwrap_or_default();
            match next(0) {
                "#" if next(1) == "[" || next(1) == "!" => {
                    let begin = at + if next(1) == "!" { 2 } else { 1 };
                    let end = end_of_group(tokens, begin);
                    let attribute = &tokens[begin + 1..end - 1];
                    is_test |= attribute.first().is_some_and(|first| first == "cfg")
                        && (attribute.get(2).is_some_and(|word| word == "test")
                            || attribute.get(4).is_some_and(|word| word == "test"));
                    if attribute.first().is_some_and(|first| first == "path") {
                        elsewhere = attribute.get(2).map(|text| text[1..].to_owned());
                    }
                    let mut within = 0;
                    while within < attribute.len() {
                        module.named.extend(path_at(attribute, &mut within));
                    }
                    at = end;
                    continue;
                }
                "pub" => {
                    is_public = true;
                    at = if next(1) == "(" { end_of_group(tokens, at + 1) } else { at + 1 };
                    continue;
                }
                _ if is_test => at = end_of_item(tokens, at),
                "use" => {
                    let mut all = Vec::new();
                    let mut end = at + 1;
                    imports(tokens, &mut end, &[], &mut all);
                    if !is_public {
                        module.named.extend(all.iter().map(|(_, path)| path.clone()));
                    }
                    module.imports.extend(all);
                    at = end + 1;
                }
                "mod" if next(2) == ";" || next(2) == "{" => {
                    let child = next(1).to_owned();
                    let below: ModulePath = place.iter().cloned().chain([child.clone()]).collect();
                    if next(2) == "{" {
                        let end = end_of_group(tokens, at + 2);
                        self.module(below, file, name, &tokens[at + 3..end - 1]);
                        at = end;
                    } else {
                        let dir = file.parent().unwrap();
                        let stem = file.file_stem().unwrap().to_str().unwrap();
                        let own = if ["mod", "lib", "main"].contains(&stem) { dir.to_owned() } else { dir.join(stem) };
                        let found = match elsewhere.take() {
                            Some(path) => dir.join(path),
                            None => [own.join(format!("{child}.rs")), own.join(&child).join("mod.rs")]
                                .into_iter()
                                .find(|path| path.exists())
                                .unwrap_or_else(|| panic!("{name}: where is {child}?")),
                        };
                        self.file(below, &found);
                        at += 3;
                    }
                    module.children.insert(child);
                }
                word => {
                    depth += i32::from(word == "{") - i32::from(word == "}");
                    // Deeper down are methods, and what a function has to itself.
                    if depth == 0
                        && ["fn", "struct", "enum", "union", "trait", "type", "const", "static"].contains(&word)
                    {
                        let is_mut = next(1) == "mut";
                        module.defined.insert(next(if is_mut { 2 } else { 1 }).to_owned());
                    }
                    module.named.extend(path_at(tokens, &mut at));
                }
            }
            (is_test, is_public, elsewhere) = (false, false, None);
        }
        self.modules.insert(place, module);
    }

    /// The meaning of a path that is written in the module at `here`. `None`: the path leads to nothing in these sources.
    fn resolve(&self, here: &ModulePath, path: &[String], reexports: u32) -> Option<Resolved> {
        let mut now = here.clone();
        for (at, word) in path.iter().enumerate() {
            match word.as_str() {
                "crate" if at == 0 => now.truncate(1),
                "self" if at == 0 => {}
                "super" => {
                    now.pop();
                }
                _ if at == 0 && self.modules.contains_key(std::slice::from_ref(word)) && *here[0] != **word => {
                    now = vec![word.clone()];
                }
                word => match self.lookup(&now, word, at + 1 < path.len(), reexports)? {
                    Resolved::Module(place) => now = place,
                    item @ Resolved::Item(_) => return Some(item),
                },
            }
        }
        Some(Resolved::Module(now))
    }

    fn lookup(&self, place: &ModulePath, name: &str, more: bool, reexports: u32) -> Option<Resolved> {
        let module = self.modules.get(place)?;
        let child = || Resolved::Module(place.iter().cloned().chain([name.to_owned()]).collect());
        if more && module.children.contains(name) {
            return Some(child());
        }
        let named = module.imports.iter().filter(|(alias, path)| alias == name && path.as_slice() != [name]);
        let found = || named.clone().find_map(|(_, path)| self.resolve(place, path, reexports + 1));
        if let Some(found) = if reexports < REEXPORTS_MAX { found() } else { None } {
            return Some(found);
        }
        if module.defined.contains(name) {
            return Some(Resolved::Item(place.clone()));
        }
        module.children.contains(name).then(child)
    }

    /// The arrows between files, by the names that the table uses.
    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (place, module) in &self.modules {
            for path in &module.named {
                let Some(Resolved::Item(at)) = self.resolve(place, path, 0) else { continue };
                let to = &self.modules[&at].file;
                if *to != module.file {
                    arrows.entry((short(&module.file), short(to))).or_default().insert(path.join("::"));
                }
            }
        }
        arrows
    }
}

/// The name of a file in the table: `mirror/plan/run`, `tools/chaos/stage`.
fn short(file: &str) -> String {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    file.strip_prefix("src/").unwrap_or(file).to_owned()
}

/// The words in backticks.
fn names(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table.
fn table(text: &str) -> Vec<&str> {
    let (_, begin) = text.split_once("<!-- arrows -->").expect("a table of arrows in ARCHITECTURE.md");
    let (table, _) = begin.split_once("<!-- end of arrows -->").expect("an end of the table");
    table.lines().filter(|line| line.starts_with("| `")).collect()
}

/// The faults of the arrows, by the table in `text`.
fn complaints(text: &str, mut arrows: Arrows) -> Vec<String> {
    let rows: Vec<(Vec<&str>, BTreeSet<&str>)> = table(text)
        .into_iter()
        .filter_map(|line| line.trim_matches('|').split_once('|'))
        .map(|(room, may)| (names(room), names(may).into_iter().collect()))
        .collect();
    let covers =
        |name: &str, file: &str| file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let row = |file: &str| {
        let longest = |names: &[&str]| names.iter().filter(|name| covers(name, file)).map(|name| name.len()).max();
        let row = rows.iter().filter(|(names, _)| longest(names).is_some()).max_by_key(|(names, _)| longest(names));
        row.unwrap_or_else(|| panic!("no row of the table is about {file}"))
    };
    let wrong = |from: &str, to: &str| {
        let (own, others) = (row(from), row(to));
        !std::ptr::eq(own, others) && !others.0.iter().any(|name| own.1.contains(name))
    };
    let mut complaints = Vec::new();
    for ((from, to), named) in arrows.iter().filter(|((from, to), _)| wrong(from, to)) {
        complaints.push(format!("{from} -> {to} is not in the table: {named:?}"));
    }
    for (room, may) in &rows {
        for may in may {
            let is_used = arrows.keys().any(|(from, to)| std::ptr::eq(&row(from).0, room) && row(to).0.contains(may));
            if !is_used {
                complaints.push(format!("{room:?} does not use {may}: take it out of the table"));
            }
        }
    }
    // A file that no arrow reaches, or that no arrow leaves, lies in no circle. Its arrows are removed, again and again. The
    // rest are the circles and the arrows between them.
    loop {
        let before = arrows.len();
        let from: BTreeSet<String> = arrows.keys().map(|(from, _)| from.clone()).collect();
        let to: BTreeSet<String> = arrows.keys().map(|(_, to)| to.clone()).collect();
        arrows.retain(|(a, b), _| to.contains(a) && from.contains(b));
        if arrows.len() == before {
            break;
        }
    }
    complaints.extend(arrows.iter().map(|((from, to), named)| format!("in a circle: {from} -> {to}: {named:?}")));
    complaints
}

#[test]
fn every_arrow_is_in_the_table_and_none_closes_a_circle() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let complaints = complaints(&text, Sources::read().arrows());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn what_is_complained_of() {
    let text = "<!-- arrows -->\n| room | may use |\n|---|---|\n| `a` | `b` |\n| `b`, `a/low` | `c` |\n| `c` |  |\n\
                <!-- end of arrows -->";
    let complaints = |arrows: &[(&str, &str)]| {
        let named = |(from, to): &(&str, &str)| (((*from).to_owned(), (*to).to_owned()), BTreeSet::new());
        complaints(text, arrows.iter().map(named).collect())
    };
    let allowed = [("a/x", "a/y"), ("a/x", "b"), ("a/x", "a/low/z"), ("b", "c")];
    assert_eq!(complaints(&allowed), [""; 0]);
    let against = |arrow| complaints(&[&allowed[..], &[arrow]].concat());
    assert_eq!(
        against(("c", "b")),
        ["c -> b is not in the table: {}", "in a circle: b -> c: {}", "in a circle: c -> b: {}"]
    );
    assert_eq!(against(("a/y", "a/x")).len(), 2, "a circle within a room");
    assert_eq!(against(("a/low/z", "a/x")).len(), 3, "a longer name decides, and closes a circle here");
    assert_eq!(complaints(&allowed[..3]), ["[\"b\", \"a/low\"] does not use c: take it out of the table"]);
}

#[test]
fn names_are_followed_to_where_they_are_defined() {
    let mut sources = Sources::default();
    let module = |sources: &mut Sources, place: &[&str], text: &str| {
        let place: ModulePath = place.iter().map(|&word| word.to_owned()).collect();
        sources.module(place.clone(), Path::new("src/x.rs"), &format!("src/{}.rs", place.join("/")), &tokens(text));
    };
    module(
        &mut sources,
        &["k", "a"],
        "use super::b::{self, One as Uno}; fn f() { b::two(\"super::b::Three\"); } // super::b::Three",
    );
    module(
        &mut sources,
        &["k", "b"],
        "pub use super::c::One; pub fn two() {} #[cfg(test)] mod tests { use super::super::a::f; }",
    );
    module(
        &mut sources,
        &["k", "c"],
        "pub struct One; const X: &str = r#\"use super::a::f;\"#; fn g(c: char) -> bool { c == '\\'' }",
    );
    module(&mut sources, &["k"], "");
    for (parent, child) in [("k", "a"), ("k", "b"), ("k", "c")] {
        sources.modules.get_mut(&vec![parent.to_owned()]).unwrap().children.insert(child.to_owned());
    }
    let arrows: Vec<String> = sources.arrows().keys().map(|(from, to)| format!("{from} {to}")).collect();
    assert_eq!(arrows, ["k/a k/b", "k/a k/c"]);
}
