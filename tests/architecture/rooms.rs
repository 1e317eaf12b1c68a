//! The order of the rooms in rewind/src: each may import those below it and the files beside the rooms.

use super::imports::{Imports, arrow};

/// From top to bottom. `testing`, a door for benchmarks and fuzzing, stands above them; `conninfo`, usable alone, below.
pub const ROOMS: [&str; 9] =
    ["engine", "apply", "survey", "plan", "lost", "target", "wal", "source", "datadir"];

/// Each import from a room to one above it.
pub fn upward(imports: &Imports) -> Vec<String> {
    let pairs = imports.iter().flat_map(|(from, to)| to.keys().map(move |to| (from, to)));
    let wrong = pairs.filter(|(from, to)| match (floor(from), floor(to)) {
        (Some(from), Some(to)) => to < from,
        _ => false,
    });
    wrong.map(|(from, to)| arrow(imports, from, to)).collect()
}

/// How deep down a file is; none if it stands beside the rooms.
fn floor(file: &str) -> Option<usize> {
    let (room, _) = file.split_once('/')?;
    let house = ["testing"].into_iter().chain(ROOMS).chain(["conninfo"]);
    let floor = house.into_iter().position(|name| name == room);
    Some(floor.unwrap_or_else(|| panic!("{file} is in a room that has no place in the order")))
}
