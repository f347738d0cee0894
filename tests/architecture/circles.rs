//! Finds circles among files that use each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::modules::{Crate, Uses};

/// Returns the circles of files, shortest first, with the names that each file uses: all pairs, and longer circles that share
/// no use with an earlier one. The result is empty only if there is no circle.
pub(crate) fn circles(uses: &Uses) -> Vec<String> {
    let mut found = BTreeSet::new();
    for (from, used) in uses {
        for to in used.keys() {
            if let Some(way) = shortest_way(uses, to, from) {
                found.insert((way.len(), from_its_least(way)));
            }
        }
    }
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for (length, circle) in found {
        let steps: Vec<_> = circle.iter().zip(circle.iter().cycle().skip(1)).collect();
        if length == 2 || steps.iter().all(|step| !told.contains(&(*step.0, *step.1))) {
            circles.push(described(&circle, uses));
            told.extend(steps.into_iter().map(|(from, to)| (*from, *to)));
        }
    }
    circles
}

/// Returns the files on the shortest path between two files, including both.
fn shortest_way<'a>(uses: &'a Uses, from: &'a Path, to: &'a Path) -> Option<Vec<&'a Path>> {
    let mut came_from = BTreeMap::<&Path, &Path>::new();
    let mut queue = VecDeque::from([from]);
    while let Some(file) = queue.pop_front() {
        if file == to {
            let mut way = vec![to];
            while let Some(before) = way.last().and_then(|last| came_from.get(last)) {
                way.push(before);
            }
            way.reverse();
            return Some(way);
        }
        for next in uses.get(file).into_iter().flat_map(|used| used.keys()).map(PathBuf::as_path) {
            if next != from && !came_from.contains_key(next) {
                came_from.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

fn from_its_least(mut circle: Vec<&Path>) -> Vec<&Path> {
    let least = (0..circle.len()).min_by_key(|place| circle[*place]).unwrap_or(0);
    circle.rotate_left(least);
    circle
}

fn described(circle: &[&Path], uses: &Uses) -> String {
    let steps = circle.iter().zip(circle.iter().cycle().skip(1)).map(|(from, to)| {
        let names: Vec<_> = uses[*from][*to].iter().map(String::as_str).collect();
        format!("{} -({})-> ", from.display(), names.join(", "))
    });
    steps.collect::<String>() + &circle[0].display().to_string()
}

/// The circle goes through a glob, a path in a macro and a name that was re-exported under another one. A file that only
/// re-exports is not part of it, nor is code for tests or documentation.
#[test]
fn a_circle_is_found_however_its_paths_are_written() {
    let files = BTreeMap::from([
        ("src/lib.rs", "mod parent; mod user; mod alone;"),
        (
            "src/parent/mod.rs",
            "mod child; mod sibling; pub use child::{Deep, Other as Renamed};
             #[cfg(test)] mod tests { use crate::alone::Lonely; }",
        ),
        ("src/parent/child.rs", "use super::sibling::*; pub struct Deep(Star); pub struct Other;"),
        ("src/parent/sibling.rs", "pub struct Star; fn f() { assert_eq!(1, crate::user::ONE); }"),
        (
            "src/user.rs",
            "use crate::parent::{self, Renamed}; pub const ONE: u8 = 1; fn g(_: parent::Deep) {}",
        ),
        (
            "src/alone.rs",
            "/// [`crate::user::ONE`]\npub(in crate::alone) struct Lonely(crate::parent::Deep);",
        ),
    ]);
    let text = move |file: &Path| files.get(file.to_str()?).map(|text| (*text).to_owned());
    let uses = Crate::of("src/lib.rs", &text).uses();
    let circle = "src/parent/child.rs -(Star, sibling)-> src/parent/sibling.rs -(ONE)-> src/user.rs \
                  -(Deep, Renamed)-> src/parent/child.rs";
    assert_eq!(circles(&uses), [circle]);
    assert!(uses[Path::new("src/alone.rs")].contains_key(Path::new("src/parent/child.rs")));
}
