//! `interval` as text, in the style `postgres` (`EncodeInterval` in `datetime.c`).

use std::fmt::Write;

use super::datetime::{clock, infinity};
use crate::lost::bytes::{i32_at, i64_at};

/// Infinite intervals exist from 17 on. Before, the same bytes are an ordinary one.
const INFINITE_FROM: u32 = 170_000;

/// i64 microseconds, i32 days, i32 months.
pub(super) fn interval(bytes: &[u8], version: u32) -> Option<String> {
    let (time, days, months) = (i64_at(bytes, 0)?, i32_at(bytes, 8)?, i32_at(bytes, 12)?);
    if version >= INFINITE_FROM {
        match (time, days, months) {
            (i64::MAX, i32::MAX, i32::MAX) => return Some(infinity(true)),
            (i64::MIN, i32::MIN, i32::MIN) => return Some(infinity(false)),
            _ => {}
        }
    }
    let mut text = String::new();
    // Behind a negative part, a positive one has a sign.
    let mut is_before_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value != 0 {
            let space = if text.is_empty() { "" } else { " " };
            let sign = if is_before_negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            let _ = write!(text, "{space}{sign}{value} {unit}{plural}");
            is_before_negative = value < 0;
        }
    }
    if time != 0 || text.is_empty() {
        let space = if text.is_empty() { "" } else { " " };
        let sign = match time {
            ..0 => "-",
            _ if is_before_negative => "+",
            _ => "",
        };
        let _ = write!(text, "{space}{sign}{}", clock(time.unsigned_abs()));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(time: i64, days: i32, months: i32) -> Vec<u8> {
        [&time.to_le_bytes()[..], &days.to_le_bytes(), &months.to_le_bytes()].concat()
    }

    #[test]
    fn parts_have_signs_of_their_own() {
        for (time, days, months, text) in [
            (0, 0, 0, "00:00:00"),
            (0, 0, 14, "1 year 2 mons"),
            (0, 1, 1, "1 mon 1 day"),
            (0, -1, 0, "-1 days"),
            (0, 3, -1, "-1 mons +3 days"),
            (3_723_500_000, 0, -25, "-2 years -1 mons +01:02:03.5"),
            (-1, 2, 0, "2 days -00:00:00.000001"),
            (-3_600_000_000, -2, 13, "1 year 1 mon -2 days -01:00:00"),
            (360_000_000_000_000, 0, 0, "100000:00:00"),
            (i64::MIN, i32::MIN, 0, "-2147483648 days -2562047788:00:54.775808"),
        ] {
            assert_eq!(interval(&stored(time, days, months), 150_000).as_deref(), Some(text));
        }
        assert_eq!(interval(&[0; 15], 150_000), None);
    }

    #[test]
    fn infinite_ones_exist_from_17_on() {
        let infinite = stored(i64::MAX, i32::MAX, i32::MAX);
        assert_eq!(interval(&infinite, 170_000).as_deref(), Some("infinity"));
        assert!(interval(&infinite, 160_000).unwrap().starts_with("178956970 years 7 mons"));
        assert_eq!(interval(&stored(i64::MIN, i32::MIN, i32::MIN), 180_000).as_deref(), Some("-infinity"));
    }
}
