//! Dates and times as text, in the ISO style and in UTC (`date.c`, `timestamp.c`, `datetime.c`).
//!
//! They are counted from the beginning of 2000 in days or microseconds. The extreme numbers are the infinities.

use std::fmt::Write;

use crate::lost::bytes::{i32_at, i64_at};

const MICROSECONDS_OF_SECOND: u64 = 1_000_000;
const MICROSECONDS_OF_DAY: i64 = 86_400_000_000;
/// Days from 1 March of the year 0 to 1 January 2000, in the Gregorian calendar without a beginning.
const DAYS_FROM_MARCH_OF_0: i64 = 730_425;
/// Days in 400 years.
const DAYS_OF_CYCLE: i64 = 146_097;

/// The year, month and day of a count of days.
struct Day {
    year: i64,
    month: i64,
    day: i64,
}

pub(super) fn date(bytes: &[u8]) -> Option<String> {
    let days = i32_at(bytes, 0)?;
    if days == i32::MAX || days == i32::MIN {
        return Some(infinity(days > 0));
    }
    let day = Day::at(days.into());
    Some(format!("{}{}", day.text(), day.era()))
}

pub(super) fn time(bytes: &[u8]) -> Option<String> {
    // The end of a day is a time, too.
    let time = i64_at(bytes, 0).filter(|time| (0..=MICROSECONDS_OF_DAY).contains(time))?;
    Some(clock(time.unsigned_abs()))
}

/// i64 time, i32 seconds west of UTC.
pub(super) fn timetz(bytes: &[u8]) -> Option<String> {
    let (time, west) = (time(bytes)?, i32_at(bytes, 8)?);
    let seconds = west.unsigned_abs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let sign = if west <= 0 { '+' } else { '-' };
    let mut text = format!("{time}{sign}{hours:02}");
    if minutes != 0 || seconds != 0 {
        let _ = write!(text, ":{minutes:02}");
    }
    if seconds != 0 {
        let _ = write!(text, ":{seconds:02}");
    }
    Some(text)
}

pub(super) fn timestamp(bytes: &[u8]) -> Option<String> {
    moment(i64_at(bytes, 0)?, "")
}

pub(super) fn timestamptz(bytes: &[u8]) -> Option<String> {
    moment(i64_at(bytes, 0)?, "+00")
}

fn moment(microseconds: i64, zone: &str) -> Option<String> {
    if microseconds == i64::MAX || microseconds == i64::MIN {
        return Some(infinity(microseconds > 0));
    }
    let day = Day::at(microseconds.div_euclid(MICROSECONDS_OF_DAY));
    let time = microseconds.rem_euclid(MICROSECONDS_OF_DAY).unsigned_abs();
    Some(format!("{} {}{zone}{}", day.text(), clock(time), day.era()))
}

pub(super) fn infinity(is_positive: bool) -> String {
    if is_positive { "infinity" } else { "-infinity" }.to_owned()
}

/// A time of the day, or a span of time.
pub(super) fn clock(microseconds: u64) -> String {
    let seconds = microseconds / MICROSECONDS_OF_SECOND;
    let fraction = microseconds % MICROSECONDS_OF_SECOND;
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        let _ = write!(text, ".{fraction:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

impl Day {
    /// With years that begin in March, so that a leap day is the last one.
    fn at(days: i64) -> Day {
        let days = days + DAYS_FROM_MARCH_OF_0;
        let (cycle, day) = (days.div_euclid(DAYS_OF_CYCLE), days.rem_euclid(DAYS_OF_CYCLE));
        // A leap day every 4 years, but not every 100, but every 400.
        let year = (day - day / 1460 + day / 36_524 - day / (DAYS_OF_CYCLE - 1)) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Five months from March on have 153 days, and so have the next five.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        Day { year: 400 * cycle + year + next, month, day }
    }

    /// There is no year 0: the one before 1 is 1 BC.
    fn text(&self) -> String {
        let year = if self.year > 0 { self.year } else { 1 - self.year };
        format!("{year:04}-{:02}-{:02}", self.month, self.day)
    }

    fn era(&self) -> &'static str {
        if self.year > 0 { "" } else { " BC" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, text) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (366, "2001-01-01"),
            (9830, "2026-11-30"),
            (-36_466, "1900-02-28"),
            (-36_465, "1900-03-01"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-730_485, "0001-01-01 BC"),
            (-2_451_545, "4714-11-24 BC"),
            (2_921_939, "9999-12-31"),
            (2_921_940, "10000-01-01"),
            (2_145_031_948, "5874897-12-31"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(date(&days.to_le_bytes()).as_deref(), Some(text));
        }
        assert!(date(&[0; 3]).is_none());
    }

    #[test]
    fn times_of_the_day() {
        for (microseconds, text) in [
            (0, Some("00:00:00")),
            (3_723_000_001, Some("01:02:03.000001")),
            (86_399_500_000, Some("23:59:59.5")),
            (86_400_000_000, Some("24:00:00")),
            (86_400_000_001, None),
            (-1, None),
        ] {
            assert_eq!(time(&i64::to_le_bytes(microseconds)).as_deref(), text);
        }
        let with_zone = |west: i32| timetz(&[&0i64.to_le_bytes()[..], &west.to_le_bytes()].concat()).unwrap();
        assert_eq!(with_zone(0), "00:00:00+00");
        assert_eq!(with_zone(-28_800), "00:00:00+08");
        assert_eq!(with_zone(12_600), "00:00:00-03:30");
        assert_eq!(with_zone(-3_601), "00:00:00+01:00:01");
    }

    #[test]
    fn points_in_time() {
        let at = |microseconds: i64| timestamptz(&microseconds.to_le_bytes()).unwrap();
        assert_eq!(at(0), "2000-01-01 00:00:00+00");
        assert_eq!(at(-1), "1999-12-31 23:59:59.999999+00");
        assert_eq!(at(-730_120 * MICROSECONDS_OF_DAY), "0001-12-31 00:00:00+00 BC");
        assert_eq!(at(i64::MAX), "infinity");
        assert_eq!(at(i64::MIN), "-infinity");
        assert_eq!(timestamp(&1_500_000i64.to_le_bytes()).as_deref(), Some("2000-01-01 00:00:01.5"));
        assert_eq!(timestamp(&[0; 7]), None);
    }
}
