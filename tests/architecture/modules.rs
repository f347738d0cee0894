//! Modules of a crate: their files, the names that each module defines or imports, and the paths in its code.
//!
//! Code that is compiled only for tests is left out. Paths are resolved as in Rust 2018, through imports, re-exports and globs,
//! to the file that defines the item. Items defined by a macro are attributed to the file that calls the macro. Methods are not
//! resolved: a file that calls a method without naming its type does not count as a user of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::paths::{How, Mention, Module, Name, read_text};

/// Where a path leads to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
}

/// All modules reachable from a crate's root file.
pub(crate) struct Crate {
    modules: Vec<Module>,
}

/// Returns the text of a file, if it exists.
pub(crate) type Text = dyn Fn(&Path) -> Option<String>;

/// The uses between files: user, used file, and the names that are used.
pub(crate) type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

impl Crate {
    /// Reads the crate whose root is `root`, relative to the package.
    pub(crate) fn read(root: &str) -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::of(root, &|file| std::fs::read_to_string(package.join(file)).ok())
    }

    /// Like [`Self::read`], with the texts of the files from `text`.
    pub(crate) fn of(root: &str, text: &Text) -> Self {
        let root = Path::new(root);
        let mut modules = Vec::new();
        read_file(root, root.parent().unwrap(), None, text, &mut modules);
        Self { modules }
    }

    /// Returns the files that are compiled without tests, each with its number of lines outside of tests.
    pub(crate) fn files(&self) -> BTreeMap<&Path, usize> {
        let files = self.modules.iter().filter(|module| !module.inline);
        files.map(|module| (module.file.as_path(), module.lines)).collect()
    }

    /// Returns the names that each file uses from other files. A re-export is not a use; the re-exported name counts where code
    /// uses it.
    pub(crate) fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (id, module) in self.modules.iter().enumerate() {
            for mention in &module.mentions {
                for target in self.targets(id, mention) {
                    let used = &self.modules[target].file;
                    if *used != module.file {
                        let names = uses.entry(module.file.clone()).or_default().entry(used.clone());
                        names.or_default().insert(mention.path.last().unwrap().clone());
                    }
                }
            }
        }
        uses
    }

    /// Returns the paths of each file into other crates. For `use other::a; a::B` it is `other::a`.
    pub(crate) fn foreign(&self) -> BTreeMap<&Path, BTreeSet<&[String]>> {
        let mut foreign = BTreeMap::<_, BTreeSet<_>>::new();
        for module in &self.modules {
            for Mention { path, .. } in module.mentions.iter().filter(|mention| mention.path.len() > 1) {
                let is_own = ["crate", "self", "super", "Self"].contains(&path[0].as_str());
                if !is_own && !module.names.contains_key(&path[0]) {
                    foreign.entry(module.file.as_path()).or_default().insert(path.as_slice());
                }
            }
        }
        foreign
    }

    /// Returns the modules that define the mentioned item. Modules that the path only passes through are not included.
    fn targets(&self, from: usize, mention: &Mention) -> BTreeSet<usize> {
        if mention.how == How::ReExported {
            return BTreeSet::new();
        }
        let found = self.resolve(from, &mention.path, &mut Vec::new());
        let items = found.into_iter().filter_map(|target| match target {
            Target::Item(module) => Some(module),
            // A glob depends on every item of the module.
            Target::Module(module) => (mention.how == How::Glob).then_some(module),
        });
        items.collect()
    }

    fn resolve(
        &self,
        from: usize,
        path: &[String],
        under_way: &mut Vec<(usize, String, bool)>,
    ) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return vec![Target::Module(from)] };
        let start = match first.as_str() {
            "crate" => vec![Target::Module(0)],
            "self" => vec![Target::Module(from)],
            "super" => self.modules[from].parent.map(Target::Module).into_iter().collect(),
            name => self.lookup(from, name, rest.is_empty(), under_way),
        };
        let on = start.into_iter().flat_map(|target| match target {
            Target::Module(module) if !rest.is_empty() => self.resolve_in(module, rest, under_way),
            // Names after a type belong to the type.
            found => vec![found],
        });
        on.collect()
    }

    /// Resolves the rest of a path within a module.
    fn resolve_in(
        &self,
        module: usize,
        path: &[String],
        under_way: &mut Vec<(usize, String, bool)>,
    ) -> Vec<Target> {
        if path[0] == "super" || path[0] == "self" {
            return self.resolve(module, path, under_way);
        }
        let found = self.lookup(module, &path[0], path.len() == 1, under_way);
        if found.is_empty() && self.modules[module].has_macros {
            return vec![Target::Item(module)];
        }
        let on = found.into_iter().flat_map(|target| match target {
            Target::Module(inner) if path.len() > 1 => self.resolve_in(inner, &path[1..], under_way),
            found => vec![found],
        });
        on.collect()
    }

    /// Resolves a name in a module. In the middle of a path, a module takes precedence.
    fn lookup(
        &self,
        module: usize,
        name: &str,
        last: bool,
        under_way: &mut Vec<(usize, String, bool)>,
    ) -> Vec<Target> {
        let key = (module, name.to_owned(), last);
        if under_way.contains(&key) {
            return Vec::new();
        }
        under_way.push(key);
        let Module { names, globs, .. } = &self.modules[module];
        let known = names.get(name).map(Vec::as_slice).unwrap_or_default();
        let child = known.iter().find_map(|name| match name {
            Name::Module(child) => Some(Target::Module(*child)),
            _ => None,
        });
        let found = match child {
            Some(child) if !last => vec![child],
            _ => {
                let mut found = BTreeSet::new();
                for name in known {
                    match name {
                        Name::Module(child) => drop(found.insert(Target::Module(*child))),
                        Name::Item => drop(found.insert(Target::Item(module))),
                        Name::Import(path) => found.extend(self.resolve(module, path, under_way)),
                    }
                }
                if found.is_empty() {
                    for path in globs {
                        for target in self.resolve(module, path, under_way) {
                            let Target::Module(inside) = target else { continue };
                            found.extend(self.lookup(inside, name, last, under_way));
                        }
                    }
                }
                found.into_iter().collect()
            }
        };
        under_way.pop();
        found
    }
}

/// Reads a file and the files of the modules that it declares, which are in `folder`.
fn read_file(
    file: &Path,
    folder: &Path,
    parent: Option<usize>,
    text: &Text,
    modules: &mut Vec<Module>,
) -> usize {
    let own = text(file).unwrap_or_else(|| panic!("there is no {}", file.display()));
    let id = read_text(file, parent, &own, modules);
    read_declared(id, folder, text, modules);
    id
}

fn read_declared(id: usize, folder: &Path, text: &Text, modules: &mut Vec<Module>) {
    for (name, child) in std::mem::take(&mut modules[id].inline_children) {
        read_declared(child, &folder.join(name), text, modules);
    }
    for name in std::mem::take(&mut modules[id].declared) {
        let own = folder.join(format!("{name}.rs"));
        let file = if text(&own).is_some() { own } else { folder.join(&name).join("mod.rs") };
        let child = read_file(&file, &folder.join(&name), Some(id), text, modules);
        modules[id].names.entry(name).or_default().push(Name::Module(child));
    }
}
