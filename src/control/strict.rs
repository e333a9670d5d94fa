//! Reads requests so strictly that no part of them can mean more than it says. If a condition of a filter could not be read and
//! were left out, fewer conditions would select more jobs, and a purge removes them for good.
//!
//! serde is too lenient in three ways. It takes an array for an object, element by element, and so `[]` for an object without
//! fields. It takes `null` for a value that was not given, and JSON writes `null` for numbers that it lacks (`Infinity`). And
//! it accepts numbers that are no length of time.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};

/// A JSON object and nothing else.
#[derive(Debug)]
pub(super) struct Object<T>(pub T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for OfMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData)).map(Self)
    }
}

/// A field that has to be an object.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|object| object.0)
}

/// A field that may be left out, and has to be an object otherwise.
pub(super) fn object_option<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<Object<T>>::deserialize(deserializer).map(|object| object.map(|object| object.0))
}

/// A field that may be left out, and may not be `null` otherwise.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Like [`given`] for a text, which may not be empty.
pub(super) fn given_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Err(D::Error::custom("an empty text; leave it out if all are meant")) } else { Ok(Some(text)) }
}

/// Like [`given`] for numbers of jobs. An empty list is refused: it is no wish for all jobs.
pub(super) fn given_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let ids = Vec::deserialize(deserializer)?;
    if ids.is_empty() { Err(D::Error::custom("an empty list of ids; leave it out if all are meant")) } else { Ok(ids) }
}

/// A number of seconds that is not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{seconds} is no number of seconds, 0 or more")]
pub struct NoDuration {
    pub seconds: f64,
}

/// Converts seconds to a length of time. A length beyond the greatest `Duration` becomes the greatest.
pub(super) fn duration(seconds: f64) -> Result<Duration, NoDuration> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(NoDuration { seconds });
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::from_str;

    use super::super::{
        AcceptRequest, JobFilter, JobsRequest, Matcher, PathArg, PauseRequest, ReconcileRequest, VerifyRequest,
        WaitRequest,
    };
    use super::*;
    use crate::model::Timestamp;

    fn reads<T: DeserializeOwned>(body: &str) -> bool {
        from_str::<Object<T>>(body).is_ok()
    }

    type Reads = fn(&str) -> bool;

    /// Every request, with parts that might be taken for "all".
    #[test]
    fn what_cannot_be_understood_is_refused_and_does_not_mean_all() {
        let requests: [(&str, Reads); 8] = [
            ("filter", reads::<JobFilter>),
            ("jobs", reads::<JobsRequest>),
            ("pause", reads::<PauseRequest>),
            ("accept", reads::<AcceptRequest>),
            ("reconcile", reads::<ReconcileRequest>),
            ("verify", reads::<VerifyRequest>),
            ("wait", reads::<WaitRequest>),
            ("path", reads::<PathArg>),
        ];
        for (name, reads) in requests {
            for body in ["[]", "[{}]", "[[]]", "null", "true", "1", "\"\"", "", "{", "{}{}", "{\"\":1}", "[null,true]"]
            {
                assert!(!reads(body), "{name}: {body}");
            }
        }
        let filters: [&str; 18] = [
            r#"{"older_than_s":null}"#,
            r#"{"older_than_s":"60"}"#,
            r#"{"older_than_s":1e999}"#,
            r#"{"older_than_s":[60]}"#,
            r#"{"older_than":60}"#,
            r#"{"state":null}"#,
            r#"{"state":"faild"}"#,
            r#"{"target":null}"#,
            r#"{"target":""}"#,
            r#"{"root":""}"#,
            r#"{"path":""}"#,
            r#"{"error":""}"#,
            r#"{"scope":null}"#,
            r#"{"limit":null}"#,
            r#"{"limit":-1}"#,
            r#"{"limit":1.5}"#,
            r#"{"ids":[]}"#,
            r#"{"ids":null}"#,
        ];
        for filter in filters {
            assert!(!reads::<JobFilter>(filter), "{filter}");
            for all in ["", r#","all":true"#, r#","dry_run":true"#] {
                let body = format!(r#"{{"filter":{filter}{all}}}"#);
                assert!(!reads::<JobsRequest>(&body), "{body}");
            }
        }
        for body in
            [r#"{"filter":[]}"#, r#"{"filter":null}"#, r#"{"all":1}"#, r#"{"all":"true"}"#, r#"{"dry_run":null}"#]
        {
            assert!(!reads::<JobsRequest>(body), "{body}");
        }
        assert!(!reads::<ReconcileRequest>(r#"{"path":[]}"#));
        assert!(!reads::<ReconcileRequest>(r#"{"path":["a"]}"#));
        for body in [r#"{"targets":null}"#, r#"{"targets":-1}"#, r#"{"timeout_s":null}"#] {
            assert!(!reads::<WaitRequest>(body), "{body}");
        }
        assert!(!reads::<VerifyRequest>(r#"{"budget_mb_s":null}"#));
        assert!(reads::<JobsRequest>(r#"{"filter":{"ids":[1],"older_than_s":60,"limit":3}}"#));
        assert!(reads::<JobsRequest>("{}"));
    }

    #[test]
    fn no_number_of_seconds_is_taken_for_none() {
        for (seconds, expected) in [
            (0.0, Some(Duration::ZERO)),
            (1.5, Some(Duration::from_millis(1_500))),
            (18_446_744_073_709_551_615.0, Some(Duration::MAX)),
            (1e300, Some(Duration::MAX)),
            (-5.0, None),
            (-0.001, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (f64::NEG_INFINITY, None),
        ] {
            assert_eq!(duration(seconds).ok(), expected, "{seconds}");
            // The filter either takes the age or refuses it.
            let filter = JobFilter { older_than_s: Some(seconds), ..JobFilter::default() };
            assert_eq!(Matcher::new(&filter, Timestamp(1 << 40)).is_ok(), expected.is_some(), "{seconds}");
        }
    }
}
