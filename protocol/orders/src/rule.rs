//! Rules over a device's facts: a part of the Common Expression Language that cannot take long.
//!
//! A rule knows `os`, `version`, `architecture`, `language`, `site`, `device` (`SITE/ID`), `host_name`
//! and `tags`, a list. It has `&&`, `||`, `!`, `==`, `!=`, `in`, `? :`, lists, `startsWith`, `endsWith`,
//! `contains`, `size`, `tags.exists(t, …)`, `tags.all(t, …)`, and `at_least(version, '12.4')`, which
//! compares numbers between dots. `<` and its like are refused: they would compare versions as texts.
//!
//! Always true: a rule that was parsed is short, not deep, names nothing unknown, and was found to give
//! a yes or a no. Repetitions are not nested, so its cost is at most its length times the number of tags.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr};
use cel::parser::Parser;
use cel::{Context, Env, IdedExpr, Value};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::bounds::{RULE_BYTES_MAX, RULE_DEPTH_MAX};
use crate::facts::Facts;

/// The names that a rule may use.
const FACTS: [&str; 8] =
    ["os", "version", "architecture", "language", "site", "device", "host_name", "tags"];

/// The operators and functions that a rule may use, as the parser calls them.
const FUNCTIONS: [&str; 13] = [
    "_&&_",
    "_||_",
    "!_",
    "_==_",
    "_!=_",
    "@in",
    "_?_:_",
    "startsWith",
    "endsWith",
    "contains",
    "size",
    AT_LEAST,
    // What `exists` and `all` become.
    "@not_strictly_false",
];

const AT_LEAST: &str = "at_least";

/// A rule, parsed and found to be within its bounds.
#[derive(Clone)]
pub struct Rule {
    text: Box<str>,
    expression: Arc<IdedExpr>,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleParseError {
    /// Longer than anybody reviews.
    #[error("a rule has at most {RULE_BYTES_MAX} bytes, not {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Nested too deep.
    #[error("a rule is nested at most {RULE_DEPTH_MAX} deep")]
    TooDeep,
    /// No expression of the language.
    #[error("a rule is an expression: {fault}")]
    Syntax {
        /// What the parser says.
        fault: String,
    },
    /// A name that is no fact.
    #[error("a rule knows no {name:?}; the facts are {}", FACTS.join(", "))]
    UnknownName {
        /// The name.
        name: String,
    },
    /// A part of the language that rules do not have.
    #[error("a rule has no {what}")]
    NotAllowed {
        /// What was found.
        what: String,
    },
    /// `exists` or `all` within another one.
    #[error("a rule repeats nothing within a repetition")]
    Nested,
    /// It gives something other than a yes or a no.
    #[error("a rule answers true or false: {fault}")]
    NoAnswer {
        /// What it gives instead.
        fault: String,
    },
}

/// Why a rule has no answer for a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rule {rule:?} has no answer: {fault}")]
pub struct RuleRunError {
    /// The rule.
    pub rule: String,
    /// What happened instead.
    pub fault: String,
}

impl Rule {
    /// Returns the rule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the rule holds for a device.
    ///
    /// # Errors
    ///
    /// [`RuleRunError`] if it has no answer. Whoever starts something takes that for a no, and whoever
    /// stops something for a yes.
    pub fn holds(&self, facts: &Facts) -> Result<bool, RuleRunError> {
        answer(&self.expression, facts)
            .map_err(|fault| RuleRunError { rule: self.text.to_string(), fault })
    }
}

/// What every rule is evaluated in. It is the same for all, and takes longer to make than a rule to answer.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

fn answer(expression: &IdedExpr, facts: &Facts) -> Result<bool, String> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    let texts = [
        ("os", facts.os.as_str()),
        ("version", &facts.version),
        ("architecture", &facts.architecture),
        ("language", &facts.language),
        ("site", facts.device.site.as_str()),
        ("host_name", &facts.host_name),
    ];
    for (name, value) in texts {
        context.add_variable_from_value(name, value.to_owned());
    }
    context.add_variable_from_value("device", facts.device.to_string());
    context.add_variable_from_value("tags", facts.tags.iter().cloned().collect::<Vec<_>>());
    context
        .add_function(AT_LEAST, |version: Arc<String>, least: Arc<String>| {
            at_least(&version, &least)
        })
        .map_err(|error| error.to_string())?;
    match Value::resolve(expression, &context) {
        Ok(Value::Bool(answer)) => Ok(answer),
        Ok(other) => Err(format!("it gives a {}", other.type_of())),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns whether a version is not lower than another, by the numbers in them: `12.10` is at least
/// `12.9`. What is no number parts numbers and counts for nothing.
fn at_least(version: &str, least: &str) -> bool {
    let mut version = numbers(version);
    let mut least = numbers(least);
    loop {
        match (version.next(), least.next()) {
            (_, None) => return true,
            (None, Some(least)) if least > 0 => return false,
            (Some(version), Some(least)) if version != least => return version > least,
            (None | Some(_), Some(_)) => {}
        }
    }
}

/// Returns the numbers in a text. One that is too long for us is higher than all others.
fn numbers(text: &str) -> impl Iterator<Item = u64> {
    let parts = text.split(|character: char| !character.is_ascii_digit());
    parts.filter(|part| !part.is_empty()).map(|part| part.parse().unwrap_or(u64::MAX))
}

impl FromStr for Rule {
    type Err = RuleParseError;

    fn from_str(text: &str) -> Result<Self, RuleParseError> {
        if text.len() > RULE_BYTES_MAX {
            return Err(RuleParseError::TooLong { found: text.len() });
        }
        // Before the parser, which goes down the stack by what is open.
        if opened(text) > usize::from(RULE_DEPTH_MAX) {
            return Err(RuleParseError::TooDeep);
        }
        let parser = Parser::new().max_recursion_depth(RULE_DEPTH_MAX);
        let expression = parser
            .parse(text)
            .map_err(|errors| RuleParseError::Syntax { fault: one_line(&errors.to_string()) })?;
        Walk { variables: Vec::new() }.check(&expression, RULE_DEPTH_MAX)?;
        answer(&expression, &Facts::of_nobody())
            .map_err(|fault| RuleParseError::NoAnswer { fault })?;
        Ok(Self { text: text.into(), expression: Arc::new(expression) })
    }
}

/// Returns how many brackets are open at once, at most. Those in a text count too.
fn opened(text: &str) -> usize {
    let mut open = 0_usize;
    let mut most = 0;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(200).collect()
}

/// Walks down an expression for what a rule may not have.
struct Walk {
    /// What the repetition around it binds; one at most is open.
    variables: Vec<String>,
}

impl Walk {
    fn check(&mut self, expression: &IdedExpr, left: u16) -> Result<(), RuleParseError> {
        let left = left.checked_sub(1).ok_or(RuleParseError::TooDeep)?;
        let refuse = |what: &str| Err(RuleParseError::NotAllowed { what: what.to_owned() });
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::List(list) => list.elements.iter().try_for_each(|one| self.check(one, left)),
            Expr::Call(call) => self.call(call, left),
            Expr::Comprehension(repetition) => {
                if !self.variables.is_empty() {
                    return Err(RuleParseError::Nested);
                }
                self.check(&repetition.iter_range, left)?;
                self.variables.push(repetition.iter_var.clone());
                self.variables.extend(repetition.iter_var2.clone());
                self.variables.push(repetition.accu_var.clone());
                for part in [
                    &repetition.accu_init,
                    &repetition.loop_cond,
                    &repetition.loop_step,
                    &repetition.result,
                ] {
                    self.check(part, left)?;
                }
                self.variables.clear();
                Ok(())
            }
            Expr::Select(select) => refuse(&format!("field .{}", select.field)),
            Expr::Map(_) => refuse("map"),
            Expr::Struct(_) => refuse("struct"),
            Expr::Unspecified => refuse("gap"),
        }
    }

    fn name(&self, name: &str) -> Result<(), RuleParseError> {
        if FACTS.contains(&name) || self.variables.iter().any(|variable| variable == name) {
            return Ok(());
        }
        Err(RuleParseError::UnknownName { name: name.chars().take(64).collect() })
    }

    fn call(&mut self, call: &CallExpr, left: u16) -> Result<(), RuleParseError> {
        if !FUNCTIONS.contains(&call.func_name.as_str()) {
            let what: String = call.func_name.chars().take(64).collect();
            return Err(RuleParseError::NotAllowed { what });
        }
        if let Some(target) = &call.target {
            self.check(target, left)?;
        }
        call.args.iter().try_for_each(|argument| self.check(argument, left))
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            os: "debian".to_owned(),
            version: "12.10".to_owned(),
            architecture: "amd64".to_owned(),
            tags: ["kiosk".to_owned(), "floor-3".to_owned()].into(),
            ..Facts::of_nobody()
        }
    }

    fn refused(text: &str) -> RuleParseError {
        text.parse::<Rule>().expect_err(text)
    }

    #[test]
    fn a_rule_asks_for_facts() {
        for (text, expected) in [
            ("os == 'debian' && architecture in ['amd64', 'arm64']", true),
            ("os == 'debian' && !('kiosk' in tags)", false),
            ("tags.exists(t, t.startsWith('floor-'))", true),
            ("tags.all(t, t.startsWith('floor-'))", false),
            ("at_least(version, '12.9')", true),
            ("at_least(version, '12.10.1')", false),
            ("at_least(version, '12.10.0')", true),
            ("size(tags) == 2", true),
            ("os == 'windows' ? false : true", true),
            ("device == 'nowhere/nobody' && site == 'nowhere'", true),
            ("true", true),
        ] {
            let rule: Rule = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(rule.holds(&facts()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_a_rule_cannot_have_is_refused_by_name() {
        assert!(
            matches!(refused("hostname == 'a'"), RuleParseError::UnknownName { name } if name == "hostname")
        );
        assert!(
            matches!(refused("os.matches('(a+)+')"), RuleParseError::NotAllowed { what } if what == "matches")
        );
        assert!(matches!(refused("version < '9'"), RuleParseError::NotAllowed { .. }));
        assert!(matches!(refused("size(tags + tags) == 1"), RuleParseError::NotAllowed { .. }));
        assert!(matches!(refused("{'a': 1} == {'a': 1}"), RuleParseError::NotAllowed { .. }));
        assert!(matches!(refused("has(os.x)"), RuleParseError::NotAllowed { .. }));
        assert!(matches!(refused("tags.map(t, t) == tags"), RuleParseError::NotAllowed { .. }));
        assert_eq!(refused("tags.exists(a, tags.exists(b, a == b))"), RuleParseError::Nested);
        for text in ["os", "'x'", "1", "os.size()", "!os"] {
            assert!(matches!(refused(text), RuleParseError::NoAnswer { .. }), "{text}");
        }
        for text in ["", "os ==", "os = 'x'", "&&", "'", "\u{0}", "os == 'a' 'b'"] {
            assert!(matches!(refused(text), RuleParseError::Syntax { .. }), "{text:?}");
        }
    }

    #[test]
    fn a_rule_is_bounded_in_length_and_depth() {
        let long = format!("os == '{}'", "x".repeat(RULE_BYTES_MAX));
        assert!(matches!(refused(&long), RuleParseError::TooLong { .. }));
        let deep = |by: usize| format!("{}true{}", "(".repeat(by), ")".repeat(by));
        assert!(deep(8).parse::<Rule>().is_ok());
        let ternaries = "true?".repeat(200) + "true";
        for text in [deep(100), ternaries, "[".repeat(1_000)] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        let wide = vec!["os == 'a'"; 60].join(" || ");
        assert!(wide.parse::<Rule>().is_ok(), "{:?}", wide.parse::<Rule>().err());
    }
}
