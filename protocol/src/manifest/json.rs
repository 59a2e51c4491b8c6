//! JSON as the manifest uses it: read strictly, and written in the canonical form that is signed.
//!
//! The canonical form is OLPC's, as the specification names it: no white space, names in the order of
//! their bytes, strings raw but for `"` and `\`, integers only. The crate of that name is not used: it
//! also composes strings to Unicode's form C, which python-tuf does not, so that a path in another form
//! would fail its signature, and two documents would share one.
//!
//! Always true: a text that is read has one meaning. A name twice in an object is refused, since two
//! readers would take different ones.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a value has no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Only integers have one way to be written.
    #[error("the number {number} is no integer of 64 bits")]
    Number {
        /// As it was read.
        number: String,
    },
}

/// Reads one JSON value that is all of `bytes`.
///
/// # Errors
///
/// If it is no JSON, is nested deeper than 128, has a name twice in one object, or is followed by more.
pub fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0)
}

/// Returns the canonical form of `value`.
///
/// # Errors
///
/// [`CanonicalError::Number`] if it holds a number that is no integer.
pub fn canonical(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut form = Vec::new();
    write(value, &mut form)?;
    Ok(form)
}

fn write(value: &Value, form: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => form.extend(b"null"),
        Value::Bool(true) => form.extend(b"true"),
        Value::Bool(false) => form.extend(b"false"),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            form.extend(number.to_string().bytes());
        }
        Value::Number(number) => return Err(CanonicalError::Number { number: number.to_string() }),
        Value::String(text) => write_string(text, form),
        Value::Array(values) => {
            form.push(b'[');
            for (position, value) in values.iter().enumerate() {
                if position > 0 {
                    form.push(b',');
                }
                write(value, form)?;
            }
            form.push(b']');
        }
        Value::Object(members) => {
            // Sorted here: the order of a `Map` depends on a feature that any crate may turn on.
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_bytes());
            form.push(b'{');
            for (position, (name, value)) in members.into_iter().enumerate() {
                if position > 0 {
                    form.push(b',');
                }
                write_string(name, form);
                form.push(b':');
                write(value, form)?;
            }
            form.push(b'}');
        }
    }
    Ok(())
}

fn write_string(text: &str, form: &mut Vec<u8>) {
    form.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            form.push(b'\\');
        }
        form.push(byte);
    }
    form.push(b'"');
}

/// A value without a name twice in an object.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = access.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(value))) = access.next_entry::<String, Strict>()? {
            if members.contains_key(&name) {
                return Err(de::Error::custom(format_args!("the name {name:?} is there twice")));
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> String {
        String::from_utf8(canonical(&read(text.as_bytes()).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn the_canonical_form_has_no_space_sorted_names_and_raw_strings() {
        let text = r#" { "b" : [ 1, -2, true, null ], "a" : { }, "é":"\u00e9\n\"\\", "Z": 18446744073709551615 } "#;
        assert_eq!(
            form(text),
            "{\"Z\":18446744073709551615,\"a\":{},\"b\":[1,-2,true,null],\"é\":\"é\n\\\"\\\\\"}"
        );
    }

    #[test]
    fn a_string_keeps_its_unicode_form() {
        assert_eq!(form(r#""e\u0301""#), "\"e\u{301}\"");
        assert_ne!(form(r#""e\u0301""#), form(r#""\u00e9""#));
    }

    #[test]
    fn a_fraction_has_no_canonical_form() {
        for text in ["1.5", "1.0", "1e2", "18446744073709551616"] {
            let value = read(text.as_bytes()).unwrap();
            assert!(matches!(canonical(&value), Err(CanonicalError::Number { .. })), "{text}");
        }
    }

    #[test]
    fn a_name_twice_in_an_object_is_refused() {
        let error = read(br#"{"a":[{"version":1,"x":0,"version":2}]}"#).unwrap_err();
        assert!(error.to_string().contains("\"version\" is there twice"), "{error}");
        assert!(read(br#"[{"a":1},{"a":1}]"#).is_ok());
    }

    #[test]
    fn what_follows_the_value_or_goes_too_deep_is_refused() {
        assert!(read(b"{} {}").is_err());
        assert!(read(b"{} \n").is_ok());
        assert!(read("[".repeat(100_000).as_bytes()).is_err());
        assert!(read(b"\"\xff\"").is_err());
    }
}
