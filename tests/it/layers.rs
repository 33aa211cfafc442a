//! The modules of both crates form layers: what a module imports stands below it in the graph of `CONTRIBUTING.md`, and no
//! two modules of one parent import each other, directly or around a corner.
//!
//! Read from the sources' paths (`crate::`, `self::`, `super::`, `use` trees and re-exports). Tests may look anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The folders of the sources of both crates, as their graphs are headed.
const CRATES: [&str; 2] = ["src", "crates/ptq/src"];
/// What the heading and the lines of the graphs stand between.
const FENCES: [&str; 2] = ["```text", "```"];

/// Segments behind `crate`; empty for the crate itself.
type Module = Vec<String>;
/// Modules of one parent, each with those that it imports and where.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// The sources of a crate.
#[derive(Default)]
struct Crate {
    /// File and text of every module, without comments, literals and tests.
    texts: BTreeMap<Module, (String, String)>,
    /// Of every module the names that its `use` declarations bring in, with what they stand for.
    names: BTreeMap<Module, BTreeMap<String, Module>>,
}

/// That `from` names something in `to`, first here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: Module,
    to: Module,
    place: String,
}

impl Crate {
    fn of_files(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut own = Self::default();
        for (path, text) in files {
            own.texts.insert(module_of(&path), (path, code(&text)));
        }
        let modules: Vec<Module> = own.texts.keys().cloned().collect();
        for module in modules {
            let names = own.paths(&module).into_iter().filter(|path| path.is_use);
            let names = names.filter_map(|path| Some((path.name?, path.target))).collect();
            own.names.insert(module, names);
        }
        own
    }

    fn read(folder: &Path) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(&next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
                    files.push((name, std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        // A program reads the library like anybody else; `tests.rs` is a test.
        files.retain(|(name, _)| {
            name != "main.rs" && !name.split('/').any(|part| part == "tests.rs" || part == "tests")
        });
        Self::of_files(files)
    }

    /// What `module`'s text names, with the line.
    fn paths(&self, module: &Module) -> Vec<Named> {
        let (_, text) = &self.texts[module];
        let mut found = Vec::new();
        let mut tokens = Tokens::new(text).peekable();
        let mut previous = String::new();
        while let Some(token) = tokens.next() {
            let is_use = token.text == "use";
            let goes_on = previous != "::" && tokens.peek().is_some_and(|next| next.text == "::");
            let starts = |name: &str| matches!(name, "crate" | "self" | "super") || self.is_child(module, name);
            let is_path = goes_on && starts(&token.text);
            previous = token.text.clone();
            if is_use || is_path {
                let mut tree = if is_use { Vec::new() } else { vec![token.clone()] };
                let mut depth = 0;
                while let Some(next) = tokens.peek() {
                    let goes_on = match next.text.as_str() {
                        "{" => depth > 0 || tree.last().is_some_and(|last| last.text == "::"),
                        "::" => true,
                        ";" => false,
                        _ => is_use || tree.last().is_some_and(|last| last.text == "::"),
                    };
                    if !goes_on {
                        break;
                    }
                    depth += usize::from(next.text == "{");
                    previous = next.text.clone();
                    tree.push(next.clone());
                    tokens.next();
                }
                self.expand(module, &[], &tree, is_use, &mut found);
            }
        }
        found
    }

    fn is_child(&self, module: &Module, name: &str) -> bool {
        self.texts.contains_key(&[&module[..], &[name.to_string()]].concat())
    }

    /// The paths of a use tree behind `prefix`.
    fn expand(&self, module: &Module, prefix: &[String], tree: &[Token], is_use: bool, found: &mut Vec<Named>) {
        let mut path = prefix.to_vec();
        let mut index = 0;
        let Some(line) = tree.first().map(|token| token.line) else { return };
        let mut name = None;
        while let Some(token) = tree.get(index) {
            match token.text.as_str() {
                "::" => (),
                "{" => {
                    let (mut depth, mut start) = (0, index + 1);
                    for (position, token) in tree.iter().enumerate().skip(index) {
                        match token.text.as_str() {
                            "{" => depth += 1,
                            "}" => depth -= 1,
                            _ => (),
                        }
                        if (depth == 1 && token.text == ",") || depth == 0 {
                            self.expand(module, &path, &tree[start..position], is_use, found);
                            start = position + 1;
                        }
                        if depth == 0 {
                            return;
                        }
                    }
                    return;
                }
                "as" => {
                    name = tree.get(index + 1).map(|token| token.text.clone());
                    break;
                }
                "self" if !path.is_empty() => (),
                text => path.push(text.to_string()),
            }
            index += 1;
        }
        let name = name.or_else(|| path.last().cloned()).filter(|name| name != "*");
        if let Some(target) = self.absolute(module, &path) {
            found.push(Named { target, name, line, is_use });
        }
    }

    /// `path` as written in `module` from the root of the crate; `None` for what is another crate's.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut base = module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            first if self.is_child(module, first) => (),
            _ => return None,
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module in which what `path` names is written, behind all re-exports.
    fn home(&self, path: &[String]) -> Module {
        let mut known = 0;
        while known < path.len() && self.texts.contains_key(&path[..=known]) {
            known += 1;
        }
        let module = path[..known].to_vec();
        let stands_for = path.get(known).and_then(|name| self.names.get(&module)?.get(name));
        match stands_for {
            Some(target) if target[..] != path[..=known] => self.home(&[&target[..], &path[known + 1..]].concat()),
            _ => module,
        }
    }

    /// Every arrow between two modules.
    fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows: BTreeMap<(Module, Module), String> = BTreeMap::new();
        for (module, (file, _)) in &self.texts {
            for path in self.paths(module) {
                let to = self.home(&path.target);
                if to != *module {
                    arrows.entry((module.clone(), to)).or_insert_with(|| format!("{file}:{}", path.line));
                }
            }
        }
        arrows.into_iter().map(|((from, to), place)| Arrow { from, to, place }).collect()
    }
}

struct Named {
    target: Module,
    /// What it is called here.
    name: Option<String>,
    line: usize,
    is_use: bool,
}

/// `graph/op.rs`, `graph/mod.rs` and `graph.rs` from the folder of the sources.
fn module_of(path: &str) -> Module {
    let mut parts: Module = path.trim_end_matches(".rs").split('/').map(str::to_string).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// `text` without comments, literals, and modules and items that are for tests.
fn code(text: &str) -> String {
    let without = without_literals(text);
    let mut kept = String::new();
    let mut rest = without.as_str();
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let item = &rest[start..];
        let (mut depth, mut end) = (0, item.len());
        for (index, character) in item.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => (),
            }
            if depth == 0 && matches!(character, '}' | ';') {
                end = index + 1;
                break;
            }
        }
        kept.extend(item[..end].chars().filter(|character| *character == '\n'));
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

fn without_literals(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut kept = String::new();
    let at = |index: usize| characters.get(index).copied().unwrap_or(' ');
    let mut index = 0;
    while index < characters.len() {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let starts_word = index == 0 || !is_word(at(index - 1));
        let hashes = characters[index..].iter().skip(1).take_while(|character| **character == '#').count();
        let end = match at(index) {
            '/' if at(index + 1) == '/' => {
                characters[index..].iter().position(|c| *c == '\n').map_or(characters.len(), |n| index + n)
            }
            '/' if at(index + 1) == '*' => {
                let mut end = index + 2;
                while end < characters.len() && !(at(end) == '*' && at(end + 1) == '/') {
                    end += 1;
                }
                end + 2
            }
            'r' if starts_word && at(index + 1 + hashes) == '"' => {
                let mut end = index + 2 + hashes;
                let closes = |end: usize| at(end) == '"' && (1..=hashes).all(|n| at(end + n) == '#');
                while end < characters.len() && !closes(end) {
                    end += 1;
                }
                end + 1 + hashes
            }
            '"' => {
                let mut end = index + 1;
                while end < characters.len() && at(end) != '"' {
                    end += if at(end) == '\\' { 2 } else { 1 };
                }
                end + 1
            }
            // Not a lifetime.
            '\'' if at(index + 1) == '\\' => {
                characters[index + 3..].iter().position(|c| *c == '\'').map_or(characters.len(), |n| index + n + 4)
            }
            '\'' if at(index + 2) == '\'' => index + 3,
            character => {
                kept.push(character);
                index + 1
            }
        };
        if end > index + 1 {
            let skipped = &characters[index..end.min(characters.len())];
            kept.extend(skipped.iter().filter(|character| **character == '\n'));
            kept.push(' ');
        }
        index = end;
    }
    kept
}

#[derive(Clone)]
struct Token {
    text: String,
    line: usize,
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let skipped = self.rest.len() - self.rest.trim_start().len();
        self.line += self.rest[..skipped].matches('\n').count();
        self.rest = &self.rest[skipped..];
        let first = self.rest.chars().next()?;
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        let len = match first {
            _ if is_word(first) => self.rest.find(|character| !is_word(character)).unwrap_or(self.rest.len()),
            ':' if self.rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(Token { text: text.to_string(), line: self.line })
    }
}

/// The children of `parent` with those that each imports.
fn siblings(arrows: &BTreeSet<Arrow>, parent: &[String]) -> Graph {
    let child = |module: &Module| module.strip_prefix(parent).and_then(|rest| rest.first().cloned());
    let mut graph: Graph = BTreeMap::new();
    for arrow in arrows {
        if let (Some(from), Some(to)) = (child(&arrow.from), child(&arrow.to))
            && from != to
        {
            graph.entry(from).or_default().entry(to).or_insert_with(|| arrow.place.clone());
        }
    }
    graph
}

/// A way through `graph` that ends where it began: each step with its place.
fn cycle(graph: &Graph) -> Option<Vec<String>> {
    graph.keys().find_map(|start| {
        let mut reached: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = vec![start.as_str()];
        while let Some(at) = next.pop() {
            for to in graph.get(at).into_iter().flat_map(BTreeMap::keys) {
                if !reached.contains_key(to.as_str()) {
                    reached.insert(to, at);
                    next.push(to);
                }
            }
        }
        let (mut way, mut at) = (Vec::new(), start.as_str());
        while let Some(before) = reached.get(at).filter(|_| reached.contains_key(start.as_str())) {
            way.insert(0, format!("{before} -> {at} ({})", graph[*before][at]));
            at = before;
            if at == start {
                return Some(way);
            }
        }
        None
    })
}

/// All cycles between the children of one parent, at most one for each parent.
fn cycles(arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let modules = arrows.iter().flat_map(|arrow| [&arrow.from, &arrow.to]);
    let parents: BTreeSet<&[String]> =
        modules.flat_map(|module| (0..=module.len()).map(|depth| &module[..depth])).collect();
    let found = parents.into_iter().filter_map(|parent| {
        let way = cycle(&siblings(arrows, parent))?;
        Some(format!(
            "modules of {} import each other: {}",
            [&["crate".to_string()], parent].concat().join("::"),
            way.join(", ")
        ))
    });
    found.collect()
}

/// The graph as text: one line for each of `layers`, from the top, with what it imports in the same order.
fn text(layers: &[&str], graph: &Graph) -> String {
    let line = |layer: &&str| match graph.get(*layer) {
        None => layer.to_string(),
        Some(imports) => {
            let imports: Vec<&str> = layers.iter().copied().filter(|other| imports.contains_key(*other)).collect();
            format!("{layer} -> {}", imports.join(", "))
        }
    };
    layers.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What of `graph` is against `layers`, which stand from the top down.
fn violations(layers: &[&str], graph: &Graph) -> Vec<String> {
    let layer = |module: &str| layers.iter().position(|layer| *layer == module);
    let mut found = Vec::new();
    for (from, imports) in graph {
        for (to, place) in imports {
            match (layer(from), layer(to)) {
                (Some(own), Some(other)) if own < other => (),
                (Some(_), Some(_)) => found.push(format!("{place}: {from} imports {to}, which is above it")),
                (None, _) => found.push(format!("{place}: {from} has no line in the graph")),
                (_, None) => found.push(format!("{place}: {to} has no line in the graph")),
            }
        }
    }
    found
}

/// The lines under the heading `folder` in a graph of `contributing`.
fn lines_of<'a>(contributing: &'a str, folder: &str) -> Vec<&'a str> {
    let blocks = contributing.split(FENCES[0]).skip(1).filter_map(|rest| rest.split(FENCES[1]).next());
    let mut blocks = blocks.map(|block| block.trim().lines().collect::<Vec<_>>());
    let block = blocks.find(|lines| lines.first() == Some(&folder)).unwrap_or_default();
    block.into_iter().skip(1).collect()
}

#[test]
fn every_module_imports_only_from_those_below_it() {
    let contributing = std::fs::read_to_string(Path::new(ROOT).join("CONTRIBUTING.md")).unwrap();
    for folder in CRATES {
        let sources = Crate::read(&Path::new(ROOT).join(folder));
        let graph = siblings(&sources.arrows(), &[]);
        let lines = lines_of(&contributing, folder);
        let layers: Vec<&str> = lines.iter().map(|line| line.split(" -> ").next().unwrap_or_default()).collect();
        let found = violations(&layers, &graph);
        assert!(found.is_empty(), "against the graph of {folder} in CONTRIBUTING.md:\n{}", found.join("\n"));
        let now = text(&layers, &graph);
        assert_eq!(lines.join("\n"), now, "the graph of {folder} in CONTRIBUTING.md is to be:\n\n{folder}\n{now}\n");
    }
}

#[test]
fn no_modules_of_one_parent_import_each_other() {
    for folder in CRATES {
        let found = cycles(&Crate::read(&Path::new(ROOT).join(folder)).arrows());
        assert!(found.is_empty(), "{folder}:\n{}", found.join("\n"));
    }
}

/// The sources of a made-up crate.
fn made_up(files: &[(&str, &str)]) -> Crate {
    Crate::of_files(files.iter().map(|(path, text)| (path.to_string(), text.to_string())))
}

/// What it has against the layers `top` and `bottom`.
fn against_layers(files: &[(&str, &str)]) -> Vec<String> {
    violations(&["top", "bottom"], &siblings(&made_up(files).arrows(), &[]))
}

#[test]
fn an_import_from_above_is_found_however_it_is_written() {
    for text in [
        "\nuse crate::top::Thing;",
        "\nuse crate::{error::Error, top::{self, Thing}};",
        "\nfn f() -> crate::top::Thing { g() }",
        "\npub use super::top as other;",
    ] {
        let files = [("top/mod.rs", ""), ("bottom.rs", text), ("error.rs", ""), ("lib.rs", "")];
        let found = against_layers(&files);
        assert!(found.contains(&"bottom.rs:2: bottom imports top, which is above it".to_string()), "{text}: {found:?}");
    }
    // Through what another module re-exports, from a module within.
    let files = [
        ("lib.rs", "pub use top::Thing;\n"),
        ("top.rs", ""),
        ("bottom/deep.rs", "use crate::Thing;"),
        ("bottom/mod.rs", "mod deep;"),
    ];
    assert_eq!(against_layers(&files), ["bottom/deep.rs:1: bottom imports top, which is above it"]);
    let found = against_layers(&[("top.rs", "use crate::new::Thing;"), ("new.rs", "")]);
    assert_eq!(found, ["top.rs:1: new has no line in the graph"]);
}

#[test]
fn imports_from_below_and_what_is_no_import_are_not() {
    let files = [
        ("top.rs", "use crate::bottom::Thing;"),
        (
            "bottom.rs",
            "//! See [`crate::top`].\nconst TEXT: &str = \"crate::top\"; /* crate::top::x */ const RAW: &str = r#\"\"crate::top\"#;\n\
             fn f<'a>(x: &'a str) -> bool { x.contains('\"') && other::top::f(x) } // crate::top\n\
             #[cfg(test)]\nmod tests {\n    use crate::top::Thing;\n    fn f() {}\n}\n",
        ),
    ];
    assert_eq!(against_layers(&files), [""; 0]);
}

#[test]
fn the_text_has_a_line_per_layer_in_their_order() {
    let files = [("a.rs", "use crate::c::X; use crate::b::Y;"), ("b.rs", "use crate::c::X;"), ("c.rs", "")];
    let graph = siblings(&made_up(&files).arrows(), &[]);
    let text = text(&["a", "b", "c"], &graph);
    assert_eq!(text, "a -> b, c\nb -> c\nc");
    let contributing = format!("# Title\n```text\nother\nx\n```\n```text\nsrc\n{text}\n```\n");
    assert_eq!(lines_of(&contributing, "src").join("\n"), text);
}

#[test]
fn cycles_are_found_at_every_depth_but_not_between_parent_and_child() {
    let found = |files: &[(&str, &str)]| cycles(&made_up(files).arrows());
    let pair = [("a.rs", "use crate::b::X;"), ("b.rs", "use crate::a::Y;")];
    assert_eq!(found(&pair), ["modules of crate import each other: a -> b (a.rs:1), b -> a (b.rs:1)"]);
    let corner = [
        ("m/mod.rs", "mod a; mod b; mod c;"),
        ("m/a.rs", "use super::b::X;"),
        ("m/b.rs", "use crate::m::c::deep::Y;"),
        ("m/c/mod.rs", ""),
        ("m/c/deep.rs", "\nuse super::super::a::Z;"),
    ];
    let way = "a -> b (m/a.rs:1), b -> c (m/b.rs:1), c -> a (m/c/deep.rs:2)";
    assert_eq!(found(&corner), [format!("modules of crate::m import each other: {way}")]);
    // By way of what the parent re-exports.
    let shown = [
        ("m/mod.rs", "mod a; mod b;\npub use a::X; pub use b::Y;"),
        ("m/a.rs", "use super::Y;"),
        ("m/b.rs", "use super::X;"),
    ];
    assert_eq!(found(&shown).len(), 1);
    let parent = [("m.rs", "mod a;\nuse a::X; struct Own;"), ("m/a.rs", "use super::Own;")];
    assert_eq!(found(&parent), [""; 0]);
}
