//! What a string in a configuration file can say: names, durations, sizes.

use std::time::Duration;

/// Longest name of a host, worker, mailbox, module or need, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest part of a name between dots (RFC 1035 2.3.4): names become parts of DNS names in certificates.
const NAME_PART_BYTES_MAX: usize = 63;
/// Longer text is not compared with the known keys: it is no slip of the finger.
const CLOSEST_BYTES_MAX: usize = 64;

const DURATION_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: &[(&str, u64)] =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Checks the name of a host, worker, mailbox or module: parts of lower-case letters, digits and hyphens,
/// separated by dots. Such a name is also a file name and a part of a DNS name.
///
/// # Errors
/// What is wrong, as half a sentence.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a name has at least one letter or digit");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("a name has at most 64 characters");
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    if !name.bytes().all(allowed) {
        return Err("a name consists of a-z, 0-9, \".\" and \"-\"");
    }
    for part in name.split('.') {
        if part.is_empty() || part.starts_with('-') || part.ends_with('-') {
            return Err(
                "a name, and each of its parts between dots, starts and ends with a letter or digit",
            );
        }
        if part.len() > NAME_PART_BYTES_MAX {
            return Err("each part of a name between dots has at most 63 characters");
        }
    }
    Ok(())
}

/// Checks a need: a name without dots, since it is one part of a DNS name in certificates.
///
/// # Errors
/// What is wrong, as half a sentence.
pub fn check_need(need: &str) -> Result<(), &'static str> {
    match need.contains('.') {
        true => Err("a need has no dots"),
        false => check_name(need),
    }
}

/// Reads a whole number with a unit: `ms`, `s`, `m`, `h` or `d`. `None` if the text is no such thing.
pub fn duration(text: &str) -> Option<Duration> {
    quantity(text, DURATION_UNITS).map(Duration::from_millis)
}

/// Reads a whole number with a unit: `B`, `KiB`, `MiB`, `GiB` or `TiB`. `None` if the text is no such thing.
pub fn size(text: &str) -> Option<u64> {
    quantity(text, SIZE_UNITS)
}

/// A duration in the largest unit that tells it exactly; what is finer than a millisecond is dropped.
pub fn duration_text(duration: Duration) -> String {
    // 120 s is what people write; 2 m is what they would have to work out.
    if duration.as_secs() < 600 && duration.subsec_millis() == 0 {
        return format!("{}s", duration.as_secs());
    }
    exact(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATION_UNITS)
}

/// A size in the largest unit that tells it exactly.
pub fn size_text(bytes: u64) -> String {
    exact(bytes, SIZE_UNITS)
}

/// The word that was probably meant by `text`.
pub fn closest<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if text.len() > CLOSEST_BYTES_MAX {
        return None;
    }
    let slips_max = 1 + text.chars().count() / 4;
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(text, word), word))
        .filter(|(slips, word)| *slips <= slips_max && *slips < word.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, word)| word)
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn exact(value: u64, units: &[(&str, u64)]) -> String {
    units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor)).map_or_else(
        || units.last().map_or_else(|| value.to_string(), |(name, _)| format!("{value}{name}")),
        |(name, factor)| format!("{}{name}", value / factor),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest_part = "a".repeat(63);
        for right in ["a", "mx1", "mail.box", "pc-1", "9.z", &longest_part] {
            assert_eq!(check_name(right), Ok(()), "{right}");
        }
        let parts = "b.".repeat(32) + "b";
        let long = "a".repeat(64);
        for wrong in [
            "", ".", "..", ".a", "a.", "a..b", "-a", "a-", "a.-b", "A", "a_b", "a/b", "ä", "a b",
            &parts, &long,
        ] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("250ms", 250),
            ("120s", 120_000),
            ("15m", 900_000),
            ("4h", 14_400_000),
            ("90d", 7_776_000_000),
            ("0s", 0),
            ("5 s", 5_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in [
            "",
            "120",
            "s",
            "-1s",
            "1.5h",
            "1h30m",
            "1 week",
            "5S",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        for text in ["250ms", "0s", "120s", "15m", "4h", "90d", "1501ms"] {
            assert_eq!(duration(text).map(duration_text).as_deref(), Some(text));
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("64MiB", 67_108_864),
            ("2GiB", 2_147_483_648),
            ("1 TiB", 1 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "64", "64MB", "64M", "64mib", "1.5GiB", "18446744073709551615KiB", "-1B"]
        {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        for text in ["0B", "512B", "64KiB", "64MiB", "1025B"] {
            assert_eq!(size(text).map(size_text).as_deref(), Some(text));
        }
    }

    #[test]
    fn slips_of_the_finger() {
        let keys = ["answer_within", "needs", "name", "custody", "type"];
        assert_eq!(closest("answer_whitin", keys), Some("answer_within"));
        assert_eq!(closest("need", keys), Some("needs"));
        assert_eq!(closest("nmae", keys), Some("name"));
        assert_eq!(closest("colour", keys), None);
        assert_eq!(closest("", ["a"]), None);
        assert_eq!(closest(&"n".repeat(100_000), keys), None);
    }
}
