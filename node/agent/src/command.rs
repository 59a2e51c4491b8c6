//! Commands as a config writes them, and the argument vectors that they become for one content.
//!
//! Pure: [`crate::run`] runs what comes out. There is no shell anywhere, so that no character of a name or a
//! hook has a meaning for one.
//!
//! Always true: what begins with a dash is an option that the config wrote; data never becomes one (T24).

use std::fmt;

use serde::de;
use serde::{Deserialize, Deserializer};

/// Arguments of a command in a config, at most: what is longer belongs into a script of the operator's.
const ARGUMENTS_MAX: usize = 64;

/// Bytes of one argument, at most, as the system itself allows and more than a path is long.
const ARGUMENT_BYTES_MAX: usize = 4_096;

/// The program and arguments of a command, with places for what a content is called.
///
/// `{file}` is the absolute path of the content's bytes, `{name}` its file name, `{content}` its id in 64
/// hex digits; each is an argument or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    program: String,
    arguments: Vec<Vec<Part>>,
}

/// A part of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

/// What a command can be told of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    File,
    Name,
    Content,
}

/// What a command is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The absolute path of the bytes.
    pub file: &'a str,
    /// The content's file name.
    pub name: &'a str,
    /// Its id.
    pub content: &'a str,
    /// What the orders tell the command beside; each is one argument after the config's own.
    pub hooks: &'a [String],
}

/// A command as the system is to run it: a program, and arguments that nothing interprets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    /// The program's absolute path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Why a text is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing to run.
    #[error("a command has at least a program")]
    Empty,
    /// Its meaning would depend on the environment, or on a content.
    #[error("the program {program:?} is no absolute path without {{}}")]
    Program {
        /// What it was.
        program: String,
    },
    /// More or longer arguments than are taken.
    #[error(
        "a command has at most {ARGUMENTS_MAX} arguments of at most {ARGUMENT_BYTES_MAX} bytes"
    )]
    TooMuch,
    /// A place for something that there is not.
    #[error("{place:?} is none of {{file}}, {{name}} and {{content}}")]
    Place {
        /// What it was.
        place: String,
    },
}

/// Why a command is not run for a content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// Data at the front of an argument, which would make an option of it (T24).
    #[error("{argument:?} would be taken for an option")]
    Option {
        /// The argument.
        argument: String,
    },
    /// Data that cannot be an argument at all.
    #[error("an argument holds a NUL")]
    Nul,
}

impl Template {
    /// Reads a command: its program, then its arguments.
    ///
    /// # Errors
    ///
    /// [`TemplateError`].
    pub fn parse(command: &[String]) -> Result<Self, TemplateError> {
        let (program, arguments) = command.split_first().ok_or(TemplateError::Empty)?;
        let is_plain = program.starts_with('/') && !program.contains(['{', '}', '\0']);
        if !is_plain {
            return Err(TemplateError::Program { program: program.clone() });
        }
        within_bounds(command)?;
        let arguments =
            arguments.iter().map(|argument| parts(argument)).collect::<Result<_, _>>()?;
        Ok(Self { program: program.clone(), arguments })
    }

    /// Returns the program's path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Returns whether the bytes have to be here for it.
    pub fn wants_file(&self) -> bool {
        self.arguments.iter().flatten().any(|part| *part == Part::Field(Field::File))
    }

    /// Returns the command for one content.
    ///
    /// # Errors
    ///
    /// [`FillError`] if a name or a hook would be taken for something else than data.
    pub fn fill(&self, subject: &Subject<'_>) -> Result<Vector, FillError> {
        let mut arguments = Vec::with_capacity(self.arguments.len() + subject.hooks.len());
        for parts in &self.arguments {
            let argument: String = parts.iter().map(|part| part.of(subject)).collect();
            let is_own = matches!(parts.first(), Some(Part::Text(_)) | None);
            arguments.push((argument, is_own));
        }
        arguments.extend(subject.hooks.iter().map(|hook| (hook.clone(), false)));
        for (argument, is_own) in &arguments {
            if !is_own && argument.starts_with('-') {
                return Err(FillError::Option { argument: argument.clone() });
            }
            if argument.contains('\0') {
                return Err(FillError::Nul);
            }
        }
        let arguments = arguments.into_iter().map(|(argument, _)| argument).collect();
        Ok(Vector { program: self.program.clone(), arguments })
    }
}

impl Vector {
    /// Reads a command that is told of no content: braces mean nothing in it.
    ///
    /// # Errors
    ///
    /// [`TemplateError`].
    pub fn parse(command: &[String]) -> Result<Self, TemplateError> {
        let (program, arguments) = command.split_first().ok_or(TemplateError::Empty)?;
        if !program.starts_with('/') {
            return Err(TemplateError::Program { program: program.clone() });
        }
        within_bounds(command)?;
        Ok(Self { program: program.clone(), arguments: arguments.to_vec() })
    }
}

fn within_bounds(command: &[String]) -> Result<(), TemplateError> {
    let is_short = |text: &String| text.len() <= ARGUMENT_BYTES_MAX && !text.contains('\0');
    if command.len() > ARGUMENTS_MAX + 1 || !command.iter().all(is_short) {
        return Err(TemplateError::TooMuch);
    }
    Ok(())
}

impl Part {
    fn of<'a>(&'a self, subject: &Subject<'a>) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Field(Field::File) => subject.file,
            Self::Field(Field::Name) => subject.name,
            Self::Field(Field::Content) => subject.content,
        }
    }
}

/// Splits an argument into text and places. `{{` and `}}` are braces.
fn parts(argument: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            text.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let end = from.find('}').filter(|end| *end > 0).unwrap_or(from.len() - 1);
        let place = &from[..=end];
        let field = match place {
            "{file}" => Field::File,
            "{name}" => Field::Name,
            "{content}" => Field::Content,
            _ => return Err(TemplateError::Place { place: place.to_owned() }),
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Field(field));
        rest = &from[end + 1..];
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let command = Vec::<String>::deserialize(deserializer)?;
        Self::parse(&command).map_err(de::Error::custom)
    }
}

impl fmt::Display for Vector {
    /// Each part in quotes, so that a reader sees where it ends; nothing reads it back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.program)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(command: &[&str]) -> Result<Template, TemplateError> {
        Template::parse(&command.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>())
    }

    fn filled(command: &[&str], name: &str, hooks: &[&str]) -> Result<Vec<String>, FillError> {
        let hooks: Vec<String> = hooks.iter().map(|hook| (*hook).to_owned()).collect();
        let subject = Subject { file: "/d/x.deb", name, content: "ab", hooks: &hooks };
        template(command).unwrap().fill(&subject).map(|vector| vector.arguments)
    }

    #[test]
    fn places_are_arguments_or_parts_of_one() {
        let command = ["/bin/x", "--install", "{file}", "--as={name}", "{{{content}}}", "-"];
        let arguments = filled(&command, "a b", &["hook"]).unwrap();
        assert_eq!(arguments, ["--install", "/d/x.deb", "--as=a b", "{ab}", "-", "hook"]);
    }

    // T24
    #[test]
    fn a_name_that_looks_like_an_option_never_becomes_one() {
        for (name, hooks) in [("--force", &[][..]), ("-", &[]), ("x", &["-o"]), ("x", &["--"])] {
            let error = filled(&["/bin/x", "{name}"], name, hooks).unwrap_err();
            assert!(matches!(error, FillError::Option { .. }), "{name} {hooks:?}");
        }
        // Behind the config's own text it is data.
        assert_eq!(filled(&["/bin/x", "--n={name}"], "--force", &[]).unwrap(), ["--n=--force"]);
    }

    // T24
    #[test]
    fn characters_of_a_shell_are_characters() {
        let name = "$(reboot); `id` 'x' \"y\" | cat > /etc/passwd &\t*";
        assert_eq!(filled(&["/bin/x", "{name}"], name, &[name]).unwrap(), [name, name]);
        assert_eq!(filled(&["/bin/x", "{name}"], "{file}", &["{file}"]).unwrap(), ["{file}"; 2]);
        assert_eq!(filled(&["/bin/x", "{name}"], "a\0b", &[]), Err(FillError::Nul));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert_eq!(template(&[]), Err(TemplateError::Empty));
        for program in ["dpkg", "./dpkg", "", "/{name}", "/a\0"] {
            let found = template(&[program]).unwrap_err();
            assert!(matches!(found, TemplateError::Program { .. }), "{program:?}");
        }
        for place in ["{files}", "{", "}", "{}", "x{FILE}", "{file", "{ file }", "{file}}"] {
            let found = template(&["/x", place]).unwrap_err();
            assert!(matches!(found, TemplateError::Place { .. }), "{place:?}: {found}");
        }
        let vector = |command: &[&str]| {
            Vector::parse(&command.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(vector(&["/x", "${y}\n"]).unwrap().arguments, ["${y}\n"]);
        assert!(matches!(vector(&["x"]), Err(TemplateError::Program { .. })));
        assert_eq!(vector(&["/x", "a\0"]), Err(TemplateError::TooMuch));
        let long = "x".repeat(ARGUMENT_BYTES_MAX + 1);
        assert_eq!(template(&["/x", &long]), Err(TemplateError::TooMuch));
        assert_eq!(template(&["/x"; ARGUMENTS_MAX + 2]), Err(TemplateError::TooMuch));
    }
}
