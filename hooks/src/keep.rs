//! Where a flow keeps what a rewind gives up.

use std::path::{Path, PathBuf};

use kbrecover_rewind::KeepRoot;

/// What a setting says of it: a directory, `off`, or nothing. Then it is kept beside the data directory, where there is ample room.
pub(crate) fn keep_root(setting: &str, data: &Path) -> Option<KeepRoot> {
    match setting.trim() {
        "" => Some(KeepRoot::beside(data)),
        "off" => None,
        path => Some(KeepRoot::new(PathBuf::from(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_off_or_a_directory() {
        let data = Path::new("/k/data/");
        let beside = keep_root("", data).unwrap();
        assert_eq!(beside.directory, Path::new("/k/data.diverged"));
        assert_eq!((beside.most.unwrap().get(), beside.days.unwrap().get(), beside.room.get()), (3, 30, 10));
        assert_eq!(keep_root("off", data), None);
        assert_eq!(keep_root(" /kept ", data), Some(KeepRoot::new("/kept".into())));
    }
}
