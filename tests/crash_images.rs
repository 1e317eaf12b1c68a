//! Power loss at any moment: every change to the disk is recorded, and after each one it is played through what a disk
//! may hold then: nothing of what was not yet synced, all of it, or any part of it in any order.
//!
//!     changes  ... write a · write b · fsync a · rename c ─▶ d │ fsync_directory · ...
//!                                                              ╳
//!     durable: a's bytes          on the disk or not: b's bytes, the name d         kept apart, chosen at random

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::crash_sweep::{BY_COMPARING, BY_WAL, Sweep, everything, is_our_own};
use crate::harness::{Change, Failover, Sandbox, give_to_server_user, linked_copy, pick, remove_copy};

/// A disk under a data directory. Files are numbered; names lead to numbers.
#[derive(Clone, Default)]
struct Disk {
    names: BTreeMap<PathBuf, Entry>,
    files: BTreeMap<usize, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    File(usize),
    Directory,
}

/// A change to one file's contents or to one directory's names.
#[derive(Clone)]
enum Step {
    Write { file: usize, offset: usize, bytes: Vec<u8> },
    SetLength { file: usize, length: usize },
    Name { name: PathBuf, entry: Entry },
    NoName { name: PathBuf },
    Rename { from: PathBuf, to: PathBuf, entry: Entry },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Write { file, offset, bytes } => {
                write!(f, "{} bytes at {offset} of file {file}", bytes.len())
            }
            Step::SetLength { file, length } => write!(f, "length {length} of file {file}"),
            Step::Name { name, entry } => write!(f, "{name:?}: {entry:?}"),
            Step::NoName { name } => write!(f, "{name:?} removed"),
            Step::Rename { from, to, .. } => write!(f, "{from:?} renamed to {to:?}"),
        }
    }
}

impl Step {
    /// Which sync makes it durable.
    fn is_synced_by(&self, synced: &Synced) -> bool {
        match (self, synced) {
            (Step::Write { file, .. } | Step::SetLength { file, .. }, Synced::File(number)) => file == number,
            (Step::Name { name, .. } | Step::NoName { name }, Synced::Directory(path)) => {
                name.parent() == Some(path)
            }
            (Step::Rename { to, .. }, Synced::Directory(path)) => to.parent() == Some(path),
            _ => false,
        }
    }
}

enum Synced {
    File(usize),
    Directory(PathBuf),
}

impl Disk {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Write { file, offset, bytes } => {
                let content = self.files.entry(*file).or_default();
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Step::SetLength { file, length } => self.files.entry(*file).or_default().resize(*length, 0),
            Step::Name { name, entry } => {
                self.names.insert(name.clone(), *entry);
            }
            Step::NoName { name } => {
                self.names.remove(name);
            }
            Step::Rename { from, to, entry } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *entry);
            }
        }
    }

    /// Whether its name and those of the directories above it are there.
    fn has(&self, name: &Path) -> bool {
        name.ancestors().filter(|above| *above != Path::new("")).all(|above| self.names.contains_key(above))
    }

    /// The bytes of a file.
    fn read(&self, name: &Path) -> Option<&[u8]> {
        match self.names.get(name) {
            Some(Entry::File(file)) if self.has(name) => {
                Some(self.files.get(file).map_or(&[], Vec::as_slice))
            }
            _ => None,
        }
    }

    /// Everything that can be reached, but for what is ours.
    fn content(&self) -> BTreeMap<&Path, Option<&[u8]>> {
        let names = self.names.iter().filter(|(name, _)| !is_our_own(name));
        names.filter(|(name, _)| self.has(name)).map(|(name, _)| (name.as_path(), self.read(name))).collect()
    }
}

/// The disk on the way: what is durable, and what may or may not be.
struct Player {
    durable: Disk,
    now: Disk,
    pending: Vec<Step>,
    next_file: usize,
}

impl Player {
    /// Begins with the changed files of a data directory; the others do not matter.
    fn new(data: &Path, changes: &[Change]) -> Player {
        let mut player =
            Player { durable: Disk::default(), now: Disk::default(), pending: Vec::new(), next_file: 0 };
        let paths: BTreeSet<&Path> =
            changes.iter().flat_map(|change| change.path.ancestors().chain(change.to.ancestors())).collect();
        for path in paths.into_iter().filter(|path| *path != Path::new("")) {
            let full = data.join(path);
            let entry = if full.is_dir() {
                Entry::Directory
            } else if full.exists() {
                let content = std::fs::read(&full).expect("read a file");
                player.durable.files.insert(player.next_file, content);
                player.next_file += 1;
                Entry::File(player.next_file - 1)
            } else {
                continue;
            };
            player.durable.names.insert(path.to_path_buf(), entry);
        }
        player.now = player.durable.clone();
        player
    }

    fn file(&self, name: &Path) -> usize {
        match self.now.names.get(name) {
            Some(Entry::File(file)) => *file,
            other => panic!("{name:?} is {other:?}"),
        }
    }

    fn play(&mut self, change: &Change) {
        let path = change.path.clone();
        let number = change.number as usize;
        let step = match change.kind.as_str() {
            "write" => Step::Write { file: self.file(&path), offset: number, bytes: change.bytes.clone() },
            "truncate" => Step::SetLength { file: self.file(&path), length: number },
            "create" => {
                self.next_file += 1;
                Step::Name { name: path, entry: Entry::File(self.next_file - 1) }
            }
            "mkdir" => Step::Name { name: path, entry: Entry::Directory },
            "unlink" | "rmdir" => Step::NoName { name: path },
            "rename" => {
                let entry = Entry::File(self.file(&path));
                Step::Rename { from: path, to: change.to.clone(), entry }
            }
            "chmod" => return,
            "fsync" => return self.sync(&Synced::File(self.file(&path))),
            "fsync_directory" => return self.sync(&Synced::Directory(path)),
            // For what the crashed server left: what the run changes must be durable without it.
            "syncfs" => return,
            other => panic!("unknown change {other}"),
        };
        self.now.take(&step);
        self.pending.push(step);
    }

    fn sync(&mut self, synced: &Synced) {
        let (done, left): (Vec<_>, Vec<_>) =
            self.pending.drain(..).partition(|step| step.is_synced_by(synced));
        self.pending = left;
        for step in &done {
            self.durable.take(step);
            // What was in a directory that is gone is gone.
            if let Step::NoName { name: gone } = step {
                self.pending.retain(|step| !matches!(step, Step::NoName { name } if name.starts_with(gone)));
            }
        }
    }

    /// What a disk may hold now: what is durable, and of the rest what is chosen, in the order it came or backwards.
    fn image(&self, is_kept: &mut dyn FnMut() -> bool, is_reversed: bool) -> Disk {
        let mut image = self.durable.clone();
        let kept = self.pending.iter().filter(|_| is_kept());
        if is_reversed {
            kept.rev().for_each(|step| image.take(step));
        } else {
            kept.for_each(|step| image.take(step));
        }
        image
    }
}

/// Numbers that look random and are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn coin(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(2)
    }
}

const LABEL: &str = "backup_label";
const JOURNAL: &str = "kbrecover.journal";

/// The rule: untouched; or marked, with the whole journal; or finished.
fn check(image: &Disk, before: &Disk, after: &Disk, at: usize) -> &'static str {
    let text = image.read(Path::new(LABEL)).map(String::from_utf8_lossy);
    match text {
        None => {
            assert!(image.content() == before.content(), "after change {at}: no mark, but something changed");
            "untouched"
        }
        Some(text) if text.starts_with("KBRECOVER: ") => {
            let journal =
                image.read(Path::new(JOURNAL)).unwrap_or_else(|| panic!("after change {at}: no journal"));
            let (head, body) = journal.split_at(12);
            assert_eq!(head[..8], *b"KBRJRNL1", "after change {at}");
            assert_eq!(
                head[8..],
                crc32c::crc32c(body).to_le_bytes(),
                "after change {at}: the journal is torn"
            );
            "marked"
        }
        Some(text) => {
            assert!(text.starts_with("START WAL LOCATION: "), "after change {at}: a label of {text:?}");
            let (have, want) = (image.content(), after.content());
            let wrong: Vec<_> =
                want.keys().chain(have.keys()).filter(|name| have.get(*name) != want.get(*name)).collect();
            assert!(wrong.is_empty(), "after change {at}: finished, but {wrong:?}");
            "finished"
        }
    }
}

/// Puts an image on a true disk.
fn put(image: &Disk, data: &Path, names: &BTreeSet<PathBuf>) {
    for name in names.iter().rev().filter(|name| !image.has(name)) {
        let path = data.join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("remove a directory")
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
    for name in names.iter().filter(|name| image.has(name)) {
        let path = data.join(name);
        match image.names.get(name) {
            Some(Entry::Directory) if !path.is_dir() => {
                std::fs::create_dir(&path).expect("mkdir");
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
                give_to_server_user(&path);
            }
            Some(Entry::File(_)) if image.read(name) != std::fs::read(&path).ok().as_deref() => {
                // What is written was made writable first, and both are in one inode.
                let mode = path.metadata().map_or(0o600, |metadata| metadata.permissions().mode() | 0o200);
                let _ = std::fs::remove_file(&path);
                std::fs::write(&path, image.read(name).expect("a file")).expect("write");
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
                give_to_server_user(&path);
            }
            _ => {}
        }
    }
}

/// What was tried: images by what they were, and how often the program went on from one.
struct Tried {
    images: BTreeMap<&'static str, usize>,
    resumed: usize,
}

/// Looks at what a disk may hold after these changes, or after a part of them: every `step`-th from `first` on.
fn try_images(sweep: &Sweep<'_>, changes: &[Change], (first, step): (usize, usize)) -> Tried {
    let failover = sweep.failover;
    let mut player = Player::new(&failover.old.data, changes);
    let before = player.now.clone();
    let mut after = Player::new(&failover.old.data, changes);
    changes.iter().for_each(|change| after.play(change));
    let never: Vec<String> = after.pending.iter().map(Step::to_string).collect();
    assert!(never.is_empty(), "changes that were never synced: {never:#?}");
    let names: BTreeSet<PathBuf> = before
        .names
        .keys()
        .chain(after.now.names.keys())
        .cloned()
        .chain([LABEL.into(), JOURNAL.into()])
        .collect();

    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut tried = Tried { images: BTreeMap::new(), resumed: 0 };
    let mut goes_on = (0..).map(|count| count % step == first);
    for (number, change) in changes.iter().enumerate() {
        player.play(change);
        let at = number + 1;
        // With thousands of pending changes, and the mark safe, images differ in nothing that is looked at.
        if player.pending.len() > 20 && !at.is_multiple_of(4) {
            continue;
        }
        // Some of them on a true disk, where the program goes on from there.
        let is_place = at.is_multiple_of((changes.len() / 24).next_multiple_of(4)) || at + 8 > changes.len();
        let is_resumed = is_place && goes_on.next() == Some(true);
        if number % step != first && !is_resumed {
            continue;
        }
        let mut images = vec![player.image(&mut || false, false), player.image(&mut || true, false)];
        for reversed in [false, true, false] {
            images.push(player.image(&mut || dice.coin(), reversed));
        }
        for image in &images {
            *tried.images.entry(check(image, &before, &after.now, at)).or_default() += 1;
        }
        if is_resumed {
            let image = images.swap_remove(at % images.len());
            let target = linked_copy(&failover.old, &format!("image-{at}"), &sweep.changed);
            put(&image, &target.data, &names);
            sweep.finish(&target, &format!("power lost after change {at}"));
            remove_copy(target);
            tried.resumed += 1;
        }
    }
    #[expect(clippy::print_stdout, reason = "how much was tried is part of the result")]
    {
        println!("{} changes, images: {:?}, run again: {}", changes.len(), tried.images, tried.resumed);
    }
    tried
}

#[test]
fn nothing_is_lost_with_the_power() {
    let sandbox = Sandbox::new();
    let failover = everything(&sandbox);
    let (sweep, changes) = Sweep::new(&failover, BY_WAL);
    let Tried { images, resumed } = try_images(&sweep, &changes, (0, 1));
    assert!(images["untouched"] > 20 && images["marked"] > 500 && images["finished"] > 10, "{images:?}");
    assert!(resumed >= 20, "{resumed}");
}

#[test]
fn nothing_is_lost_with_the_power_while_comparing() {
    let sandbox = Sandbox::new();
    let failover = everything(&sandbox);
    let (sweep, changes) = Sweep::new(&failover, BY_COMPARING);
    check_order(&failover, &changes);
    for part in pick("crash images: part of the comparing run", &[0, 1, 2]) {
        let Tried { images, resumed } = try_images(&sweep, &changes, (part, 3));
        assert!(images["untouched"] > 5 && images["marked"] > 150 && images["finished"] > 2, "{images:?}");
        assert!(resumed >= 6, "{resumed}");
    }
}

#[test]
fn each_step_is_durable_before_the_next() {
    let sandbox = Sandbox::new();
    let failover = everything(&sandbox);
    let (_, changes) = Sweep::new(&failover, BY_WAL);
    check_order(&failover, &changes);
}

/// The order of things, as `docs/internals/safety.md` has it; and that nothing is synced but what was changed.
fn check_order(failover: &Failover, changes: &[Change]) {
    let mut player = Player::new(&failover.old.data, changes);
    let mut touched = BTreeSet::new();
    let mut milestones = Vec::new();
    for change in changes {
        let path = change.path.as_path();
        let is_sync = change.kind.starts_with("fsync");
        match (change.kind.as_str(), path.to_str().unwrap_or("")) {
            ("rename", _) if change.to == Path::new(JOURNAL) => milestones.push("journal"),
            ("rename", _) if change.to == Path::new(LABEL) => {
                let is_first = !milestones.contains(&"mark");
                let is_own_name = |step: &Step| matches!(step, Step::Name { name, .. } if is_our_own(name));
                let count = player.pending.iter().filter(|step| !is_own_name(step)).count();
                assert_eq!(count, 0, "changes that are not durable when the label is renamed");
                milestones.push(if is_first { "mark" } else { "commit" });
            }
            ("write", "global/pg_control") => milestones.push("control file"),
            ("unlink", JOURNAL) => milestones.push("end"),
            ("write", _) if is_our_own(path) => {}
            ("write", _) if milestones.last() == Some(&"mark") => milestones.push("data"),
            _ => {}
        }
        if milestones.last() == Some(&"control file") && change.kind == "write" {
            let is_data = |step: &Step| matches!(step, Step::Write { .. } | Step::SetLength { .. });
            assert!(
                !player.pending.iter().any(is_data),
                "data is not durable when the control file is written"
            );
        }
        if is_sync {
            assert!(touched.contains(path), "{path:?} is synced and was not changed");
        }
        touched.insert(path.to_path_buf());
        touched.extend(path.parent().map(Path::to_path_buf));
        player.play(change);
    }
    assert_eq!(milestones, ["journal", "mark", "data", "control file", "commit", "end"]);
}
