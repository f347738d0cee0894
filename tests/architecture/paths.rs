//! Parses one file: the names that its modules define, and each path in their code.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Meta, UseTree, Visibility};

/// Meaning of a name in a module.
pub(crate) enum Name {
    Item,
    /// Index in the list of modules.
    Module(usize),
    /// Path that was imported or re-exported.
    Import(Vec<String>),
}

/// A path in code.
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) how: How,
}

/// How a path occurs in code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Named,
    /// All items in it are imported.
    Glob,
    /// Re-exported for other modules, which is not a use by this module.
    ReExported,
}

/// A module that is compiled without tests: a file, or an inline module.
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    pub(crate) parent: Option<usize>,
    pub(crate) inline: bool,
    /// Lines of the file that are not only for tests; 0 for an inline module.
    pub(crate) lines: usize,
    pub(crate) names: HashMap<String, Vec<Name>>,
    pub(crate) globs: Vec<Vec<String>>,
    pub(crate) mentions: Vec<Mention>,
    /// Whether macros may define items here.
    pub(crate) has_macros: bool,
    /// Child modules in files of their own.
    pub(crate) declared: Vec<String>,
    pub(crate) inline_children: Vec<(String, usize)>,
}

/// Adds the module of a file and its inline modules to `modules`. Returns its index.
pub(crate) fn read_text(file: &Path, parent: Option<usize>, text: &str, modules: &mut Vec<Module>) -> usize {
    let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (id, test_lines) = Reader::read(file, parent, false, &parsed.items, modules);
    modules[id].lines = text.lines().count() - test_lines;
    id
}

struct Reader<'a> {
    modules: &'a mut Vec<Module>,
    id: usize,
    test_lines: usize,
}

impl<'a> Reader<'a> {
    fn read(
        file: &Path,
        parent: Option<usize>,
        inline: bool,
        items: &[Item],
        modules: &'a mut Vec<Module>,
    ) -> (usize, usize) {
        let id = modules.len();
        modules.push(Module {
            file: file.to_owned(),
            parent,
            inline,
            lines: 0,
            names: HashMap::new(),
            globs: Vec::new(),
            mentions: Vec::new(),
            has_macros: false,
            declared: Vec::new(),
            inline_children: Vec::new(),
        });
        let mut reader = Self { modules, id, test_lines: 0 };
        for item in items {
            reader.define(item);
            reader.visit_item(item);
        }
        (id, reader.test_lines)
    }

    fn module(&mut self) -> &mut Module {
        &mut self.modules[self.id]
    }

    /// Records the name that an item of the module defines.
    fn define(&mut self, item: &Item) {
        let ident = match item {
            _ if is_for_tests(attributes(item)) => None,
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            Item::Macro(item) => {
                self.module().has_macros |= item.ident.is_none();
                item.ident.as_ref()
            }
            _ => None,
        };
        if let Some(ident) = ident {
            self.module().names.entry(ident.to_string()).or_default().push(Name::Item);
        }
    }

    fn mention(&mut self, path: Vec<String>) {
        self.module().mentions.push(Mention { path, how: How::Named });
    }

    /// Records the imports of a `use`.
    fn import(&mut self, tree: &UseTree, path: &mut Vec<String>, re_exports: bool) {
        let depth = path.len();
        match tree {
            UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.import(&step.tree, path, re_exports);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, path, re_exports);
                }
            }
            UseTree::Name(name) => {
                self.import_as(&name.ident.to_string(), &name.ident.to_string(), path, re_exports)
            }
            UseTree::Rename(name) => {
                self.import_as(&name.ident.to_string(), &name.rename.to_string(), path, re_exports);
            }
            UseTree::Glob(_) => {
                self.module().globs.push(path.clone());
                let how = if re_exports { How::ReExported } else { How::Glob };
                self.module().mentions.push(Mention { path: path.clone(), how });
            }
        }
        path.truncate(depth);
    }

    fn import_as(&mut self, name: &str, known_as: &str, path: &[String], re_exports: bool) {
        let mut path = path.to_vec();
        let known_as = if name == "self" {
            path.last().map_or(name, String::as_str).to_owned()
        } else {
            known_as.to_owned()
        };
        if name != "self" {
            path.push(name.to_owned());
        }
        let how = if re_exports { How::ReExported } else { How::Named };
        self.module().mentions.push(Mention { path: path.clone(), how });
        self.module().names.entry(known_as).or_default().push(Name::Import(path));
    }

    /// Records the paths among the tokens of a macro. A single word counts as a path only if it looks like a type or a
    /// constant.
    fn mention_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        let mut is_field = false;
        for token in tokens.into_iter().map(Some).chain([None]) {
            match token {
                Some(TokenTree::Punct(sign)) if sign.as_char() == ':' && !path.is_empty() => colons += 1,
                Some(TokenTree::Ident(ident)) if colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.mention_word(std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        Some(TokenTree::Ident(ident)) if !is_field => path.push(ident.to_string()),
                        Some(TokenTree::Group(group)) => self.mention_tokens(group.stream()),
                        Some(TokenTree::Punct(sign)) => {
                            is_field = matches!(sign.as_char(), '.' | '\'');
                            continue;
                        }
                        _ => {}
                    }
                }
            }
            is_field = false;
        }
    }

    fn mention_word(&mut self, path: Vec<String>) {
        let is_path = path.len() > 1 || path.iter().any(|word| word.starts_with(char::is_uppercase));
        if is_path {
            self.mention(path);
        }
    }

    fn leave_out(&mut self, tested: &impl Spanned) {
        let span = tested.span();
        self.test_lines += span.end().line + 1 - span.start().line;
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            self.leave_out(item);
            return;
        }
        match item {
            Item::Mod(inner) => {
                let name = inner.ident.to_string();
                let Some((_, items)) = &inner.content else {
                    self.module().declared.push(name);
                    return;
                };
                let file = self.module().file.clone();
                let (child, test_lines) = Reader::read(&file, Some(self.id), true, items, self.modules);
                self.test_lines += test_lines;
                self.module().inline_children.push((name.clone(), child));
                self.module().names.entry(name).or_default().push(Name::Module(child));
            }
            Item::Use(item) => {
                self.import(&item.tree, &mut Vec::new(), !matches!(item.vis, Visibility::Inherited));
            }
            item => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if is_for_tests(attributes) {
            self.leave_out(item);
        } else {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.mention(path.segments.iter().map(|part| part.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.mention_tokens(called.tokens.clone());
    }

    /// Documentation and derives are not uses: an item that a derive needs is imported.
    fn visit_attribute(&mut self, _attribute: &'ast Attribute) {}

    fn visit_visibility(&mut self, _visibility: &'ast Visibility) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether the attributes exclude an item from a build as users make it: without tests and without the feature `internals`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|condition| holds_without_tests(&condition) == Some(false))
        }
        _ => false,
    })
}

/// Evaluates a condition for builds without `test` and without features; `None` if it depends on something else.
fn holds_without_tests(condition: &Meta) -> Option<bool> {
    let Meta::List(list) = condition else {
        let is_unset = condition.path().is_ident("test") || condition.path().is_ident("feature");
        return is_unset.then_some(false);
    };
    let parts =
        list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated).ok()?;
    let mut known = parts.iter().map(holds_without_tests);
    if list.path.is_ident("not") {
        known.next().flatten().map(|holds| !holds)
    } else if list.path.is_ident("all") {
        known.any(|holds| holds == Some(false)).then_some(false)
    } else {
        known.all(|holds| holds == Some(false)).then_some(false)
    }
}
