//! Sizes and times as people read them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A number of bytes, shown in MiB: `0.1 MiB`, `24.4 MiB`, `1204 MiB`. It is rounded up, so that no size but 0 is shown as 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (u128::from(self.0) * 10).div_ceil(1 << 20);
        f.pad(&match tenths {
            0..1000 => format!("{}.{} MiB", tenths / 10, tenths % 10),
            _ => format!("{} MiB", self.0.div_ceil(1 << 20)),
        })
    }
}

/// A time to the second, in this zone: `2026-11-22 09:12:41 UTC`.
pub fn time_text(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `75 s`, `12 min`, `3 h 5 min`.
pub fn duration_text(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=5999 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        for (bytes, text) in [
            (0, "0.0 MiB"),
            (1, "0.1 MiB"),
            (8 << 20, "8.0 MiB"),
            ((8 << 20) + 1, "8.1 MiB"),
            (100 << 20, "100 MiB"),
            ((100 << 20) + 1, "101 MiB"),
            (u64::MAX, "17592186044416 MiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>9}", Size(1 << 20)), "  1.0 MiB");
    }

    #[test]
    fn times_name_their_zone() {
        let zone = TimeZone::posix("CST-8").unwrap();
        assert_eq!(time_text(Timestamp::UNIX_EPOCH, &zone), "1970-01-01 08:00:00 CST");
    }

    #[test]
    fn durations_are_short() {
        let text = |seconds| duration_text(Duration::from_secs(seconds));
        assert_eq!([text(0), text(99), text(100), text(5999)], ["0 s", "99 s", "2 min", "100 min"]);
        assert_eq!(text(11_100), "3 h 5 min");
    }
}
