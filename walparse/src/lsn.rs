//! Positions: in the WAL ([`Lsn`], [`TimelineId`]) and in a relation ([`BlockNumber`]).

use std::fmt;
use std::str::FromStr;

/// A log sequence number (`XLogRecPtr`): a byte position in the WAL, counted from the creation of the cluster.
///
/// It is printed as `%X/%X` (high half, low half), like PostgreSQL up to 18 does; PostgreSQL 19 pads the low half
/// with zeros to eight digits. Both forms are parsed.
///
/// ```
/// use walparse::Lsn;
///
/// let lsn: Lsn = "16B/374D848".parse()?;
/// assert_eq!(lsn, Lsn(0x16B_0374_D848));
/// assert_eq!("16B/0374D848".parse(), Ok(lsn));
/// assert_eq!(lsn.to_string(), "16B/374D848");
/// # Ok::<(), walparse::NameError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`, 0/0: no position.
    pub const INVALID: Lsn = Lsn(0);

    /// Whether this is a position other than 0/0.
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position `bytes` later; saturates at the largest position.
    pub fn advance(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// The position rounded up to a multiple of 8, the alignment of records (`MAXALIGN`).
    pub fn aligned(self) -> Lsn {
        Lsn(self.0.saturating_add(7) & !7)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = NameError;

    /// Parses two hexadecimal numbers of 1 to 8 digits, separated by a slash.
    ///
    /// # Errors
    /// The text is anything else.
    fn from_str(text: &str) -> Result<Lsn, NameError> {
        let bad = || NameError::Lsn { text: text.to_owned() };
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let half = |digits: &str| -> Result<u64, NameError> {
            if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            u64::from_str_radix(digits, 16).map_err(|_| bad())
        };
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

/// The number of a timeline. Every promotion starts a new timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a block in a relation fork, counted across all its segment files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNumber(pub u32);

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why text could not be parsed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is not an LSN.
    #[error("invalid WAL location \"{text}\"")]
    Lsn {
        /// The text.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_lsn_round_trips(value: u64) {
            let lsn = Lsn(value);
            prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
            // As pg_waldump prints it.
            prop_assert_eq!(format!("{:X}/{:08X}", value >> 32, value & 0xFFFF_FFFF).parse(), Ok(lsn));
        }

        #[test]
        fn parsed_text_is_the_printed_lsn_up_to_case_and_zeros(text in "[0-9A-Fa-f/ +x]{0,19}") {
            if let Ok(lsn) = text.parse::<Lsn>() {
                let digits = |half: &str| half.trim_start_matches('0').to_ascii_uppercase();
                let (high, low) = text.split_once('/').unwrap();
                let shown = lsn.to_string();
                let (shown_high, shown_low) = shown.split_once('/').unwrap();
                prop_assert_eq!((digits(shown_high), digits(shown_low)), (digits(high), digits(low)));
            }
        }
    }

    #[test]
    fn lsn_text_round_trips_and_invalid_text_is_rejected() {
        for value in [0, 1, 0x1_0000_0000, 0x16_9000_0028, u64::MAX] {
            assert_eq!(Lsn(value).to_string().parse::<Lsn>().unwrap(), Lsn(value));
        }
        assert_eq!("0/04000028".parse::<Lsn>().unwrap(), Lsn(0x400_0028));
        for bad in ["", "/", "0", "0/", "/0", "0/1/2", "0/123456789", "+1/0", "0/ 1", "g/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} was accepted");
        }
    }
}
