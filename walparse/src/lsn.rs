//! Positions: in the WAL ([`Lsn`]) and in a relation ([`BlockNumber`]).

use std::fmt;
use std::str::FromStr;

use crate::error::NameError;

/// A log sequence number: the byte position in the WAL since the cluster was made.
///
/// Written `%X/%X` (high half, low half), as every PostgreSQL up to 18 does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `InvalidXLogRecPtr`: no position at all.
    pub const INVALID: Lsn = Lsn(0);

    /// Whether this is a position, and not `0/0`.
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// This position moved on by `bytes`; stays at the end of the range instead of wrapping.
    pub fn advance(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Rounded up to the 8-byte alignment at which records start.
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

    /// Reads `%X/%X` with any number (1 to 8) of hexadecimal digits in each half.
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

/// The number of a block in a relation fork, counted over all its segment files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNumber(pub u32);

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_lsn_reads_back(value: u64) {
            let lsn = Lsn(value);
            prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
            // As pg_waldump writes it.
            prop_assert_eq!(format!("{:X}/{:08X}", value >> 32, value & 0xFFFF_FFFF).parse(), Ok(lsn));
        }

        #[test]
        fn what_is_read_is_the_only_lsn_it_can_be(text in "[0-9A-Fa-f/ +x]{0,19}") {
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
    fn lsn_text_round_trips_and_bad_text_is_refused() {
        for value in [0, 1, 0x1_0000_0000, 0x16_9000_0028, u64::MAX] {
            assert_eq!(Lsn(value).to_string().parse::<Lsn>().unwrap(), Lsn(value));
        }
        assert_eq!("0/04000028".parse::<Lsn>().unwrap(), Lsn(0x400_0028));
        for bad in ["", "/", "0", "0/", "/0", "0/1/2", "0/123456789", "+1/0", "0/ 1", "g/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} was accepted");
        }
    }
}
