//! Tablespaces that only the source has. Each is created in a directory outside the data directory, and only here
//! does the source determine where on this machine files are written. Therefore these directories are checked and
//! logged.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use walparse::Names;

use crate::datadir::data_path::DataPath;
use crate::datadir::inventory::EntryKind;
use crate::plan::error::PlanError;
use crate::plan::files::RewindPlan;

/// Checks the directories in which the plan creates tablespaces. They are the same as on the source. Each must be
/// empty or new, or hold nothing but a tablespace of the target that the plan removes, and must not overlap with the data
/// directory `root` or with another tablespace.
///
/// Returns the links of tablespaces that take the place of one of the target's: the old and the new link of each.
///
/// # Errors
/// The first directory that cannot be used.
pub(crate) fn check(
    plan: &RewindPlan,
    root: &Path,
    names: &Names,
) -> Result<Vec<(DataPath, DataPath)>, PlanError> {
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut replaced = Vec::new();
    for (link, kind) in &plan.create {
        let EntryKind::Symlink { target: directory } = kind else { continue };
        let own = removed_link_to(plan, root, directory);
        let problem = match real_place(directory, |name| is_removed_below(plan, own, name)) {
            Err(problem) => Some(problem),
            Ok(place) if overlap(&place, root) => Some("is inside the data directory, or contains it"),
            Ok(place) if seen.iter().any(|other| overlap(&place, other)) => {
                Some("is inside the directory of another tablespace, or contains it")
            }
            Ok(place) => {
                seen.push(place);
                None
            }
        };
        let problem = problem.or_else(|| {
            (!is_tablespace(link, names)).then_some("belongs to a link that is not named like a tablespace")
        });
        if let Some(problem) = problem {
            let (link, directory) = (link.clone(), directory.clone());
            return Err(PlanError::TablespacePlace { link, directory, problem });
        }
        tracing::info!("creating the tablespace of \"{link}\" in {directory:?}, as on the source");
        if let Some(own) = own {
            tracing::info!("it takes the place of the target's \"{own}\", which the source does not have");
            replaced.push((own.clone(), link.clone()));
        }
    }
    Ok(replaced)
}

/// The link to this directory that the plan removes, if there is one.
fn removed_link_to<'a>(plan: &'a RewindPlan, root: &Path, directory: &Path) -> Option<&'a DataPath> {
    let place = directory.canonicalize().ok()?;
    let links = plan.remove.iter().filter(|(_, kind)| matches!(kind, EntryKind::Symlink { .. }));
    let leads_there = |link: &&DataPath| link.below(root).canonicalize().is_ok_and(|other| other == place);
    links.map(|(link, _)| link).find(leads_there)
}

/// Whether the plan removes the entry `name` below the link `own`.
fn is_removed_below(plan: &RewindPlan, own: Option<&DataPath>, name: &OsStr) -> bool {
    let path =
        own.and_then(|own| DataPath::parse([own.as_bytes(), b"/", name.as_encoded_bytes()].concat()).ok());
    path.is_some_and(|path| plan.remove.iter().any(|(removed, _)| *removed == path))
}

/// The path of a directory with links resolved.
///
/// # Errors
/// It is neither empty nor missing from an existing directory, with the reason. Entries that `is_own` accepts do not count.
fn real_place(directory: &Path, is_own: impl Fn(&OsStr) -> bool) -> Result<PathBuf, &'static str> {
    if !directory.is_absolute() {
        return Err("is not an absolute path");
    }
    if directory.components().any(|part| part == Component::ParentDir) {
        return Err("contains \"..\"");
    }
    // A file system has a directory lost+found at its root.
    let counts = |entry: &std::io::Result<DirEntry>| {
        entry.as_ref().map_or(true, |entry| {
            let name = entry.file_name();
            name != "lost+found" && !is_own(&name)
        })
    };
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.find(counts) {
            None => directory.canonicalize().map_err(|_| "cannot be accessed on this machine"),
            Some(_) => Err("is in use on this machine"),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A dangling link would be followed when the directory is created.
            if directory.is_symlink() {
                return Err("is in use on this machine");
            }
            let (parent, name) = directory.parent().zip(directory.file_name()).ok_or("is not a directory")?;
            let parent = parent
                .canonicalize()
                .map_err(|_| "cannot be created: its parent directory does not exist")?;
            Ok(parent.join(name))
        }
        Err(_) => Err("is in use on this machine"),
    }
}

/// Whether one of the paths contains the other.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Whether a link is in the directory of tablespaces and named by a number.
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
        check(&plan, root, names()).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tablespace_needs_an_empty_directory_of_its_own() {
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
            (at("missing/new"), "cannot be created"),
            (PathBuf::from("empty"), "not an absolute path"),
            (PathBuf::new(), "not an absolute path"),
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

    #[test]
    fn a_tablespace_may_take_the_place_of_one_that_goes() {
        let temp = tempfile::tempdir().unwrap();
        let (root, space) = (temp.path().join("data"), temp.path().join("space"));
        for directory in [&root.join("pg_tblspc"), &space.join("PG_15_1")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        symlink(&space, root.join("pg_tblspc/1")).unwrap();
        let path = |text: &str| DataPath::parse(text).unwrap();
        let link = EntryKind::Symlink { target: space.clone() };
        let mut plan =
            RewindPlan { create: vec![(path("pg_tblspc/2"), link.clone())], ..RewindPlan::default() };
        assert!(check(&plan, &root, names()).is_err(), "the target's tablespace stays");
        plan.remove = vec![(path("pg_tblspc/1/PG_15_1"), EntryKind::Directory), (path("pg_tblspc/1"), link)];
        let replaced = check(&plan, &root, names()).unwrap();
        assert_eq!(replaced, [(path("pg_tblspc/1"), path("pg_tblspc/2"))]);
        std::fs::create_dir(space.join("PG_16_1")).unwrap();
        assert!(check(&plan, &root, names()).is_err(), "another server's files lie there");
    }
}
