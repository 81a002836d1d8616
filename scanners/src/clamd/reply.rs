//! What clamd says, read strictly: what is not plainly "clean" is not clean.

use std::time::{Duration, SystemTime};

use gantry_mail::date;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::Outcome;

const DAY_S: u64 = 86_400;

/// The answer to INSTREAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Clean,
    Found(String),
    /// More bytes came than clamd's `StreamMaxLength`.
    TooLong,
    /// clamd could not scan, and says why.
    Error(String),
    /// No reply that clamd gives.
    Unknown(String),
}

impl Reply {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let Some(text) = sentence(bytes) else {
            return Self::Unknown("a reply that does not end".to_owned());
        };
        // "stream: OK", "stream: NAME FOUND", "stream: REASON ERROR"; or without a subject, "REASON ERROR".
        let said = text.split_once(": ").map_or(text.as_str(), |(_subject, said)| said);
        if text.ends_with("ERROR") {
            if text.contains("size limit exceeded") {
                return Self::TooLong;
            }
            return Self::Error(bounded(text));
        }
        match said.strip_suffix(" FOUND") {
            Some(name) if !name.is_empty() => Self::Found(bounded(name)),
            _ if text == "stream: OK" => Self::Clean,
            _ => Self::Unknown(bounded(text)),
        }
    }

    /// What it says of the message; the error is why it says nothing.
    pub(super) fn outcome(self) -> Result<Outcome, String> {
        match self {
            Self::Clean => Ok(Outcome::Clean),
            Self::Found(name) => Ok(outcome_of_name(name)),
            Self::TooLong => Ok(Outcome::OverBudget {
                reason: "the message is longer than clamd's StreamMaxLength".to_owned(),
            }),
            Self::Error(text) => Err(format!("clamd said: {text}")),
            Self::Unknown(text) => Err(format!("clamd gave no known reply: {text:?}")),
        }
    }
}

/// clamd's own limits and locked archives come as signatures when it is told to report them (`AlertExceedsMax`,
/// `AlertEncrypted`), but they are no virus.
fn outcome_of_name(name: String) -> Outcome {
    if name.starts_with("Heuristics.Limits.Exceeded") {
        Outcome::OverBudget { reason: format!("clamd: {name}") }
    } else if name.starts_with("Heuristics.Encrypted") {
        Outcome::Encrypted { reason: format!("clamd: {name}") }
    } else {
        Outcome::Found { names: vec![name] }
    }
}

/// The answer to VERSION: `ClamAV 1.4.3/27800/Thu Nov 19 09:26:04 2026`, and without the last two where clamd has
/// no database of ClamAV's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) engine: String,
    pub(super) signatures: String,
}

impl Version {
    /// The error is what clamd said instead.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = sentence(bytes).unwrap_or_default();
        if !text.starts_with("ClamAV") {
            return Err(bounded(text));
        }
        let (engine, signatures) = text.split_once('/').unwrap_or((text.as_str(), ""));
        Ok(Self { engine: bounded(engine), signatures: bounded(signatures.replace('/', ", ")) })
    }
}

impl Version {
    /// Why these signatures are too old, or not known to be young enough.
    pub(super) fn is_stale(&self, age_max: Duration, now: SystemTime) -> Option<String> {
        let days = |time: Duration| time.as_secs() / DAY_S;
        let Some(made) = self.signatures_made() else {
            return Some("clamd does not say how old its signatures are".to_owned());
        };
        // Made later than now, by a clock that is wrong or a zone east of here: young.
        let age = now.duration_since(made).unwrap_or_default();
        (age > age_max).then(|| {
            format!(
                "clamd's signatures are {} days old, and {} are allowed",
                days(age),
                days(age_max)
            )
        })
    }

    /// When the signatures were made, as `Thu Nov 19 09:26:04 2026` at their end says. It has no time zone and is taken for
    /// UTC, so it is right to half a day.
    fn signatures_made(&self) -> Option<SystemTime> {
        let words: Vec<&str> = self.signatures.split_whitespace().collect();
        let [.., month, day, clock, year] = words.as_slice() else { return None };
        let days =
            date::day_number(year.parse().ok()?, date::month_number(month)?, day.parse().ok()?)?;
        let clock: Vec<u64> = clock.split(':').map_while(|part| part.parse().ok()).collect();
        let [hour @ 0..24, minute @ 0..60, second @ 0..=60] = clock.as_slice() else { return None };
        let seconds = days * DAY_S + hour * 3_600 + minute * 60 + second;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}

/// What stands before the zero byte that ends a reply.
fn sentence(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    bytes.get(..end).map(|text| String::from_utf8_lossy(text).trim_end().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_clean() {
        assert_eq!(Reply::parse(b"stream: OK\0"), Reply::Clean);
        for other in
            ["stream: OK", "", "OK\0", "stream: NOT OK\0", "stream: OK OK\0", "\0", "PONG\0"]
        {
            assert!(matches!(Reply::parse(other.as_bytes()), Reply::Unknown(_)), "{other:?}");
        }
    }

    #[test]
    fn a_name_may_look_like_anything() {
        let found = |name: &str| Reply::Found(name.to_owned());
        assert_eq!(Reply::parse(b"stream: Eicar FOUND\0"), found("Eicar"));
        assert_eq!(Reply::parse(b"stream: OK FOUND\0"), found("OK"));
        assert_eq!(Reply::parse(b"stream: A: B ERROR FOUND\0"), found("A: B ERROR"));
        assert_eq!(Reply::parse(b"stream: \xFF\x1B FOUND\0"), found("\u{FFFD} "));
    }

    #[test]
    fn an_error_is_neither_clean_nor_found() {
        let size = b"INSTREAM size limit exceeded. ERROR\0";
        assert_eq!(Reply::parse(size), Reply::TooLong);
        for error in ["stream: Can't allocate memory ERROR", "UNKNOWN COMMAND ERROR"] {
            let reply = Reply::parse(format!("{error}\0").as_bytes());
            assert_eq!(reply, Reply::Error(error.to_owned()));
        }
    }

    #[test]
    fn limits_and_locks_are_no_virus() {
        let outcome = |name: &str| outcome_of_name(name.to_owned());
        assert!(matches!(
            outcome("Heuristics.Limits.Exceeded.MaxFileSize"),
            Outcome::OverBudget { .. }
        ));
        assert!(matches!(outcome("Heuristics.Encrypted.Zip"), Outcome::Encrypted { .. }));
        assert!(matches!(outcome("Heuristics.Phishing.Email"), Outcome::Found { .. }));
    }

    #[test]
    fn a_version_has_an_engine_and_perhaps_signatures() {
        let version = |engine: &str, signatures: &str| {
            Ok(Version { engine: engine.to_owned(), signatures: signatures.to_owned() })
        };
        let full = b"ClamAV 1.4.3/27800/Thu Nov 19 09:26:04 2026\0";
        assert_eq!(
            Version::parse(full),
            version("ClamAV 1.4.3", "27800, Thu Nov 19 09:26:04 2026")
        );
        assert_eq!(Version::parse(b"ClamAV 1.4.3\0"), version("ClamAV 1.4.3", ""));
        assert_eq!(Version::parse(b"COMMAND UNAVAILABLE\0"), Err("COMMAND UNAVAILABLE".to_owned()));
    }

    #[test]
    fn old_signatures_and_those_of_no_age_are_stale() {
        const HOUR: Duration = Duration::from_secs(3_600);
        // 19 November 2026, 09:26:04 UTC.
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_080_364);
        let version = |reply: &[u8]| Version::parse(reply).ok();
        let dated = version(b"ClamAV 1.4.3/27800/Thu Nov 19 09:26:04 2026\0").unwrap();
        let stale = |version: &Version, now| version.is_stale(72 * HOUR, now);
        assert_eq!(stale(&dated, made + 72 * HOUR), None);
        assert_eq!(
            stale(&dated, made + 73 * HOUR).unwrap(),
            "clamd's signatures are 3 days old, and 3 are allowed"
        );
        assert_eq!(stale(&dated, made - HOUR), None, "a clock that is wrong");
        for reply in [
            b"ClamAV 1.4.3\0".as_slice(),
            b"ClamAV 1.4.3/27800/yesterday\0",
            b"ClamAV 1.4.3/27800/Thu Nov 31 09:26:04 2026\0",
            b"ClamAV 1.4.3/27800/Thu Nov 19 25:26:04 2026\0",
        ] {
            assert!(stale(&version(reply).unwrap(), made).unwrap().contains("does not say"));
        }
    }
}
