//! Reads a record of strace: which call changed which file, from when to when.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The calls that can change a file or make it durable. `-y` names the file of a descriptor, `-xx` keeps all bytes.
pub const STRACE_ARGS: [&str; 8] = [
    "-f",
    "-y",
    "-xx",
    "-s",
    "16777216",
    "-e",
    "trace=open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,copy_file_range,sendfile,\
     fsync,fdatasync,sync,syncfs,rename,renameat,renameat2,link,linkat,symlink,unlink,unlinkat,mkdir,mkdirat,rmdir",
    "-o",
];

/// A call that succeeded. `start` and `end` are the lines of the record: a sync covers what ended before it started.
#[derive(Debug)]
pub struct Call {
    pub start: usize,
    pub end: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// The file was opened with `O_CREAT`: it is there from then on.
    Create(PathBuf),
    MakeDir(PathBuf),
    Write {
        path: PathBuf,
        offset: Offset,
        bytes: Vec<u8>,
    },
    SetLen {
        path: PathBuf,
        len: u64,
    },
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// The child has said that this commit is durable.
    Acknowledged(u64),
}

#[derive(Debug, Clone, Copy)]
pub enum Offset {
    At(u64),
    /// `write`, which goes on where the last write ended. In a store only whole new files are written that way.
    End,
}

/// All calls that touch what is below `dir`, in the order in which they ended.
pub fn parse(record: &str, dir: &Path) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (line, text) in record.lines().enumerate() {
        let Some((pid, text)) = text.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(head) = text.strip_suffix("<unfinished ...>") {
            begun.insert(pid, (line, head));
        } else if let Some(rest) = text.strip_prefix("<... ") {
            let Some((start, head)) = begun.remove(pid) else { continue };
            let tail = rest.split_once(" resumed>").expect("a resumed call").1;
            calls.extend(call(&format!("{head}{tail}"), dir).map(|what| (start, line, what)));
        } else {
            calls.extend(call(text, dir).map(|what| (line, line, what)));
        }
    }
    let calls =
        calls.into_iter().flat_map(|(start, end, whats)| whats.into_iter().map(move |what| Call { start, end, what }));
    calls.collect()
}

/// The effects of a whole call; `None` if it failed, or has nothing to do with `dir`.
fn call(text: &str, dir: &Path) -> Option<Vec<What>> {
    let (name, rest) = text.split_once('(')?;
    let (args, result) = rest.rsplit_once(" = ")?;
    let args = args.trim_end().strip_suffix(')')?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let args = split(args);
    let arg = |n: usize| args.get(n).copied().unwrap_or_default();
    let ours = |path: PathBuf| Some(path).filter(|path| path.starts_with(dir) && path != dir);
    let number = |n: usize| arg(n).parse::<u64>().ok();
    Some(match name {
        "open" | "openat" | "creat" => {
            let path = ours(if name == "openat" { below(arg(0), arg(1)) } else { below("", arg(0)) })?;
            let flags = if name == "openat" { arg(2) } else { arg(1) };
            let mut whats = Vec::new();
            if flags.contains("O_CREAT") || name == "creat" {
                whats.push(What::Create(path.clone()));
            }
            if flags.contains("O_TRUNC") || name == "creat" {
                whats.push(What::SetLen { path, len: 0 });
            }
            whats
        }
        "write" => {
            let bytes = bytes(arg(1));
            let said = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().strip_prefix("acknowledged "));
            if let Some(number) = said {
                return Some(vec![What::Acknowledged(number.parse().expect("a number"))]);
            }
            vec![What::Write { path: ours(descriptor(arg(0))?)?, offset: Offset::End, bytes }]
        }
        "pwrite64" => {
            let offset = Offset::At(number(3).expect("an offset"));
            vec![What::Write { path: ours(descriptor(arg(0))?)?, offset, bytes: bytes(arg(1)) }]
        }
        "ftruncate" => vec![What::SetLen { path: ours(descriptor(arg(0))?)?, len: number(1).expect("a length") }],
        "fsync" | "fdatasync" => {
            // The state directory itself counts too: it names the files in it.
            vec![What::Sync(descriptor(arg(0)).filter(|path| path.starts_with(dir))?)]
        }
        "rename" => vec![What::Rename(ours(below("", arg(0)))?, ours(below("", arg(1)))?)],
        "renameat" | "renameat2" => vec![What::Rename(ours(below(arg(0), arg(1)))?, ours(below(arg(2), arg(3)))?)],
        "unlink" | "rmdir" => vec![What::Remove(ours(below("", arg(0)))?)],
        "unlinkat" => vec![What::Remove(ours(below(arg(0), arg(1)))?)],
        "mkdir" => vec![What::MakeDir(ours(below("", arg(0)))?)],
        "mkdirat" => vec![What::MakeDir(ours(below(arg(0), arg(1)))?)],
        _ => {
            let touched = args.iter().any(|arg| descriptor(arg).is_some_and(|path| path.starts_with(dir)));
            assert!(!touched, "the model does not know {text}");
            return None;
        }
    })
}

/// The arguments of a call. Only strings could hold a comma, and their bytes are written as numbers.
fn split(args: &str) -> Vec<&str> {
    args.split(", ").map(str::trim).collect()
}

/// The file of `7</a/path>`, which later versions of strace write as numbers too. A removed file has another form, and is
/// of no more interest.
fn descriptor(arg: &str) -> Option<PathBuf> {
    let path = arg.split_once('<')?.1.strip_suffix('>')?;
    let text = if path.contains("\\x") { text(hex(path)) } else { path.to_owned() };
    (!text.ends_with("(deleted)")).then(|| PathBuf::from(text))
}

/// A name as the call was given it, relative to the directory of `descriptor` if it has one.
fn below(dir: &str, name: &str) -> PathBuf {
    descriptor(dir).unwrap_or_default().join(text(bytes(name)))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("names of tests are text")
}

/// The bytes of `"\x61\x62"`.
fn bytes(arg: &str) -> Vec<u8> {
    let quoted = arg.strip_prefix('"').and_then(|arg| arg.strip_suffix('"')).expect("a whole string");
    hex(quoted)
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |digits: &str| u8::from_str_radix(digits, 16).expect("two hexadecimal digits");
    text.split("\\x").skip(1).map(digits).collect()
}
