//! One Rust file and the rules about it alone: header, size, words that must not stay.
//!
//! Files are read by `syn`, so that a `}` in a string or an `unwrap` in a comment is what it is.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    AttrStyle, Attribute, Block, ImplItemFn, ItemFn, ItemImpl, ItemMod, ItemTrait, Signature,
};

use super::Finding;
use super::exceptions::{Exceptions, Kind};

/// Macros that mark unfinished work or a look at it.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// A Rust file, parsed.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    file: syn::File,
    /// Lines of items that exist only under test.
    tests: Vec<RangeInclusive<usize>>,
}

/// A path as code spells it, such as `std::fs::File`, and each of its beginnings.
pub(super) struct Spelled {
    pub(super) path: String,
    pub(super) line: usize,
}

/// Walks a file for its functions and its test items.
#[derive(Default)]
struct Walk {
    functions: Vec<Function>,
    tests: Vec<RangeInclusive<usize>>,
    owner: Vec<String>,
}

struct Function {
    name: String,
    first: usize,
    last: usize,
}

impl<'a> Source<'a> {
    pub(super) fn parse(path: &'a str, text: &'a str) -> Result<Self, Finding> {
        let file = syn::parse_file(text)
            .map_err(|error| Finding::new(path, format!("is not Rust: {error}")))?;
        let mut walk = Walk::default();
        walk.visit_file(&file);
        Ok(Self { path, text, file, tests: walk.tests })
    }

    /// Returns whether the line exists only under test.
    pub(super) fn is_test(&self, line: usize) -> bool {
        let parts = self.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
        parts.into_iter().any(|part| part == "tests")
            || self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// Returns every breach of the rules about one file.
    pub(super) fn faults(&self, exceptions: &mut Exceptions) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.file.attrs.iter().any(is_header) {
            findings.push(Finding::at(self.path, 1, "a module opens with `//!`"));
        }
        if let Some(fault) = exceptions.check(Kind::File, self.path, self.lines()) {
            findings.push(Finding::new(self.path, fault));
        }
        let mut walk = Walk::default();
        walk.visit_file(&self.file);
        for Function { name, first, last } in walk.functions {
            let place = format!("{}::{name}", self.path);
            if let Some(fault) = exceptions.check(Kind::Function, &place, last - first + 1) {
                findings.push(Finding::at(self.path, first, format!("{name}: {fault}")));
            }
        }
        self.unfinished(&mut findings);
        findings
    }

    /// Returns every path in the code, macros and groups of imports among it.
    pub(super) fn paths(&self) -> Vec<Spelled> {
        let mut paths = Vec::new();
        spell(self.tokens(), "", &mut paths);
        paths
    }

    /// Returns the lines of the file without the inline tests at its end.
    fn lines(&self) -> usize {
        let inline: usize = self.tests.iter().map(|lines| lines.end() - lines.start() + 1).sum();
        self.text.lines().count() - inline
    }

    fn unfinished(&self, findings: &mut Vec<Finding>) {
        let mut flat = Vec::new();
        flatten(self.tokens(), &mut flat);
        for pair in flat.windows(2) {
            let [(before, _), (word, line)] = pair else { continue };
            let fault = if before == "." && word == "unwrap" {
                "unwrap outside tests: return the error, or `expect` with its proof".to_owned()
            } else if word == "!" && UNFINISHED.contains(&before.as_str()) {
                format!("{before}! outside tests")
            } else {
                continue;
            };
            if !self.is_test(*line) {
                findings.push(Finding::at(self.path, *line, fault));
            }
        }
    }

    fn tokens(&self) -> TokenStream {
        self.text.parse().expect("syn has parsed this text already")
    }
}

impl Walk {
    fn function(&mut self, signature: &Signature, block: &Block) {
        let mut name = self.owner.join("::");
        if !name.is_empty() {
            name.push_str("::");
        }
        name.push_str(&signature.ident.to_string());
        let (first, last) = (signature.span().start().line, block.span().end().line);
        self.functions.push(Function { name, first, last });
    }

    fn test_item(&mut self, attributes: &[Attribute], item: &impl Spanned) {
        let span = item.span();
        let within = self.tests.iter().any(|lines| lines.contains(&span.start().line));
        if !within && attributes.iter().any(is_test_only) {
            self.tests.push(span.start().line..=span.end().line);
        }
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.test_item(&item.attrs, item);
        self.owner.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.owner.pop();
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        self.test_item(&item.attrs, item);
        self.owner.push(match &*item.self_ty {
            syn::Type::Path(named) => {
                named.path.segments.last().map_or_else(String::new, |last| last.ident.to_string())
            }
            _ => "impl".to_owned(),
        });
        visit::visit_item_impl(self, item);
        self.owner.pop();
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.owner.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.owner.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.test_item(&item.attrs, item);
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.test_item(&item.attrs, item);
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn is_header(attribute: &Attribute) -> bool {
    matches!(attribute.style, AttrStyle::Inner(_)) && attribute.path().is_ident("doc")
}

/// Returns whether the attribute is `#[test]`, `#[….::test]`, `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn is_test_only(attribute: &Attribute) -> bool {
    if attribute.path().segments.last().is_some_and(|last| last.ident == "test") {
        return true;
    }
    let Ok(list) = attribute.meta.require_list() else { return false };
    let condition = list.tokens.to_string().replace(' ', "");
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all(test,"))
}

fn flatten(tokens: TokenStream, flat: &mut Vec<(String, usize)>) {
    for token in tokens {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                flat.push(("group".to_owned(), line));
                flatten(group.stream(), flat);
            }
            // A literal's text is never code, whatever it spells.
            TokenTree::Literal(_) => flat.push((String::new(), line)),
            TokenTree::Ident(word) => flat.push((word.to_string(), line)),
            TokenTree::Punct(mark) => flat.push((mark.to_string(), line)),
        }
    }
}

/// Collects the paths in `tokens`; those of a group after `::` go on from what stands before it.
fn spell(tokens: TokenStream, before: &str, paths: &mut Vec<Spelled>) {
    let mut path = before.to_owned();
    let mut colons = if before.is_empty() { 0 } else { 2 };
    for token in tokens {
        let line = token.span().start().line;
        match token {
            TokenTree::Ident(word) => {
                if colons == 2 && !path.is_empty() {
                    path = format!("{path}::{word}");
                } else {
                    path = word.to_string();
                }
                paths.push(Spelled { path: path.clone(), line });
                colons = 0;
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
            TokenTree::Group(group) => {
                let goes_on = colons == 2 && group.delimiter() == Delimiter::Brace;
                spell(group.stream(), if goes_on { &path } else { "" }, paths);
                (path, colons) = (String::new(), 0);
            }
            // A comma inside a group of imports: the next path begins where the group did.
            TokenTree::Punct(mark) if mark.as_char() == ',' => {
                before.clone_into(&mut path);
                colons = if before.is_empty() { 0 } else { 2 };
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => (path, colons) = (String::new(), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut exceptions = Exceptions::default();
        let findings = Source::parse(path, text).unwrap().faults(&mut exceptions);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_module_without_a_header_is_found() {
        assert_eq!(faults("a.rs", "// Not a header.\n"), ["a.rs:1: a module opens with `//!`"]);
        assert!(faults("a.rs", "//! A header.\n").is_empty());
    }

    #[test]
    fn unfinished_words_are_found_in_code_and_macros_but_not_in_tests_or_text() {
        let text = r#"//! Words: .unwrap() and todo!() in prose.
fn f(x: Option<u8>) -> String {
    let said = ".unwrap() todo!()"; // .unwrap()
    x.unwrap_or(1);
    x.unwrap();
    format!("{}{said}", x.unwrap());
    todo!()
}
#[test]
fn g() { None::<u8>.unwrap(); }
#[cfg(test)]
mod tests {
    fn h() { dbg!(None::<u8>.unwrap()); }
}
"#;
        let lines: Vec<String> =
            faults("a.rs", text).iter().map(|line| line[..6].to_owned()).collect();
        assert_eq!(lines, ["a.rs:5", "a.rs:6", "a.rs:7"]);
        assert!(faults("tests/tests/a.rs", text).is_empty());
        assert!(faults("cache/src/store/tests.rs", text).is_empty());
    }

    #[test]
    fn a_function_fits_70_lines_wherever_it_stands() {
        let body = |lines: usize| "\n    f();".repeat(lines - 2);
        let fits = format!("//! F.\nfn f() {{{}\n}}\n", body(70));
        assert!(faults("a.rs", &fits).is_empty());
        let past = format!("//! F.\nimpl A {{\nfn f() {{{}\n}}\n}}\n", body(71));
        let found = faults("a.rs", &past);
        assert!(found[0].starts_with("a.rs:3: A::f: a function of 71 lines"), "{found:?}");
    }

    #[test]
    fn a_file_fits_800_lines_without_its_inline_tests() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// t\n".repeat(100));
        let fits = format!("//! F.\n{}{tests}", "// f\n".repeat(799));
        assert!(faults("a.rs", &fits).is_empty());
        let past = format!("//! F.\n{}{tests}", "// f\n".repeat(800));
        assert!(faults("a.rs", &past)[0].contains("801 lines"));
    }

    #[test]
    fn paths_are_spelled_out_through_groups_and_macros() {
        let text = "//! P.\nuse std::{fs, io::{self, Read}, net};\nfn f() { g!(std::env::var(x)); \
                    a.b::<std::thread::Thread>(Instant::now()); }\n";
        let source = Source::parse("a.rs", text).unwrap();
        let paths: Vec<String> = source.paths().into_iter().map(|spelled| spelled.path).collect();
        for path in ["std::fs", "std::io::Read", "std::net", "std::env::var", "std::thread"] {
            assert!(paths.iter().any(|spelled| spelled == path), "{path} in {paths:?}");
        }
        assert!(paths.iter().any(|spelled| spelled == "Instant::now"));
        assert!(!paths.iter().any(|spelled| spelled == "std::io::net"));
    }
}
