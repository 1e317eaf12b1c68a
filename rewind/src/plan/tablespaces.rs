//! Tablespaces that only the source has: each becomes a directory outside of the data directory, and so the
//! one place where the source says where on this machine is written. What it says is checked, and told.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use walparse::Names;

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::plan::error::PlanError;
use crate::plan::files::RewindPlan;

/// Checks where the plan makes tablespaces: at the same places as on the source, but each in a directory of
/// its own, in which nothing is.
pub(crate) fn check(plan: &RewindPlan, root: &Path, names: &Names) -> Result<(), PlanError> {
    let mut seen: Vec<PathBuf> = Vec::new();
    for (link, kind) in &plan.create {
        let EntryKind::Symlink { target: directory } = kind else { continue };
        let problem = match real_place(directory) {
            Err(problem) => Some(problem),
            Ok(place) if overlap(&place, root) => Some("is inside the data directory, or around it"),
            Ok(place) if seen.iter().any(|other| overlap(&place, other)) => {
                Some("is inside the directory of another tablespace, or around it")
            }
            Ok(place) => {
                seen.push(place);
                None
            }
        };
        let problem =
            problem.or_else(|| (!is_tablespace(link, names)).then_some("is no tablespace's by that name"));
        if let Some(problem) = problem {
            let (link, directory) = (link.clone(), directory.clone());
            return Err(PlanError::TablespacePlace { link, directory, problem });
        }
        tracing::info!("the tablespace of \"{link}\" is made at {directory:?}, as on the source");
    }
    Ok(())
}

/// Where a directory is or would be, with links followed. It must be empty, or missing in one that is there.
fn real_place(directory: &Path) -> Result<PathBuf, &'static str> {
    if !directory.is_absolute() {
        return Err("is no absolute path");
    }
    if directory.components().any(|part| part == Component::ParentDir) {
        return Err("has a \"..\" in it");
    }
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => directory.canonicalize().map_err(|_| "cannot be reached on this machine"),
            Some(_) => Err("is in use on this machine"),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A link to nowhere would be followed when the directory is made.
            if directory.is_symlink() {
                return Err("is in use on this machine");
            }
            let (parent, name) = directory.parent().zip(directory.file_name()).ok_or("is no directory")?;
            let parent =
                parent.canonicalize().map_err(|_| "cannot be made: the directory above is missing")?;
            Ok(parent.join(name))
        }
        Err(_) => Err("is in use on this machine"),
    }
}

/// Whether one of the two lies in the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Whether a link is where tablespaces are, and named by a number as they are.
fn is_tablespace(link: &DataPath, names: &Names) -> bool {
    let is_number = link.file_name().iter().all(u8::is_ascii_digit);
    is_number && link.parent().is_some_and(|parent| parent.as_bytes() == names.tablespace_dir.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names() -> &'static Names {
        walparse::Flavor::all().next().unwrap().names()
    }

    fn check_one(link: &str, directory: &Path, root: &Path) -> Result<(), String> {
        let kind = EntryKind::Symlink { target: directory.to_owned() };
        let plan =
            RewindPlan { create: vec![(DataPath::parse(link).unwrap(), kind)], ..RewindPlan::default() };
        check(&plan, root, names()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tablespace_gets_an_empty_directory_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().canonicalize().unwrap().join(name);
        for name in ["data/base", "empty", "full/x"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("data"), at("way")).unwrap();
        symlink(at("gone"), at("nowhere")).unwrap();
        let root = at("data");
        let check = |place: &Path| check_one("pg_tblspc/16400", place, &root);
        assert_eq!(check(&at("empty")), Ok(()));
        assert_eq!(check(&at("new")), Ok(()));
        for (place, words) in [
            (at("full"), "in use"),
            (at("nowhere"), "in use"),
            (PathBuf::from("/"), "in use"),
            (at("data/base/new"), "inside the data directory"),
            (at("way/new"), "inside the data directory"),
            (at("way/base"), "inside the data directory"),
            (at("empty/../new"), "\"..\""),
            (at("missing/new"), "cannot be made"),
            (PathBuf::from("empty"), "no absolute path"),
            (PathBuf::new(), "no absolute path"),
        ] {
            let error = check(&place).unwrap_err();
            assert!(error.contains(words), "{}: {error}", place.display());
        }
        for link in ["pg_tblspc/x", "base/16400", "16400", "pg_tblspc/1/2"] {
            assert!(check_one(link, &at("empty"), &root).is_err(), "{link}");
        }
    }

    #[test]
    fn two_tablespaces_do_not_share_a_directory() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("data");
        let at = |name: &str| EntryKind::Symlink { target: temp.path().join(name) };
        std::fs::create_dir(temp.path().join("a")).unwrap();
        let link = |number: u32| DataPath::parse(format!("pg_tblspc/{number}")).unwrap();
        for (other, is_good) in [("a", false), ("a/b", false), ("b", true)] {
            let create = vec![(link(1), at("a")), (link(2), at(other))];
            let checked = check(&RewindPlan { create, ..RewindPlan::default() }, &root, names());
            assert_eq!(checked.is_ok(), is_good, "{other}");
        }
    }
}
