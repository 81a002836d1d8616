//! Dates as RFC 5322, 3.3 writes them.

const DAY_NAMES: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTH_NAMES: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The last second of the year 9999: later ones would not have four digits.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

/// The date in UTC, such as `Thu, 1 Jan 1970 00:00:00 +0000`. Dates after the year 9999 become its last second.
pub fn rfc5322(unix_seconds: u64) -> String {
    let seconds = unix_seconds.min(UNIX_SECONDS_MAX);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let day_name = pick(&DAY_NAMES, days % 7);
    let month_name = pick(&MONTH_NAMES, month - 1);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{day_name}, {day} {month_name} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

/// The time in UTC to the millisecond as RFC 3339 writes it, such as `1970-01-01T00:00:00.000Z`: for logs that programs
/// sort. Times after the year 9999 become its last second.
pub fn rfc3339(unix_ms: u64) -> String {
    let seconds = (unix_ms / 1_000).min(UNIX_SECONDS_MAX);
    let (year, month, day) = civil(seconds / 86_400);
    let (second, ms) = (seconds % 86_400, unix_ms % 1_000);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Days from 1 January 1970 to this day; `None` for one before it, and for one that no calendar has.
pub fn day_number(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || month == 0 || day == 0 {
        return None;
    }
    // As in `civil`: years begin on 1 March.
    let (year_of_march, month_from_march) = (year - u64::from(month <= 2), (month + 9) % 12);
    let (era, year_of_era) = (year_of_march / 400, year_of_march % 400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (civil(days) == (year, month, day)).then_some(days)
}

/// The number, 1 to 12, of the month with this English name of three letters.
pub fn month_number(name: &str) -> Option<u64> {
    let index = MONTH_NAMES.iter().position(|month| *month == name)?;
    u64::try_from(index + 1).ok()
}

fn pick(names: &[&'static str], index: u64) -> &'static str {
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1 January 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin on 1 March here, so that the leap day is the last day of a year: 719,468 days lie between
    // 1 March of the year 0 and 1 January 1970, and every 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // The months from March on have 31, 30, 31, 30, 31 days, over and over: 153 in five.
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_the_number_that_it_is_made_of() {
        for days in (0..80_000).step_by(7) {
            let (year, month, day) = civil(days);
            assert_eq!(day_number(year, month, day), Some(days), "{year}-{month}-{day}");
        }
        for (year, month, day) in
            [(2026, 2, 29), (2026, 13, 1), (2026, 4, 31), (2026, 0, 1), (1969, 12, 31)]
        {
            assert_eq!(day_number(year, month, day), None, "{year}-{month}-{day}");
        }
        assert_eq!(
            (month_number("Jan"), month_number("Dec"), month_number("dec")),
            (Some(1), Some(12), None)
        );
    }

    #[test]
    fn known_dates() {
        for (seconds, date) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800, "Wed, 1 Mar 2000 00:00:00 +0000"),
            (1_234_567_890, "Fri, 13 Feb 2009 23:31:30 +0000"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
            (UNIX_SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 +0000"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 +0000"),
        ] {
            assert_eq!(rfc5322(seconds), date);
        }
    }

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(1_234_567_890_007), "2009-02-13T23:31:30.007Z");
        assert!(rfc3339(u64::MAX).starts_with("9999-12-31T23:59:59"));
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut expected = (1970, 1, 1);
        for days in 0..=UNIX_SECONDS_MAX / 86_400 {
            assert_eq!(civil(days), expected, "day {days}");
            let (year, month, day) = expected;
            let last = match month {
                2 if leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}
