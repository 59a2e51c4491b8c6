//! JSON as the manifest uses it: read strictly, and written in the canonical form that is signed.
//!
//! The canonical form is OLPC's, as the specification names it: no white space, names in the order of
//! their bytes, strings raw but for `"` and `\`, integers only. The crate of that name is not used: it
//! also composes strings to Unicode's form C, which python-tuf does not, so that a path in another form
//! would fail its signature, and two documents would share one.
//!
//! Always true:
//! - a text that is read has one meaning: a name twice in an object is refused, since two readers would
//!   take different ones;
//! - what is read takes a bounded amount of memory, whoever sent it: it is read before it is believed.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::bounds::VALUES_MAX;

/// Values that an object counts for, beside those in it: it takes some 600 bytes, however few they are.
const OBJECT_VALUES: usize = 4;

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
/// If it is no JSON, is nested deeper than 128, has more than [`VALUES_MAX`] values or a name twice in one
/// object, or is followed by more.
pub fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let left = Cell::new(VALUES_MAX);
    let value = Strict { left: &left }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
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

/// Reads a value without a name twice in an object, while there are values left to be read.
#[derive(Clone, Copy)]
struct Strict<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count(1)?;
        deserializer.deserialize_any(self)
    }
}

impl Strict<'_> {
    fn count<E: de::Error>(self, values: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(values);
        let too_many = || E::custom(format_args!("more than {VALUES_MAX} values"));
        self.left.set(left.ok_or_else(too_many)?);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
        while let Some(value) = access.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.count(OBJECT_VALUES - 1)?;
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(de::Error::custom(format_args!("the name {name:?} is there twice")));
            }
            members.insert(name, access.next_value_seed(self)?);
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

    // T5
    #[test]
    fn a_text_of_more_values_than_a_role_has_is_refused() {
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(read(zeros(VALUES_MAX - 1).as_bytes()).is_ok());
        let error = read(zeros(VALUES_MAX).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("more than 500000 values"), "{error}");
        let objects = |count: usize| format!("[{}0]", "{},".repeat(count));
        assert!(read(objects(VALUES_MAX / OBJECT_VALUES - 1).as_bytes()).is_ok());
        assert!(read(objects(VALUES_MAX / OBJECT_VALUES).as_bytes()).is_err());
    }

    #[test]
    fn what_follows_the_value_or_goes_too_deep_is_refused() {
        assert!(read(b"{} {}").is_err());
        assert!(read(b"{} \n").is_ok());
        assert!(read("[".repeat(100_000).as_bytes()).is_err());
        assert!(read(b"\"\xff\"").is_err());
    }
}
