//! Golden bytes of each record, and what becomes of damaged ones.

use proptest::prelude::*;

use super::*;
use crate::model::BootId;
use crate::store::sled::key;

fn round_trip(job: &Job) -> Result<Job, RecordError> {
    let key = key::job(job.target, &job.path);
    decode_job(&key, job.target, job.path.clone(), &encode_job(&key, job)?)
}

fn golden_job() -> Job {
    Job {
        id: JobId(300),
        target: TargetId(2),
        path: RelPath::new(b"a/b").expect("a valid path"),
        scope: Scope::Subtree,
        origin: Origin::Scan,
        state: JobState::Waiting,
        generation: Generation(4),
        queued_at: Timestamp(1_700_000_000_000),
        changed_at: Timestamp(1_700_000_000_001),
        attempts: 5,
        due_at: Timestamp(1_700_000_000_002),
        partial: false,
        last_error: Some(JobError::new(Some(23), "denied")),
    }
}

const GOLDEN_JOB: &[u8] = b"(\xb4\xbb\xcc\x01\x8a\xa2id\xcd\x01,\xa5scope\xa7subtree\xa6origin\xa4scan\
    \xa5state\xa7waiting\xaageneration\x04\xa9queued_at\xcf\0\0\x01\x8b\xcf\xe5h\0\xaachanged_at\xcf\0\0\x01\x8b\xcf\
    \xe5h\x01\xa8attempts\x05\xa6due_at\xcf\0\0\x01\x8b\xcf\xe5h\x02\xaalast_error\x82\xa4code\x17\xa7message\
    \xa6denied";

#[test]
fn a_job_has_these_bytes() {
    let job = golden_job();
    let key = key::job(job.target, &job.path);
    assert_eq!(encode_job(&key, &job).expect("fits").escape_ascii().to_string(), GOLDEN_JOB.escape_ascii().to_string());
    assert_eq!(decode_job(&key, job.target, job.path.clone(), GOLDEN_JOB), Ok(job));
}

#[test]
fn a_target_has_these_bytes() {
    let target = TargetRecord {
        id: TargetId(2),
        root: RootId(1),
        destination: "host::www".into(),
        complete_under: Some(300),
        ..TargetRecord::new(TargetId(2), RootId(1), String::new())
    };
    let key = key::target(target.id);
    let golden = &b"\x12\x0b\xd5\xcf\x01\x83\xa7root_id\x01\xabdestination\xa9host::www\xaecomplete_under\xcd\x01,"[..];
    assert_eq!(
        encode_target(&key, &target).expect("fits").escape_ascii().to_string(),
        golden.escape_ascii().to_string()
    );
    assert_eq!(decode_target(&key, target.id, golden), Ok(target.clone()));
    let unvouched = |up_to: &[u8]| Some(Unvouched { since: Timestamp(9), up_to: RelPath::new(up_to).expect("a path") });
    let paused = TargetRecord {
        paused_since: Some(Timestamp(6)),
        unvouched: unvouched(b"d/\xff"),
        mark: Some(DirectoryId { inode: 2, born_ns: Some(300) }),
        addresses: ["192.0.2.7", "2001:db8::7"].iter().filter_map(|text| text.parse().ok()).collect(),
        ..target
    };
    assert_eq!(decode_target(&key, paused.id, &encode_target(&key, &paused).expect("fits")), Ok(paused.clone()));
    let long = TargetRecord { unvouched: unvouched(&[b'x'; 3_000]), ..paused.clone() };
    let begun_anew = TargetRecord { unvouched: unvouched(b""), ..paused };
    assert_eq!(decode_target(&key, long.id, &encode_target(&key, &long).expect("fits")), Ok(begun_anew));
}

#[test]
fn a_root_has_these_bytes() {
    let root = RootRecord {
        id: RootId(2),
        path: b"/srv/\xff".to_vec(),
        mark: Some(DirectoryId { inode: 2, born_ns: Some(300) }),
        watermark: Some(Moment { wall: Timestamp(4), boot: BootId(*b"sixteen bytes id"), uptime_ms: 5 }),
        scheduled_run: Some(Timestamp(6)),
        mounts: Vec::new(),
    };
    let key = key::root(root.id);
    let golden = &b"\xaa\xe0w\xa0\x01\x84\xa4path\xc4\x06/srv/\xff\xa4mark\x82\xa5inode\x02\xa7born_ns\xcd\x01,\xa9watermark\x83\xa4wall\x04\
        \xa4boot\xc4\x10sixteen bytes id\xa9uptime_ms\x05\xadscheduled_run\x06"[..];
    assert_eq!(encode_root(&key, &root).expect("fits").escape_ascii().to_string(), golden.escape_ascii().to_string());
    assert_eq!(decode_root(&key, root.id, golden), Ok(root));
}

#[test]
fn a_directory_has_these_bytes() {
    let directory = DirectoryRecord {
        root: RootId(2),
        id: DirectoryId { inode: 7, born_ns: None },
        parent: DirectoryId { inode: 2, born_ns: Some(300) },
        name: b"a\xff".to_vec(),
    };
    let key = key::directory(directory.root, directory.id);
    let golden = &b"\xbd\xf1)\xd6\x01\x82\xa6parent\x82\xa5inode\x02\xa7born_ns\xcd\x01,\xa4name\xc4\x02a\xff"[..];
    assert_eq!(
        encode_directory(&key, &directory).expect("fits").escape_ascii().to_string(),
        golden.escape_ascii().to_string()
    );
    assert_eq!(decode_directory(&key, directory.root, directory.id, golden), Ok(directory));
}

#[test]
fn a_record_of_another_program_with_more_fields_and_fewer_is_read() {
    #[derive(Serialize)]
    struct Other {
        id: u64,
        scope: &'static str,
        origin: &'static str,
        state: &'static str,
        generation: u64,
        queued_at: u64,
        changed_at: u64,
        moved_from: &'static str,
    }
    let other = Other {
        id: 1,
        scope: "children",
        origin: "reconcile",
        state: "failed",
        generation: 1,
        queued_at: 1,
        changed_at: 2,
        moved_from: "x",
    };
    let value = encode(b"k", &other).expect("fits");
    let job = decode_job(b"k", TargetId(1), RelPath::root(), &value).expect("readable");
    assert_eq!((job.scope, job.state, job.attempts), (Scope::Children, JobState::Failed, 0));
}

#[test]
fn running_is_stored_as_ready() {
    let job = Job { state: JobState::Running, ..golden_job() };
    assert_eq!(round_trip(&job).expect("readable").state, JobState::Ready);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let job = golden_job();
    let key = key::job(job.target, &job.path);
    let value = encode_job(&key, &job).expect("fits");
    let decode = |value: &[u8]| decode_job(&key, job.target, job.path.clone(), value);
    for bit in 0..value.len() * 8 {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&flipped), Err(RecordError::Checksum), "bit {bit}");
    }
    for end in 0..value.len() {
        assert!(decode(&value[..end]).is_err(), "cut to {end}");
    }
}

#[test]
fn a_record_under_another_key_is_damaged() {
    let job = golden_job();
    let value = encode_job(&key::job(job.target, &job.path), &job).expect("fits");
    let other = RelPath::new(b"a/c").expect("a valid path");
    assert_eq!(decode_job(&key::job(job.target, &other), job.target, other, &value), Err(RecordError::Checksum));
}

#[test]
fn trailing_bytes_and_other_versions_are_refused_even_with_a_good_checksum() {
    let sealed = |body: &[u8]| [&checksum(b"k", body).to_be_bytes()[..], body].concat();
    let body = encode_number(b"k", 7).expect("fits")[4..].to_vec();
    assert_eq!(decode_number(b"k", &sealed(&body)), Ok(7));
    assert_eq!(decode_number(b"k", &sealed(&[&body[..], b"xy"].concat())), Err(RecordError::Trailing(2)));
    assert_eq!(decode_number(b"k", &sealed(&[&[9], &body[1..]].concat())), Err(RecordError::Version(9)));
    assert_eq!(decode_number(b"k", &sealed(b"\x01\xc1")), Err(RecordError::Form));
}

#[test]
fn an_error_that_is_too_long_is_shortened_and_a_target_refused() {
    let error = JobError { code: None, message: "x".repeat(10_000) };
    let job = Job { last_error: Some(error), ..golden_job() };
    let key = key::job(job.target, &job.path);
    assert!(encode_job(&key, &job).expect("fits").len() < VALUE_BYTES_MAX);
    let target = TargetRecord::new(TargetId(1), RootId(1), "x".repeat(3_000));
    assert!(matches!(encode_target(b"k", &target), Err(RecordError::TooLarge(_))));
}

prop_compose! {
    fn any_path()(names in prop::collection::vec(prop::collection::vec(1_u8.., 1..20), 0..5)) -> RelPath {
        names.iter().fold(RelPath::root(), |path, name| {
            let name: Vec<u8> = name.iter().map(|&b| if b == b'/' || b == b'.' { b'_' } else { b }).collect();
            path.join(&name)
        })
    }
}

prop_compose! {
    fn any_job()(
        path in any_path(),
        numbers in any::<[u64; 5]>(),
        target in any::<u32>(),
        attempts in any::<u32>(),
        partial in any::<bool>(),
        scope in prop::sample::select(&[Scope::Entry, Scope::Children, Scope::Subtree][..]),
        origin in prop::sample::select(&[Origin::Reconcile, Origin::Scan, Origin::Write, Origin::Replaced][..]),
        state in prop::sample::select(&[JobState::Ready, JobState::Waiting, JobState::Failed][..]),
        error in prop::option::of((any::<Option<i32>>(), ".{0,700}")),
    ) -> Job {
        let [id, generation, queued_at, changed_at, due_at] = numbers;
        Job {
            id: JobId(id),
            target: TargetId(target),
            path,
            scope,
            origin,
            state,
            generation: Generation(generation),
            queued_at: Timestamp(queued_at),
            changed_at: Timestamp(changed_at),
            attempts,
            due_at: Timestamp(due_at),
            partial,
            last_error: error.map(|(code, message)| JobError::new(code, message)),
        }
    }
}

proptest! {
    #[test]
    fn any_job_survives_the_store(job in any_job()) {
        let key = key::job(job.target, &job.path);
        prop_assert_eq!(key::parse(&key), Some(key::Key::Job(job.target, job.path.clone())));
        prop_assert!(encode_job(&key, &job).expect("fits").len() <= VALUE_BYTES_MAX);
        prop_assert_eq!(round_trip(&job), Ok(job));
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let sealed = [&checksum(b"k", &body).to_be_bytes()[..], &body].concat();
        let _ = decode_job(b"k", TargetId(1), RelPath::root(), &sealed);
        let _ = decode_target(b"k", TargetId(1), &sealed);
        let _ = decode_root(b"k", RootId(1), &sealed);
        let _ = decode_directory(b"k", RootId(1), DirectoryId { inode: 1, born_ns: None }, &sealed);
    }
}
