//! The modules of a crate: its files, the names that each module defines or imports, and the paths that its code names.
//!
//! Code that is compiled for tests alone is left out. Paths are resolved as Rust 2018 does, through imports,
//! re-exports and globs, to the file that defines the item. What a macro defines is taken to be in the file that calls
//! the macro. Methods are not resolved: a file that calls a method without naming its type is not seen to use it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::paths::{How, Mention, Module, Name, read_text};

/// Where a path leads.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
}

/// All modules that are reached from a crate's root file.
pub(crate) struct Crate {
    modules: Vec<Module>,
}

/// The text of a file, if there is one.
pub(crate) type Text = dyn Fn(&Path) -> Option<String>;

/// What files use of each other: the user, the used one, and the names.
pub(crate) type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

impl Crate {
    /// Reads the crate whose root is `root`, relative to the package.
    pub(crate) fn read(root: &str) -> Self {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::of(root, &|file| std::fs::read_to_string(package.join(file)).ok())
    }

    /// The same where `text` knows the files.
    pub(crate) fn of(root: &str, text: &Text) -> Self {
        let root = Path::new(root);
        let mut modules = Vec::new();
        read_file(root, root.parent().unwrap(), None, text, &mut modules);
        Self { modules }
    }

    /// The files that are compiled without tests, each with its number of lines outside of tests.
    pub(crate) fn files(&self) -> BTreeMap<&Path, usize> {
        let files = self.modules.iter().filter(|module| !module.inline);
        files.map(|module| (module.file.as_path(), module.lines)).collect()
    }

    /// What each file uses of other files. A re-export is no use; the name that was re-exported is one where code has it.
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

    /// The paths of each file that lead to other crates. `use other::a; a::B` has one, `other::a`.
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

    /// The modules that hold what is mentioned. A module that is only passed through is none of them.
    fn targets(&self, from: usize, mention: &Mention) -> BTreeSet<usize> {
        if mention.how == How::ReExported {
            return BTreeSet::new();
        }
        let found = self.resolve(from, &mention.path, &mut Vec::new());
        let items = found.into_iter().filter_map(|target| match target {
            Target::Item(module) => Some(module),
            // A glob depends on whatever the module says.
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
            // What follows a type is its own.
            found => vec![found],
        });
        on.collect()
    }

    /// Resolves what stands behind the path of a module.
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

    /// What a name means in a module; in the middle of a path it is a module before all else.
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

/// Reads a file and the files of the modules that it declares; `folder` is where those are.
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
