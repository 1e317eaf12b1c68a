//! Mount points in a data directory. They cannot be removed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::datadir::data_path::DataPath;

/// The mount points below a directory, as far as the kernel tells: without `/proc` none is known.
pub(crate) fn below(root: &Path) -> BTreeSet<DataPath> {
    let Ok(root) = root.canonicalize() else { return BTreeSet::new() };
    listed(&fs::read("/proc/self/mountinfo").unwrap_or_default(), &root)
}

/// Those in the text of `mountinfo` (see proc(5)): the fifth word of a line, with some bytes as `\` and three octal digits.
fn listed(mounts: &[u8], root: &Path) -> BTreeSet<DataPath> {
    let lines = mounts.split(|byte| *byte == b'\n');
    let places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let below = |place: &[u8]| {
        let place = OsString::from_vec(unescaped(place));
        let path = Path::new(&place).strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec();
        DataPath::parse(path).ok()
    };
    places.filter_map(below).collect()
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match digits {
            Some(digits) => {
                bytes.push(
                    digits.iter().fold(0, |byte: u8, digit| byte.wrapping_mul(8).wrapping_add(digit - b'0')),
                );
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_below_the_directory_are_found() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            30 22 8:2 / /data rw shared:1 - ext4 /dev/sdb rw\n\
            31 30 0:40 / /data/my\\040dir\\134 rw - tmpfs tmpfs rw\n\
            32 30 8:1 /x /data/base/5 ro - ext4 /dev/sda rw\n\
            33 22 8:1 /x /database rw - ext4 /dev/sda rw\nshort line\n";
        let found = listed(mounts, Path::new("/data"));
        let expected = ["base/5", "my dir\\"].map(|path| DataPath::parse(path).unwrap());
        assert_eq!(found, BTreeSet::from(expected));
        assert!(listed(b"", Path::new("/data")).is_empty());
    }
}
