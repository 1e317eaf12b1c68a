//! Which transactions committed in a stretch of WAL, and which were prepared there and are undecided.

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::{Finish, Microseconds};
use crate::lsn::Lsn;
use crate::record::{Fields, RecordHeader};
use crate::version::Version;

const OPCODE: u8 = 0x70;
const PREPARE: u8 = 0x10;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;

/// The transactions that ended or were prepared in a stretch of WAL, beyond the fork.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Transactions {
    committed: u64,
    times: Option<(Microseconds, Microseconds)>,
    /// By transaction ID.
    prepared: BTreeMap<u32, String>,
    /// Prepared transactions that were committed or rolled back in this stretch.
    decided: BTreeSet<u32>,
}

impl Transactions {
    /// How many transactions committed. Subtransactions do not count.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// When the first and the last of them committed.
    pub fn times(&self) -> Option<(Microseconds, Microseconds)> {
        self.times
    }

    /// Transactions that were prepared and are undecided, with the identifiers that `PREPARE TRANSACTION` gave them.
    pub fn prepared(&self) -> &BTreeMap<u32, String> {
        &self.prepared
    }

    /// Adds what a record of the resource manager `Transaction` does, if it ends beyond `fork`. `finish` is the end of a
    /// transaction, if the record is one.
    pub(crate) fn add(
        &mut self,
        header: &RecordHeader,
        (end, fork): (Lsn, Lsn),
        (main_data, finish): (&[u8], Option<&Finish>),
        version: Version,
    ) {
        if end <= fork {
            return;
        }
        if header.info & OPCODE == PREPARE {
            if let Some(name) = prepared_name(header.xid, main_data, version) {
                self.prepared.insert(header.xid, name);
            }
            return;
        }
        let Some(&Finish { is_commit, xid, time, .. }) = finish else { return };
        if matches!(header.info & OPCODE, COMMIT_PREPARED | ABORT_PREPARED) {
            self.prepared.remove(&xid);
            self.decided.insert(xid);
        }
        if is_commit {
            self.committed += 1;
            self.times = join(self.times, Some((time, time)));
        }
    }

    /// Adds the stretch that follows.
    pub(crate) fn append(&mut self, later: Transactions) {
        let Transactions { committed, times, prepared, decided } = later;
        self.committed += committed;
        self.times = join(self.times, times);
        self.prepared.retain(|xid, _| !decided.contains(xid));
        self.prepared.extend(prepared);
        self.decided.extend(decided);
    }
}

fn join(
    one: Option<(Microseconds, Microseconds)>,
    other: Option<(Microseconds, Microseconds)>,
) -> Option<(Microseconds, Microseconds)> {
    match (one, other) {
        (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
        (one, other) => one.or(other),
    }
}

/// The identifier of a prepared transaction, from the main data of the record that prepares it or from its file in
/// `pg_twophase`; `None` if it is malformed. (`TwoPhaseFileHeader` in twophase.c, then the identifier, aligned to 8 bytes).
///
/// ```text
/// u32 magic, u32 length, u32 xid, u32 database, i64 prepared_at, u32 owner, 3 numbers (from 15 on 5), i32 ninvalmsgs,
/// u8 initfileinval, u8 padding, u16 gidlen [, from 11 on u64 origin_lsn, i64 origin_timestamp]
/// ```
pub fn prepared_name(xid: u32, main_data: &[u8], version: Version) -> Option<String> {
    let numbers = if version.server_version_num() >= 150_000 { 5 } else { 3 };
    let has_origin = version.server_version_num() >= 110_000;
    let mut data = Fields { bytes: main_data };
    data.take(8).ok()?;
    if data.u32().ok()? != xid {
        return None;
    }
    data.take(4 + 8 + 4 + 4 * numbers + 4 + 2).ok()?;
    let length = usize::from(data.u16().ok()?);
    let header = (main_data.len() - data.bytes.len() + if has_origin { 16 } else { 0 }).next_multiple_of(8);
    // With a NUL byte at its end.
    let name = main_data.get(header..)?.get(..length)?;
    Some(String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORK: Lsn = Lsn(1000);

    fn version(name: &str) -> Version {
        Version::all().find(|version| version.name() == name).unwrap()
    }

    /// Transaction, info, main data.
    type Step = (u32, u8, Vec<u8>);

    /// A commit or an abort at this second, of the prepared transaction with this ID if there is one.
    fn end(xid: u32, info: u8, seconds: i64, prepared: Option<u32>) -> Step {
        let mut data = (seconds * 1_000_000 - 946_684_800_000_000).to_le_bytes().to_vec();
        data.extend(prepared.map_or(0, |_| 0x10u32).to_le_bytes());
        data.extend(prepared.unwrap_or_default().to_le_bytes());
        (xid, info | 0x80, data)
    }

    /// A header of this length, with the length of the identifier at this offset.
    fn prepare((header, length_at): (usize, usize), xid: u32, name: &str) -> Step {
        let mut data = vec![0; header];
        data[8..12].copy_from_slice(&xid.to_le_bytes());
        data[length_at] = name.len() as u8 + 1;
        data.extend(name.bytes().chain([0]));
        (xid, PREPARE, data)
    }

    /// The records, each of 8 bytes.
    fn stretch(first: u64, steps: &[Step]) -> Transactions {
        let mut found = Transactions::default();
        for (at, (xid, info, data)) in steps.iter().enumerate() {
            let (xid, info) = (*xid, *info);
            let header = RecordHeader { total_length: 8, xid, previous: Lsn(0), info, rmid: 1, crc: 0 };
            let finish = Finish::of(&header, data, version("15"));
            let end = Lsn(8 * (first + at as u64 + 1));
            found.add(&header, (end, FORK), (data, finish.as_ref()), version("15"));
        }
        found
    }

    #[test]
    fn what_has_committed_after_the_fork_counts() {
        let steps =
            [end(5, 0x00, 10, None), end(6, 0x00, 15, None), end(7, 0x20, 11, None), end(8, 0x00, 13, None)];
        let found = stretch(FORK.0 / 8 - 1, &steps);
        assert_eq!(found.committed(), 2);
        assert_eq!(found.times(), Some((Microseconds(13_000_000), Microseconds(15_000_000))));
        assert_eq!(stretch(0, &steps), Transactions::default());
    }

    /// However a stretch is divided, its parts joined are equal to the whole.
    #[test]
    fn prepared_transactions_have_their_identifiers_until_they_are_decided() {
        let new = |xid, name| prepare((72, 54), xid, name);
        let steps = [
            new(7, "one"),
            new(8, "two"),
            end(0, COMMIT_PREPARED, 20, Some(7)),
            new(9, "three"),
            end(0, ABORT_PREPARED, 21, Some(9)),
        ];
        let (after, whole) = (FORK.0 / 8, stretch(FORK.0 / 8, &steps));
        assert_eq!(*whole.prepared(), BTreeMap::from([(8, "two".to_owned())]));
        assert_eq!(whole.committed(), 1);
        for cut in 0..=steps.len() {
            let mut one = stretch(after, &steps[..cut]);
            one.append(stretch(after + cut as u64, &steps[cut..]));
            assert_eq!(one, whole, "cut after {cut}");
        }
    }

    #[test]
    fn the_header_of_a_prepared_transaction_has_grown() {
        for (name, header) in
            [("9.6", (48, 46)), ("10", (48, 46)), ("11", (64, 46)), ("14", (64, 46)), ("18", (72, 54))]
        {
            let (xid, _, data) = prepare(header, 7, "order-7");
            assert_eq!(prepared_name(xid, &data, version(name)).as_deref(), Some("order-7"), "{name}");
            assert_eq!(prepared_name(8, &data, version(name)), None);
            assert!(
                (0..data.len()).all(|length| prepared_name(xid, &data[..length], version(name)).is_none())
            );
        }
    }
}
