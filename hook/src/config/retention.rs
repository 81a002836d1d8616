//! `[quarantine]` and `[held]`.

use gantry_config::Table;

use super::Retention;
use super::read::{DAY, SECOND, SIZES};

/// Ten years: what is to be kept for longer has no `keep`.
const KEEP_MAX_DAYS: u32 = 3_653;

/// Reads one of the tables, which may have these keys.
pub(super) fn retention(table: &Table<'_>, keys: &'static [&'static str]) -> Option<Retention> {
    table.allow(keys);
    let range = SECOND..=KEEP_MAX_DAYS * DAY;
    let keep = table.value("keep").and_then(|value| value.duration(range));
    let bytes_max = table.value("max_bytes").and_then(|value| value.size(SIZES));
    let mut removes_oldest = false;
    if keys.contains(&"when_full") {
        removes_oldest = table.or("when_full", false, |value| {
            value.one_of(&[("refuse", false), ("remove-oldest", true)])
        });
        if table.has("when_full") && !table.has("max_bytes") {
            let problem = "without max_bytes it is never full";
            table.wrong("when_full", problem, "add max_bytes = \"10GiB\", or remove it");
        }
    }
    Some(Retention { keep, bytes_max, removes_oldest })
}
